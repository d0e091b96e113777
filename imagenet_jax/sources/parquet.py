"""Parquet files as on the Hugging Face hub.

    root/train-00000-of-00002.parquet
    root/train-00001-of-00002.parquet
    root/validation-00000-of-00001.parquet

Column `image` (or `img`): a struct with the encoded `bytes`. Column `label` (or `fine_label`): integers, their class
names in the schema's metadata. The files may also lie in `root/data/`. Every file of a split must be there, and all of
them must have the same columns and class names.
"""

import collections
import json
import re
import threading
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from imagenet_jax.errors import UserError
from imagenet_jax.sources.base import Source

# Decoded row groups kept in memory by one process. Small data sets stay there whole; one that does not fit is read
# again and again under a shuffle.
CACHE_BYTES = 2 << 30


# After the split's name; older writers add a hash.
_NUMBERED = re.compile(r'-(\d+)(?:-of-(\d+))?(?:-[0-9a-f]+)?\.parquet')


class Parquet(Source):
    """Rows in file order; row groups are read on demand and the most recent kept."""

    def __init__(self, path: str, split: str):
        self._files = _files(path, split)
        if not self._files:
            there = sorted(p.name for p in Path(path).expanduser().glob('**/*.parquet'))[:10]
            raise UserError(f'no {split}-*.parquet in {path}; parquet files there: {", ".join(there) or "none"}')
        _refuse_gaps(self._files, split)
        self._groups = []  # (file, row group, first row)
        self._columns: tuple = ()
        labels = []
        for file in self._files:
            labels.append(self._scan(file, sum(map(len, labels))))
        self._starts = np.array([start for _, _, start in self._groups])
        self.labels = np.concatenate(labels)
        self._open_cache()

    @classmethod
    def is_at(cls, path, split):
        return bool(path) and bool(_files(path, split))

    def _scan(self, file: Path, start: int) -> np.ndarray:
        """Notes the row groups of one file and returns its labels."""
        try:
            parquet = pq.ParquetFile(file, page_checksum_verification=True)
            schema = parquet.schema_arrow
            image = _column(file, schema, ('image', 'img'))
            label = _column(file, schema, ('label', 'fine_label'))
            labels = parquet.read([label])[label]
        except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
            raise UserError(f'{file} cannot be read as Parquet: {error}') from error
        if len(labels) != parquet.metadata.num_rows:
            raise UserError(f'{file} is damaged: {len(labels)} labels for {parquet.metadata.num_rows} rows')
        if not pa.types.is_integer(labels.type) or labels.null_count:
            raise UserError(f'{file}: column {label} must hold an integer in every row; it is {labels.type} '
                            f'with {labels.null_count} nulls')
        kind = schema.field(image).type
        if not pa.types.is_struct(kind) or kind.get_field_index('bytes') < 0:
            raise UserError(f'{file}: column {image} must be a struct with a field bytes; it is {kind}')
        columns = image, label, _class_names(schema, label)
        if self._columns and columns != self._columns:
            raise UserError(f'{file} has other columns or class names than {self._files[0]}: {str(columns)[:200]} and '
                            f'{str(self._columns)[:200]}; the files of a split must agree')
        self._columns = columns
        self._image, _, self.class_names = columns
        for group in range(parquet.num_row_groups):
            self._groups.append((file, group, start))
            start += parquet.metadata.row_group(group).num_rows
        try:
            return labels.cast(pa.int32()).to_numpy()
        except pa.ArrowInvalid as error:
            raise UserError(f'{file}: column {label}: {error}') from error

    def _open_cache(self):
        self._cache: collections.OrderedDict[int, pa.Array] = collections.OrderedDict()
        self._lock = threading.Lock()

    def __getstate__(self):
        return {k: v for k, v in self.__dict__.items() if k not in ('_cache', '_lock')}

    def __setstate__(self, state):
        self.__dict__.update(state)
        self._open_cache()

    def _group(self, number: int) -> pa.Array:
        """The encoded images of one row group."""
        with self._lock:
            if number not in self._cache:
                file, group, start = self._groups[number]
                end = self._groups[number + 1][2] if number + 1 < len(self._groups) else len(self.labels)
                parquet = pq.ParquetFile(file, page_checksum_verification=True)
                column = parquet.read_row_group(group, [self._image])[self._image]
                if len(column) != end - start:  # a damaged footer, or a file replaced since it was opened
                    raise OSError(f'{file}: row group {group} holds {len(column)} images, not {end - start}')
                self._cache[number] = pa.chunked_array([c.field('bytes') for c in column.chunks])
                while len(self._cache) > 1 and sum(c.nbytes for c in self._cache.values()) > CACHE_BYTES:
                    self._cache.popitem(last=False)
            self._cache.move_to_end(number)
            return self._cache[number]

    def image(self, index):
        number = int(np.searchsorted(self._starts, index, side='right')) - 1
        try:
            data = self._group(number)[index - int(self._starts[number])].as_py()
        except pa.ArrowException as error:
            raise OSError(f'{self._groups[number][0]}: {error}') from error
        return data or b''

    def key(self, index):
        number = int(np.searchsorted(self._starts, index, side='right')) - 1
        file, group, start = self._groups[number]
        return f'{file.name}:{group}:{index - start}'


def _files(path: str, split: str) -> list[Path]:
    root = Path(path).expanduser()
    return [file for folder in (root, root / 'data') for file in sorted(folder.glob(f'{split}-*.parquet'))
            if _numbered(file, split)]


def _numbered(file: Path, split: str) -> re.Match | None:
    return _NUMBERED.fullmatch(file.name.removeprefix(split))


def _refuse_gaps(files: list[Path], split: str) -> None:
    """A file that is missing would be images that are missing, and a second copy images twice."""
    parts = [_numbered(file, split).groups() for file in files]
    counts = {int(count or 0) for _, count in parts}
    numbers = [int(number) for number, _ in parts]
    if len(counts) > 1:
        raise UserError(f'{files[0]} and {len(files) - 1} more are of several splits, of {sorted(counts)} files: keep '
                        'one of them there')
    if len(set(numbers)) < len(numbers):
        raise UserError(f'several files have the same number: {", ".join(map(str, files[:4]))}; keep one of each')
    count = counts.pop()
    if missing := sorted(set(range(count)) - set(numbers)):
        raise UserError(f'of the {count} files of the split of {files[0]}, {len(missing)} are missing, by number: '
                        f'{", ".join(map(str, missing[:10]))}')


def _column(file, schema, names) -> str:
    for name in names:
        if name in schema.names:
            return name
    raise UserError(f'{file} has no column {" or ".join(names)}; its columns: {", ".join(schema.names)}')


def _class_names(schema: pa.Schema, label: str) -> tuple[str, ...]:
    try:
        features = json.loads(schema.metadata[b'huggingface'])['info']['features']
        return tuple(map(str, features[label]['names']))
    except (TypeError, KeyError, ValueError):  # written by another tool, or without names
        return ()
