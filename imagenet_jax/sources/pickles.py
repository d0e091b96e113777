"""Reads pickles of plain data without running anything in them.

Python's own unpickler, however restricted, can still be made to fill the memory or hang by a file of a few bytes. This
one knows only the opcodes that plain data is written with: None, bools, ints, strings, tuples, lists, and dicts with
strings as keys.
"""

import ast
import math
import struct
from collections.abc import Callable, Mapping
from types import MappingProxyType

import numpy as np

# By opcode, with the struct format of what follows it: the number itself, or the length of what comes next.
_INTS = {b'K': '<B', b'M': '<H', b'J': '<i'}
_LONGS = {b'\x8a': '<B', b'\x8b': '<i'}
_BYTES = {b'U': '<B', b'T': '<i', b'C': '<B', b'B': '<I', b'\x8e': '<Q', b'\x96': '<Q'}  # str of Python 2 first
_TEXTS = {b'\x8c': '<B', b'X': '<I', b'\x8d': '<Q'}
_PUTS = {b'q': '<B', b'r': '<I'}
_GETS = {b'h': '<B', b'j': '<I'}
_SKIPPED = {b'\x80': '<B', b'\x95': '<Q'}  # protocol, frame
_NEW = {b'N': lambda: None, b'\x88': lambda: True, b'\x89': lambda: False, b')': tuple, b']': list, b'}': dict}
_TUPLES = {b'\x85': 1, b'\x86': 2, b'\x87': 3}
_LONGEST_LINE = 4096


def load(data: bytes | memoryview, classes: Mapping[str, Callable] = MappingProxyType({})) -> object:
    """The object of a pickle.

    Args:
      data: the pickle, written by Python 2 or 3.
      classes: 'module.name' of what else it may hold -> what is called in its stead.

    Returns:
      Plain data, in which bytes, and strings of Python 2, are read-only memoryviews, of `data` where it holds them as
      they are.

    Raises:
      ValueError: it is damaged, or holds anything else; a class is named.
    """
    try:
        return _Machine(data, classes).run()
    except (IndexError, KeyError, TypeError, AttributeError, SyntaxError, OverflowError, RecursionError, MemoryError,
            struct.error) as error:
        raise ValueError(f'it is damaged: {type(error).__name__}, {error}') from error


class _Machine:
    """A stack, a memo, and the opcodes of https://github.com/python/cpython/blob/main/Lib/pickletools.py."""

    def __init__(self, data, classes):
        self._data, self._at = memoryview(data).toreadonly(), 0
        self._classes = {'_codecs.encode': self._encode, **classes}
        self._stack, self._outer, self._memo = [], [], {}
        self._encoded = {}

    def run(self):
        while (code := bytes(self._take(1))) != b'.':
            if code in _INTS:
                self._stack.append(self._number(_INTS[code]))
            elif code in _BYTES:
                self._stack.append(self._take(self._number(_BYTES[code])))
            elif code in _TEXTS:
                self._stack.append(str(self._take(self._number(_TEXTS[code])), 'utf-8', 'surrogatepass'))
            elif code in _LONGS:
                self._stack.append(int.from_bytes(self._take(self._number(_LONGS[code])), 'little', signed=True))
            elif code in _NEW:
                self._stack.append(_NEW[code]())
            elif code in _PUTS:
                self._memo[self._number(_PUTS[code])] = self._stack[-1]
            elif code in _GETS:
                self._stack.append(self._memo[self._number(_GETS[code])])
            elif code in _TUPLES:
                self._stack[-_TUPLES[code]:] = [tuple(self._stack[-_TUPLES[code]:])]
            elif code in _SKIPPED:
                self._number(_SKIPPED[code])
            elif code == b'\x94':
                self._memo[len(self._memo)] = self._stack[-1]
            elif code == b'(':
                self._outer.append(self._stack)
                self._stack = []
            elif code in b'tldeu':
                items, self._stack = self._stack, self._outer.pop()
                self._close(code, items)
            elif code in b'as':
                items = self._stack[-1:] if code == b'a' else self._stack[-2:]
                del self._stack[-len(items):]
                self._close({b'a': b'e', b's': b'u'}[code], items)
            elif code in b'ILSpg':
                self._text(code, self._line())
            else:
                self._object(code)
        return self._stack.pop()

    def _close(self, code, items):
        """Makes or extends a container of all that came since the mark."""
        if code in b'tl':
            self._stack.append(tuple(items) if code == b't' else items)
        elif code == b'e':
            self._stack[-1].extend(items)
        else:
            if code == b'd':
                self._stack.append({})
            self._stack[-1].update((_name(k), v) for k, v in zip(items[::2], items[1::2], strict=True))

    def _text(self, code, line):
        """The opcodes of protocol 0 that spell their argument."""
        if code == b'p':
            self._memo[int(line)] = self._stack[-1]
        elif code == b'g':
            self._stack.append(self._memo[int(line)])
        else:
            self._stack.append(memoryview(ast.literal_eval('b' + line)) if code == b'S' else int(line.rstrip('L')))

    def _object(self, code):
        """A class by name, a call of it, or the state of what was made so."""
        if code in b'c\x93':
            module, name = (self._line(), self._line()) if code == b'c' else (self._stack.pop(-2), self._stack.pop())
            path = '.'.join((module, name))  # a TypeError where they are no strings
            if path not in self._classes:
                raise ValueError(f'it is refused, since it holds {path[:100]}')
            self._stack.append(self._classes[path])
        elif code == b'R':
            arguments = self._stack.pop()
            self._stack.append(self._stack.pop()(*arguments))
        elif code == b'b':
            state = self._stack.pop()
            type(self._stack[-1]).__setstate__(self._stack[-1], state)
        else:
            raise ValueError(f'it is refused, since it holds more than plain data (opcode {code})')

    def _encode(self, text, encoding):
        """How protocols up to 2 write the bytes of Python 3. Once a string, lest a few bytes ask for many copies."""
        if encoding != 'latin1':
            raise ValueError(f'it is refused, since it holds bytes as {str(encoding)[:20]}')
        if text not in self._encoded:
            self._encoded[text] = memoryview(text.encode('latin-1'))
        return self._encoded[text]

    def _take(self, length):
        part = self._data[self._at:self._at + length]
        if length < 0 or len(part) != length:
            raise ValueError(f'it is damaged: {len(self._data)} bytes, and goes on')
        self._at += length
        return part

    def _number(self, format):
        return struct.unpack(format, self._take(struct.calcsize(format)))[0]

    def _line(self):
        line, end, _ = bytes(self._data[self._at:self._at + _LONGEST_LINE]).partition(b'\n')
        if not end:
            raise ValueError('it is damaged: a line without end')
        self._at += len(line) + 1
        return line.decode('ascii')


def _name(value) -> str:
    """A string of Python 2 or 3, and nothing else: hashing a nested tuple may take for ever."""
    if isinstance(value, memoryview):
        return bytes(value).decode('latin-1')
    if not isinstance(value, str):
        raise ValueError(f'it is refused, since it holds {type(value).__name__} for a name')
    return value


class Array:
    """Stands in for a numpy array of uint8; `value` is the array, a view of the pickle."""

    def __init__(self, kind, shape, dtype):
        self.value = np.zeros(0, np.uint8)

    def __setstate__(self, state):
        _, shape, dtype, fortran, data = state
        if not isinstance(dtype, _Dtype) or dtype.code not in ('u1', 'uint8'):
            raise ValueError(f'it holds an array of {str(getattr(dtype, "code", "no dtype"))[:20]}, not of uint8')
        if not isinstance(data, memoryview) or len(shape) > 4 or not all(type(n) is int and n >= 0 for n in shape):
            raise ValueError('it holds an array without bytes or shape')
        if math.prod(shape) != len(data):
            raise ValueError(f'it holds an array of {len(data)} bytes whose shape claims another size')
        self.value = np.frombuffer(data, np.uint8).reshape(shape, order='F' if fortran else 'C')


class _Dtype:
    """Stands in for a numpy dtype."""

    def __init__(self, code, *flags):
        self.code = _name(code)

    def __setstate__(self, state):
        pass  # byte order and the like, which one byte has not


def _from_buffer(data, dtype, shape, order):
    array = Array(None, None, None)
    array.__setstate__((1, shape, dtype, order == 'F', data))
    return array


# Nothing of numpy is called with what a pickle holds.
ARRAYS = MappingProxyType({
    f'numpy.{core}.{name}': stand_in for core in ('core', '_core')
    for name, stand_in in (('multiarray._reconstruct', Array), ('numeric._frombuffer', _from_buffer))
} | {'numpy.dtype': _Dtype, 'numpy.ndarray': None})
