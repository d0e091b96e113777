"""Parquet files as on the Hugging Face hub.

    root/train-00000-of-00002.parquet           or in root/data/
    root/train-00001-of-00002.parquet
    root/validation-00000-of-00001.parquet      also the split val, where there is none of that name
    root/train.parquet                          one file a split
    root/train/0000.parquet                     as the hub converts; root/partial-train/ has the first part of a split

The root may be a data set's folder with one configuration in it, which is then read: root/<configuration>/...; of
several the path must name one. Every file of a split must be there, and all of them must have the same columns and
class names.

The image column is a struct with the encoded `bytes`, or a `path` beside the file where those are null; or just
bytes, or just paths. Labels are integers, their class names in the schema's metadata, or texts, which are the class
names: numbered in alphabetical order, in every split as in train.
"""

import collections
import logging
import os
import re
import threading
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import numpy as np

from imagenet_jax.errors import UserError
from imagenet_jax.sources.base import Source, read_file
from imagenet_jax.sources.shards import matching, refuse_gaps, spellings

if TYPE_CHECKING:
    import pyarrow as pa

log = logging.getLogger(__name__)

# Decoded row groups kept in memory by one process. Small data sets stay there whole; one that does not fit is read
# again and again under a shuffle.
CACHE_BYTES = 2 << 30

# A file's number and of how many it is; older writers add a hash.
_NUMBER = r'(\d+)(?:-of-(\d+))?(?:-[0-9a-f]{8,})?\.parquet'
# A list of the images' names and the like, which hub folders of images have, is no part of them.
_ANY = r'(?!metadata\.).*\.parquet'


def _columns() -> ModuleType:
    """And PyArrow with it, for which nothing waits that reads other layouts."""
    from imagenet_jax.sources import parquet_columns
    return parquet_columns


class Parquet(Source):
    """Rows in file order; row groups are read on demand and the most recent kept.

    Args:
      path: as above.
      split: as the files are named.
      labels: the column of labels, or what comes before its `_label`, such as 'coarse'; '': the usual one.
    """

    def __init__(self, path: str, split: str, labels: str = ''):
        self._root, self._files = _find(Path(path).expanduser(), split)
        self._groups = []  # (file, row group, first row)
        self._option, self._columns = labels, ()
        found = []
        for file in self._files:
            found.append(self._scan(file, sum(map(len, found))))
        self._starts = np.array([start for _, _, start in self._groups])
        if self._columns[-1]:
            self.class_names, self.labels = self._number(split, found)
        else:
            pairs = zip(self._files, found, strict=True)
            self.labels = np.concatenate([_columns().numbers(*pair) for pair in pairs])
        self._open_cache()

    @classmethod
    def is_at(cls, path, split):
        return bool(path) and bool(_files(Path(path).expanduser(), split))

    def _scan(self, file: Path, start: int) -> 'pa.ChunkedArray':
        """Notes the row groups of one file and returns its labels."""
        parquet, columns, labels = _columns().read_labels(file, self._option)
        if self._columns and columns != self._columns:
            raise UserError(f'{file} has other columns or class names than {self._files[0]}: {str(columns)[:200]} and '
                            f'{str(self._columns)[:200]}; the files of a split must agree')
        self._columns = columns
        self._image, _, self.class_names, _ = columns
        for group in range(parquet.num_row_groups):
            self._groups.append((file, group, start))
            start += parquet.metadata.row_group(group).num_rows
        return labels

    def _number(self, split: str, texts: list['pa.ChunkedArray']) -> tuple[tuple[str, ...], np.ndarray]:
        """Class names and labels, where labels are texts."""
        texts = _columns().encoded(texts)
        found = texts.dictionary.to_pylist()
        names, others = set(found), _files(self._root, 'train') if split != 'train' else []
        if others:
            columns = (_columns().read_labels(file, self._option)[2] for file in others)
            known = {text for column in columns for text in column.unique().to_pylist()}
            if strangers := sorted(names - known):
                raise UserError(f'{self._files[0]}: {len(strangers)} classes of split {split!r} are none of the '
                                f'{len(known)} of split train, the first: {", ".join(map(repr, strangers[:5]))}')
            names = known
        names = tuple(sorted(names))
        number = {name: label for label, name in enumerate(names)}
        places = np.array([number[name] for name in found], np.int32)
        return names, places[texts.indices.to_numpy()]

    def _open_cache(self):
        self._cache: collections.OrderedDict[int, tuple] = collections.OrderedDict()
        self._lock = threading.Lock()

    def __getstate__(self):
        return {k: v for k, v in self.__dict__.items() if k not in ('_cache', '_lock')}

    def __setstate__(self, state):
        self.__dict__.update(state)
        self._open_cache()

    def _group(self, number: int) -> tuple['pa.ChunkedArray | None', 'pa.ChunkedArray | None']:
        """The encoded images of one row group, and the paths beside them."""
        with self._lock:
            if number not in self._cache:
                file, group, start = self._groups[number]
                end = self._groups[number + 1][2] if number + 1 < len(self._groups) else len(self.labels)
                column = _columns().read_group(file, group, self._image)
                if len(column) != end - start:  # a damaged footer, or a file replaced since it was opened
                    raise OSError(f'{file}: row group {group} holds {len(column)} images, not {end - start}')
                self._cache[number] = _columns().bytes_and_paths(column)
                while len(self._cache) > 1 and sum(map(_columns().size, self._cache.values())) > CACHE_BYTES:
                    self._cache.popitem(last=False)
            self._cache.move_to_end(number)
            return self._cache[number]

    def image(self, index):
        number = int(np.searchsorted(self._starts, index, side='right')) - 1
        file, _, start = self._groups[number]
        try:
            data, path = (part[index - start].as_py() if part else None for part in self._group(number))
        except _columns().UNREADABLE as error:
            raise OSError(f'{file}: {error}') from error
        return _beside(file, path) if data is None and path else data or b''

    def key(self, index):
        number = int(np.searchsorted(self._starts, index, side='right')) - 1
        file, group, start = self._groups[number]
        return f'{file.name}:{group}:{index - start}'


def _find(root: Path, split: str) -> tuple[Path, list[Path]]:
    """The folder of a configuration, the root itself where it has none, and the files of a split in it."""
    for name in spellings(split):
        configurations = [folder for folder in (root, *_folders(root)) if _files(folder, name)]
        if root in configurations[:1] or len(configurations) == 1:
            files = _files(configurations[0], name)
            if files[0].parent.name == f'partial-{name}':
                log.warning('%s holds only the part of split %s that the hub converted', files[0].parent, name)
            by_hub = re.fullmatch(r'\d{4}\.parquet', files[0].name)
            refuse_gaps(files, rf'(?:.*?[-_.])?{_NUMBER}', first=0 if by_hub else 1)
            return configurations[0], files
        if configurations:
            raise UserError(f'{root} holds split {name!r} of {len(configurations)} configurations: set data.path to '
                            f'one of them: {", ".join(map(str, configurations[:20]))}')
    there = sorted(str(file.relative_to(root)) for file in root.glob('**/*.parquet'))[:10] if root.is_dir() else []
    raise UserError(f'no {split}-*.parquet, {split}.parquet or {split}/*.parquet in {root}; parquet files there: '
                    f'{", ".join(there) or "none"}')


def _folders(root: Path) -> list[Path]:
    return sorted(folder for place in (root, root / 'data') if place.is_dir() for folder in place.iterdir()
                  if folder.is_dir() and not folder.name.startswith('.') and folder != root / 'data')


def _files(root: Path, split: str) -> list[Path]:
    places = root, root / 'data'
    named = rf'{re.escape(split)}([-_]{_NUMBER}|\.parquet)'
    found = [file for place in places for file in matching(place, named)]
    for folder in (split, f'partial-{split}'):
        if not (folder.startswith('partial-') and found):
            found += [file for place in places for file in matching(place / folder, _ANY)]
    return found


def _beside(file: Path, path: object) -> bytes:
    """The image that a row names instead of holding it: below the file's folder. Raises OSError."""
    path = os.fsdecode(path) if isinstance(path, str | bytes) else ''
    if not path or path.startswith('/') or '..' in path.split('/') or '\0' in path:
        raise OSError(f'it is not in {file.name}, and its path {path[:80]!r} leads out of the folder of that')
    return read_file(os.path.join(file.parent, path))
