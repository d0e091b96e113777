"""LMDB files as the PyTorch scripts that turn a folder into one write them.

    root/train.lmdb, root/val.lmdb     each one file, or a folder with data.mdb

Keys are decimal indices. A value is (encoded image, label), and `__len__` and `__keys__` say what there is; each is
pickled (protocol 2 or later) or in msgpack. Pickles are read as data: nothing in them is run. LMDB keeps no checksums,
so that a changed byte inside an image stays unnoticed.
"""

import logging
import struct
import threading
from pathlib import Path

import lmdb
import msgpack
import numpy as np
from tqdm import tqdm

from imagenet_jax.errors import UserError
from imagenet_jax.sources import pickles
from imagenet_jax.sources.base import Source, refuse_large

log = logging.getLogger(__name__)

# msgpack's binary and, from writers before its version 1.0, raw strings: the struct format of the length.
_MSGPACK_BYTES = {0xc4: '>B', 0xc5: '>H', 0xc6: '>I', 0xd9: '>B', 0xda: '>H', 0xdb: '>I'}
_LONGEST_KEY = 511  # LMDB's own limit
_SMALLEST = 64  # bytes of the file that an image takes at least, with its key

_environments: dict[Path, lmdb.Environment] = {}
_opening = threading.Lock()


class Lmdb(Source):
    """Images in the order of `__keys__`, or of the decimal indices where that is missing."""

    def __init__(self, path: str, split: str):
        self._file = _file(path, split)
        if not self._file.exists():
            there = sorted(p.name for p in self._file.parent.glob('*.lmdb'))[:10]
            raise UserError(f'no {self._file.name} in {path}; such files there: {", ".join(there) or "none"}')
        try:
            with _environment(self._file).begin(buffers=True) as transaction:
                self._keys = np.array(_keys(self._file, transaction), np.bytes_)
                self.labels = self._scan(transaction)
        except lmdb.Error as error:
            raise UserError(f'{self._file} cannot be read as LMDB: {error}') from error

    @classmethod
    def is_at(cls, path, split):
        file = _file(path, split)
        return bool(path) and (file.is_file() or (file / 'data.mdb').is_file())

    def _scan(self, transaction: lmdb.Transaction) -> np.ndarray:
        """Every label; 0 where the value cannot be read, which `image` then says."""
        labels, bad, why = np.zeros(len(self._keys), np.int32), [], ''
        rows = tqdm(self._keys, desc=f'labels of {self._file.name}', unit='image', disable=None, delay=2)
        for index, key in enumerate(rows):
            try:
                labels[index] = _record(transaction.get(key.item()))[1]
            except (ValueError, lmdb.Error) as error:
                bad.append(index)
                why = why or str(error)
        if bad:
            message = (f'{self._file}: {len(bad)} of {len(labels)} values cannot be read, the first '
                       f'{self.key(bad[0])}: {why}')
            if len(bad) == len(labels):
                raise UserError(message)
            log.warning('%s; they count as bad samples', message)
        return labels

    def image(self, index):
        try:
            with _environment(self._file).begin(buffers=True) as transaction:
                image = _record(transaction.get(self._keys[index].item()))[0]
                refuse_large(len(image))
                return bytes(image)
        except (ValueError, lmdb.Error, UserError) as error:
            raise OSError(f'{self._file}: {error}') from error

    def key(self, index):
        return f'{self._file.name}:{self._keys[index].item().decode("ascii", "backslashreplace")}'


def _file(path: str, split: str) -> Path:
    return Path(path).expanduser() / f'{split}.lmdb'


def _environment(file: Path) -> lmdb.Environment:
    """This process's environment on the file: LMDB allows no second one."""
    file = file.resolve()
    with _opening:
        if file not in _environments:
            environment = lmdb.open(str(file), subdir=file.is_dir(), readonly=True, lock=False, readahead=False)
            pages = file / 'data.mdb' if file.is_dir() else file
            expected = (environment.info()['last_pgno'] + 1) * environment.stat()['psize']
            if pages.stat().st_size < expected:  # reading past the end would kill the process
                environment.close()
                raise UserError(f'{pages} is truncated: {pages.stat().st_size} bytes, expected {expected} or more')
            _environments[file] = environment
        return _environments[file]


def _keys(file: Path, transaction: lmdb.Transaction) -> list[bytes]:
    # The number of entries is only a claim too.
    most = min(transaction.stat()['entries'], _bytes_on_disk(file) // _SMALLEST)
    count = _plain(file, transaction, b'__len__', 2 * _LONGEST_KEY)
    if type(count) is not int or not 0 <= count <= most:
        raise UserError(f'{file}: __len__ must be the number of images; it is '
                        f'{"missing" if count is None else "another thing"}. There is room for {most} entries')
    keys = _plain(file, transaction, b'__keys__', (count + 2) * 2 * _LONGEST_KEY)
    if keys is None:
        return [b'%d' % index for index in range(count)]
    if not isinstance(keys, list | tuple) or not all(
            isinstance(key, bytes | memoryview | str) and len(key) <= _LONGEST_KEY for key in keys):
        raise UserError(f'{file}: __keys__ must be a list of keys, each of {_LONGEST_KEY} bytes at most')
    keys = [key.encode() if isinstance(key, str) else bytes(key) for key in keys]
    if len(keys) != count or len(set(keys)) != count:
        raise UserError(f'{file}: __len__ is {count}, but __keys__ has {len(keys)}, {len(set(keys))} of them distinct')
    return keys


def _bytes_on_disk(file: Path) -> int:
    """Without holes, which cost nothing to claim; some network disks do not say."""
    status = (file / 'data.mdb' if file.is_dir() else file).stat()
    return status.st_blocks * 512 or status.st_size


def _plain(file: Path, transaction: lmdb.Transaction, key: bytes, most: int) -> object:
    """A value that is not an image, of so many bytes at most; None where there is none."""
    value = transaction.get(key)
    if value is None:
        return None
    if len(value) > most:
        raise UserError(f'{file}: {key.decode()} must be plain data of {most:,} bytes at most; it has {len(value):,}')
    try:
        return pickles.load(value) if _is_pickle(value) else msgpack.unpackb(value, raw=True)
    except ValueError as error:
        raise UserError(f'{file}: {key.decode()} is neither msgpack nor a pickle of plain data: {error}; what '
                        'pyarrow.serialize wrote must be written anew, as pickles') from error


def _is_pickle(value: memoryview) -> bool:
    return value[:1] == b'\x80'  # its protocol follows; in msgpack an empty map, which none of the values is


def _record(value: memoryview | None) -> tuple[memoryview, int]:
    """Image and label of a value. The image is not copied, so that a scan of labels does not read it from the disk."""
    if value is None:
        raise ValueError('it is missing')
    record = pickles.load(value) if _is_pickle(value) else _msgpack_record(value)
    if not isinstance(record, tuple | list) or len(record) != 2:
        raise ValueError(f'it holds {type(record).__name__}, not (image, label)')
    image, label = record
    if not isinstance(image, memoryview) or type(label) is not int:
        raise ValueError(f'it holds ({type(image).__name__}, {type(label).__name__}), not (encoded image, label)')
    if not -2**31 <= label < 2**31:
        raise ValueError(f'it holds (bytes, a number of {label.bit_length()} bits), not (encoded image, label)')
    return image, label


def _msgpack_record(value: memoryview) -> tuple[memoryview, object]:
    if value[:1] != b'\x92' or len(value) < 2 or value[1] not in _MSGPACK_BYTES:
        raise ValueError('it is neither a pickle nor msgpack of (encoded image, label)')
    format = _MSGPACK_BYTES[value[1]]
    start = 2 + struct.calcsize(format)
    if len(value) < start:
        raise ValueError('it is truncated')
    end = start + struct.unpack_from(format, value, 2)[0]
    return value[start:end], msgpack.unpackb(value[end:])
