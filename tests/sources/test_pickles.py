"""Pickles are read as data: what Python writes is read, and nothing in a hostile one is run."""

import pickle
import struct

import numpy as np
import pytest
from fixtures_layouts import Run, python2

from imagenet_jax.sources import pickles


def plain(value):
    if isinstance(value, memoryview):
        return bytes(value)
    return type(value)(map(plain, value)) if isinstance(value, list | tuple) else value


@pytest.mark.parametrize('protocol', [2, 3, 4, 5])
def test_plain_pickles_are_read_as_python_reads_them(protocol):
    values = [0, 255, 256, -1, 2**31, -2**70, 1 << 3000, True, None, (), (1,), (1, 2), (1, 2, 3), (1, 2, 3, 4), [],
              [[]], 'ü\ud800', 'x' * 300, 'x' * 70000, list(range(2500))]
    values += [b'x' * 255, b'\xff' * 256, b'x' * 70000] + [b''] * (protocol > 2)
    values += values  # again: from the memo
    assert plain(pickles.load(pickle.dumps(values, protocol))) == values
    assert pickles.load(pickle.dumps({'a': 1, 'b': {'c': [2]}}, protocol)) == {'a': 1, 'b': {'c': [2]}}


def test_pickles_of_python_2_are_read():
    assert plain(pickles.load(b"(lp0\nI12\naL3L\naS'it\\'s'\np1\nag1\na(I1\nI2\ntp2\na.")) == [
        12, 3, b"it's", b"it's", (1, 2)]
    assert pickles.load(b"(dp0\nS'a'\nI1\ns.") == {'a': 1}


@pytest.mark.parametrize('order', 'CF')
@pytest.mark.parametrize('protocol', [3, 4, 5])
def test_arrays_are_read_without_numpy_being_called(protocol, order):
    array = np.array(np.arange(12).reshape(3, 4), np.uint8, order=order)
    read = pickles.load(pickle.dumps([array], protocol), pickles.ARRAYS)[0]
    np.testing.assert_array_equal(read.value, array)
    np.testing.assert_array_equal(pickles.load(python2([array]), pickles.ARRAYS)[0].value, array)


NESTED = b'K\x01\x85' + b'q\x00h\x00\x86' * 100  # a pair of pairs of pairs: 2^100 leaves in 500 bytes


@pytest.mark.parametrize('data,words', [
    (pickle.dumps(Run('true')), 'posix.system'), (pickle.dumps(Run('true'), 0), 'posix.system'),
    (b"cos\nsystem\n(S'true'\ntR.", 'os.system'), (b"(S'true'\nios\nsystem\n.", 'more than plain data'),
    (pickle.dumps(eval), 'builtins.eval'), (b'\x80\x04Pid\n.', 'more than plain data'),
    (b'\x80\x02\x82\x01.', 'more than plain data'), (pickle.dumps(1.5), 'more than plain data'),
    (pickle.dumps({1}), 'more than plain data'),
    (b'\x80\x04' + NESTED + NESTED + b'\x93.', 'damaged'), (b'\x80\x02}' + NESTED + b'K\0s.', 'tuple for a name'),
    (b'\x80\x02\x8b\xff\xff\xff\x7f1.', 'damaged'), (b'\x80\x02B\xff\xff\xff\xff1.', 'damaged'),
    (b'\x80\x02T\xff\xff\xff\xff1.', 'damaged'), (b'I' + b'9' * 9000 + b'\n.', 'damaged'),
    (b'Ix\n.', 'invalid literal'), (b'', 'damaged'), (b'.', 'damaged'), (b'K', 'damaged'), (b't.', 'damaged'),
    (b'h\0.', 'damaged'), (b'R.', 'damaged'), (b'K\0K\0R.', 'damaged'), (b']K\0b.', 'damaged'),
    (b'\x80\x04\x8c\x01\xff.', "can't decode"), (b"S'" + b'[' * 3000 + b'\n.', 'damaged')])
def test_hostile_pickles_are_refused(data, words):
    for classes in ({}, pickles.ARRAYS):
        with pytest.raises(ValueError, match=words):
            pickles.load(data, classes)


def test_a_far_place_in_the_memo_takes_no_memory():
    assert pickles.load(b'\x80\x02K\x01r\xff\xff\xff\xff.') == 1


@pytest.mark.parametrize('array,words', [
    (np.zeros(2), 'f8, not of uint8'), (np.array([Run('true')], object), 'posix.system'),
    (np.array([1, 'a'], object), 'O8, not of uint8'), (np.zeros(2, 'u1,u1'), 'V2, not of uint8')])
def test_arrays_of_other_types_are_refused(array, words):
    for protocol in (4, 5):
        with pytest.raises(ValueError, match=words):
            pickles.load(pickle.dumps(array, protocol), pickles.ARRAYS)


@pytest.mark.parametrize('old,new', [
    (struct.pack('<i', 3), struct.pack('<i', 4)), (struct.pack('<i', 3), struct.pack('<i', -3)),
    (b'_reconstruct', b'_frombuffer'), (b'U\x02u1', b'J\xff\xff\xff\x7f')])
def test_arrays_with_wrong_parts_are_refused(old, new):
    data = python2(np.zeros((3, 4), np.uint8))
    assert pickles.load(data, pickles.ARRAYS).value.shape == (3, 4) and old in data
    with pytest.raises(ValueError):
        pickles.load(data.replace(old, new, 1), pickles.ARRAYS)


def test_a_flipped_bit_in_a_pickle_is_an_error_or_other_plain_data():
    for data in (pickle.dumps((b'x' * 50, 7)), python2({'data': np.zeros((2, 3), np.uint8), 'labels': [1, 2]})):
        for at in range(len(data)):
            for bit in range(8):
                damaged = data[:at] + bytes([data[at] ^ 1 << bit]) + data[at + 1:]
                try:
                    pickles.load(damaged, pickles.ARRAYS)
                except ValueError as error:
                    assert str(error)
