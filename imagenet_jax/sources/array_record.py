"""Our packed format, written by `python -m imagenet_jax convert`.

    root/train-00000-of-00016.array_record      records in the order of the data set they were made of
    root/train-00001-of-00016.array_record
    root/train.index.npz                        labels and keys of all of them
    root/train.json                             the manifest: classes, options, checksums; written last

A record is the length of a header, 4 bytes little-endian, the header, and the image. The header is msgpack of
[number of the conversion, place in the shard, key, label or list of labels, shape]; the image is as encoded, or where
shape is not null uint8 pixels of that shape. ArrayRecord's own 64-bit hashes, of every record, notice damaged bytes.
"""

import bisect
import collections
import hashlib
import itertools
import json
import os
import struct
import threading
import zipfile
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgpack
import numpy as np
from array_record.python.array_record_module import ArrayRecordReader

from imagenet_jax.errors import UserError
from imagenet_jax.sources.base import Source

VERSION = 1
# Shards that one process keeps open; systems allow a process 1024 files.
OPEN_SHARDS = 256
_MANIFEST = {'version': int, 'conversion': int, 'examples': int, 'class_names': list, 'made_of': dict, 'index': dict,
             'shards': list, 'skipped': list}
_INDEX, _SHARD = {'file': str, 'bytes': int, 'sha256': str}, {'file': str, 'bytes': int, 'examples': int}
_AGAIN = "or remove the split's files and convert again"
_LENGTH = struct.Struct('<I')


class _WrongShard(OSError):
    """None of its records is what the manifest says."""


class ArrayRecord(Source):
    """A finished conversion. Each shard's size and first record are checked here; each process opens its own."""

    def __init__(self, path: str, split: str):
        self._root = Path(path).expanduser()
        manifest = read_manifest(self._root, split)
        self.class_names, self.class_words = tuple(manifest['class_names']), manifest.get('class_words', {})
        self._conversion = manifest['conversion']
        self._shards = [(shard['file'], shard['examples']) for shard in manifest['shards']]
        for shard in manifest['shards']:
            _check_size(self._root / shard['file'], shard['bytes'])
        self._starts = list(itertools.accumulate((examples for _, examples in self._shards), initial=0))
        self._read_index(manifest['index'])
        self._open_cache()
        with ThreadPoolExecutor(16) as pool:  # as many as a disk over a network needs
            list(pool.map(self._check_shard, range(len(self._shards))))

    @classmethod
    def is_at(cls, path, split):
        return bool(path and split) and any(Path(path).expanduser().glob(f'{split}-*-of-*.array_record'))

    def _read_index(self, entry):
        path = self._root / entry['file']
        _check_size(path, entry['bytes'])
        if sha256(path) != entry['sha256']:
            raise UserError(f'{path} is damaged: its bytes are not those that {self._root} was finished with')
        try:
            with np.load(path) as index:
                self.labels, self._keys = index['labels'], index['keys']
        except (ValueError, KeyError, IndexError, EOFError, TypeError, zipfile.BadZipFile) as error:
            raise UserError(f'{path} is no index of labels and keys: {_line(error)}; copy it anew, {_AGAIN}') from error
        if (kind := (self.labels.dtype.kind, self.labels.ndim)) not in (('i', 1), ('f', 2)):
            raise UserError(f'{path} has labels of type {self.labels.dtype} in {kind[1]} dimensions, not a whole '
                            f'number an image, or a row of 0 and 1: copy it anew, {_AGAIN}')
        if not len(self.labels) == len(self._keys) == self._starts[-1]:
            raise UserError(f'{path} lists {len(self.labels)} images, the shards hold {self._starts[-1]}')

    def _check_shard(self, shard: int) -> None:
        try:
            self._reader(shard)
            if self._shards[shard][1]:
                self.image(self._starts[shard])
        except _WrongShard as error:
            raise UserError(f'{error}; copy it anew, {_AGAIN}') from error
        except OSError:  # one damaged record is one bad sample
            pass

    def _open_cache(self):
        self._readers: collections.OrderedDict[int, ArrayRecordReader] = collections.OrderedDict()
        self._lock = threading.Lock()

    def __getstate__(self):
        return {k: v for k, v in self.__dict__.items() if k not in ('_readers', '_lock')}

    def __setstate__(self, state):
        self.__dict__.update(state)
        self._open_cache()

    def image(self, index):
        shard = bisect.bisect_right(self._starts, index) - 1
        place = int(index) - self._starts[shard]
        reader = self._reader(shard)
        try:
            *found, _, image = unpack(reader.read([place])[0])
        except Exception as error:  # of several kinds, by what is damaged
            raise OSError(f'{self._path(shard)}: {_line(error)}') from error
        if found != (expected := [self._conversion, place, self.key(index)]):
            raise _WrongShard(f'{self._path(shard)} is a shard of another conversion: it holds {found}, not {expected}')
        return image

    def _path(self, shard: int) -> Path:
        return self._root / self._shards[shard][0]

    def _reader(self, shard: int) -> ArrayRecordReader:
        with self._lock:
            reader = self._readers.get(shard)
        reader = reader or _open(self._path(shard), self._shards[shard][1])  # others go on meanwhile
        with self._lock:
            self._readers[shard] = reader
            self._readers.move_to_end(shard)
            if len(self._readers) > OPEN_SHARDS:
                self._readers.popitem(last=False)
        return reader

    def key(self, index):
        return os.fsdecode(self._keys[index].item())


def _open(path: Path, examples: int) -> ArrayRecordReader:
    try:
        reader = ArrayRecordReader(str(path), 'readahead_buffer_size:0')
        found = reader.num_records()
    except Exception as error:
        raise _WrongShard(f'{path}: {_line(error)}') from error
    if found != examples:
        raise _WrongShard(f'{path} holds {found} records instead of {examples}')
    return reader


def _line(error: Exception) -> str:
    """ArrayRecord's errors are long."""
    return (str(error).splitlines() or [repr(error)])[0][:200]


def pack(conversion: int, place: int, key: str, label: int | list[float], image: bytes | np.ndarray) -> bytes:
    """One record."""
    shape = None if isinstance(image, bytes) else image.shape
    header = msgpack.packb([conversion, place, key, label, shape], unicode_errors='surrogateescape')
    return b''.join([_LENGTH.pack(len(header)), header, image if shape is None else image.tobytes()])


def unpack(record: bytes) -> tuple[int, int, str, int | list[float], bytes | np.ndarray]:
    """What `pack` was given; pixels are a view of the record."""
    at = _LENGTH.size + _LENGTH.unpack_from(record)[0]
    *header, shape = msgpack.unpackb(record[_LENGTH.size:at], unicode_errors='surrogateescape')
    image = record[at:] if shape is None else np.frombuffer(record, np.uint8, offset=at).reshape(shape)
    return *header, image


def read_manifest(root: Path, split: str) -> dict:
    """The manifest of one split. Raises UserError."""
    path = root / f'{split}.json'
    try:
        manifest = json.loads(path.read_text())
        version = manifest['version']
        missing = _lacking(manifest, _MANIFEST) or _lacking_within(manifest)
    except FileNotFoundError as error:
        if any(root.glob(f'{split}-*-of-*.array_record')):
            raise UserError(f'the conversion to {root}, split {split!r}, is not finished: there is no {path.name} yet; '
                            'give the same command again, and it goes on, or says what is in its way') from error
        there = sorted(p.stem for p in root.glob('*.json'))
        raise UserError(f'no {path}; splits in {root}: {", ".join(there) or "none"}') from error
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise UserError(f'{path} is no manifest of a conversion: {error!r}') from error
    if version != VERSION:
        raise UserError(f'{path} is of version {version}; this package reads {VERSION}')
    if missing:
        raise UserError(f'{path} is no manifest of a conversion: missing or of another kind are '
                        f'{", ".join(sorted(missing))}')
    return manifest


def _lacking(entry: object, kinds: Mapping[str, type]) -> list[str]:
    """Names that an entry lacks, or has as another kind."""
    return [name for name, kind in kinds.items() if not isinstance(entry, dict) or type(entry.get(name)) is not kind]


def _lacking_within(manifest: dict) -> list[str]:
    """The same of the entries of a manifest's lists."""
    found = [f'index.{name}' for name in _lacking(manifest['index'], _INDEX)]
    for at, shard in enumerate(manifest['shards']):
        found += [f'shards[{at}].{name}' for name in _lacking(shard, _SHARD)]
    named = all(isinstance(name, str) for name in manifest['class_names'])
    return (found if named else [*found, 'class_names'])[:5]


def _check_size(path: Path, expected: int) -> None:
    size = path.stat().st_size if path.is_file() else None
    if size != expected:
        found = 'is missing' if size is None else f'has {size} bytes'
        raise UserError(f'{path} {found}, and the manifest says {expected}: copy it anew, {_AGAIN}')


def sha256(path: Path) -> str:
    """Of a file's bytes, in hexadecimal."""
    with path.open('rb') as file:
        return hashlib.file_digest(file, 'sha256').hexdigest()
