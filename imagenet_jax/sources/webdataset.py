"""Tars as the WebDataset library packs them, read in place (Aizman et al., 2019, arXiv 2001.01858).

    root/imagenet1k-train-0000.tar      also root/data/..., root/train/0000.tar, root/train.tar
    root/imagenet1k-train-0001.tar
    root/imagenet1k-validation-00.tar   also the split val, where there is none of that name
    root/classnames.txt                 optional: class names, or classes.txt; here or beside the shards

In each tar a sample is the files of one name up to its first dot: `KEY.jpg` (or another ending of an image) with the
label in `KEY.cls`, a whole number as text, or in `KEY.json`. Split '' is all numbered tars of the root.
"""

import json
import logging
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np

from imagenet_jax.errors import UserError, few
from imagenet_jax.sources import kept, tars
from imagenet_jax.sources.base import Source, refuse_large
from imagenet_jax.sources.image_list import read_class_names
from imagenet_jax.sources.listing import EXTENSIONS
from imagenet_jax.sources.shards import matching, pointer_hint, refuse_gaps, spellings

log = logging.getLogger(__name__)

_NUMBER = r'(\d+)(?:-of-(\d+))?\.tar'
_NUMBERED = rf'(?:.*?\D)?{_NUMBER}'
_IMAGES = frozenset(EXTENSIONS)
_NAMES = 'classnames.txt', 'classes.txt'
_LABELS = 'cls', 'class', 'label', 'json'  # endings, the first that a sample has
_FIELDS = 'label', 'cls', 'class_id', 'class', 'class_index', 'class_idx', 'label_id', 'label_idx', 'target'
_LONGEST_LABEL = 1 << 20


class WebDataset(Source):
    """Samples in the order of the shards' numbers, and in that of each tar.

    Opening reads the headers of all tars and the labels, once: what lies where is kept in the user's cache.

    Args:
      path: as above.
      split: as the shards are named.
      labels: the field of the JSON files that has the label; '': the `.cls` file, or the usual field.
    """

    def __init__(self, path: str, split: str, labels: str = ''):
        root = Path(path).expanduser()
        self._files = _find(root, split)
        self._field = labels
        stamps = [(str(file.resolve()), kept.stamp(file)) for file in self._files]
        self._index = kept.array(('webdataset', labels, stamps), self._read_index)
        self.labels = np.ascontiguousarray(self._index['label'])
        names = [folder / name for folder in (self._files[0].parent, root) for name in _NAMES]
        if found := next((file for file in names if file.is_file()), None):
            self.class_names = read_class_names(found)
            if (count := len(self.class_names)) < (highest := self.labels.max(initial=-1)) + 1:
                raise UserError(f'{found} names {count} classes, and {self.key(int(self.labels.argmax()))} has label '
                                f'{highest}: it is not the list of this data set')
        lacking = np.flatnonzero(self._index['size'] < 0)
        if len(lacking):
            log.warning('%s: %d samples have no image, the first %s; they count as bad samples', root, len(lacking),
                        self.key(int(lacking[0])))

    @classmethod
    def is_at(cls, path, split):
        # A train.tar beside the folder that was unpacked from it is no second copy.
        return bool(path) and any(re.fullmatch(_NUMBERED, file.name) for file in _files(Path(path).expanduser(), split))

    def image(self, index):
        _, shard, offset, size, _ = self._index[index].tolist()
        if size < 0:
            raise OSError('its sample has no image')
        refuse_large(size)
        with open(self._files[shard], 'rb', buffering=0) as file:
            data = os.pread(file.fileno(), size, offset)
        if len(data) < size:
            raise OSError(f'{self._files[shard]} is shorter than when it was opened')
        return data

    def key(self, index):
        entry = self._index[index]
        return f'{self._files[entry["shard"]].name}:{os.fsdecode(entry["name"].item())}'

    def _read_index(self) -> np.ndarray:
        """Label, shard, place and name of each sample; a size of -1 where it has no image."""
        rows = []
        for number, file in enumerate(self._files):
            rows += [(label, number, *place, os.fsencode(name)) for label, place, name in _samples(file, self._field)]
        if rows and all(size < 0 for _, _, _, size, _ in rows):
            raise UserError(f'{self._files[0]}: no sample has an image, a file of its name up to the first dot and '
                            f'{", ".join(EXTENSIONS[:5])} or such; the first sample is {os.fsdecode(rows[0][-1])}')
        longest = max((len(row[-1]) for row in rows), default=1)
        return np.array(rows, [('label', 'i4'), ('shard', 'i4'), ('offset', 'i8'), ('size', 'i8'),
                               ('name', f'S{longest}')])


class _Sample:
    """What is known of one: where in the tar its image and its label lie."""
    __slots__ = 'image', 'label', 'name'

    def __init__(self, key: str):
        self.name, self.image, self.label = key, (0, -1), None


def _samples(file: Path, field: str) -> Iterator[tuple[int, tuple[int, int], str]]:
    """(label, (offset, size) of the image, name) of each sample of one shard. Raises UserError."""
    try:
        with file.open('rb') as opened:
            samples = _scan(file, opened, ('json',) if field else _LABELS)
            if without := [sample.name for sample in samples if sample.label is None]:
                raise UserError(f'{file}: {len(without)} of {len(samples)} samples have no label, the first '
                                f'{without[0]}: expected a file of its name up to the first dot and .cls or .json')
            for sample in samples:
                yield _label(file, opened.fileno(), field, *sample.label[1:]), sample.image, sample.name
    except OSError as error:
        raise UserError(f'{file} cannot be read: {error}') from error
    except UserError as error:
        raise UserError(f'{error}{pointer_hint(file)}') from error


def _scan(file: Path, opened: BinaryIO, label_endings: tuple[str, ...]) -> list[_Sample]:
    samples: dict[str, _Sample] = {}
    tars.refuse_compressed(opened)
    for member in tars.members(opened, opened.name, 0, os.fstat(opened.fileno()).st_size):
        if not member.isfile():
            continue
        name, place = member.name.removeprefix('./'), (member.offset_data, member.size)
        folder, slash, base = name.rpartition('/')
        stem, _, ending = base.partition('.')
        if not stem or not ending or (stem.startswith('__') and stem.endswith('__')):
            continue  # hidden files, and what describes the shard
        key, ending = f'{folder}{slash}{stem}', ending.lower()
        sample = samples.get(key) or samples.setdefault(key, _Sample(key))
        if f'.{ending}' in _IMAGES:
            if sample.image[1] >= 0:
                raise UserError(f'{file}: {sample.name} and {name} are images of one sample, which is the files of one '
                                'name up to its first dot')
            sample.name, sample.image = name, place
        elif ending in label_endings:
            rank = label_endings.index(ending)
            if sample.label and sample.label[0] == rank:
                raise UserError(f'{file}: {name} is there twice')
            if not sample.label or rank < sample.label[0]:
                sample.label = rank, name, *place
    return list(samples.values())


def _label(file: Path, opened: int, field: str, name: str, offset: int, size: int) -> int:
    where = f'{file}: {name}'
    if size > _LONGEST_LABEL:
        raise UserError(f'{where} is no label: it has {size} bytes')
    text = os.pread(opened, size, offset)
    label = _of_json(where, text, field) if name.lower().endswith('.json') else _of_text(where, text)
    if not -2**31 <= label < 2**31:
        raise UserError(f'{where}: {label} is no label of a class')
    return label


def _of_text(where: str, text: bytes) -> int:
    if not re.fullmatch(rb'\s*[+-]?[0-9]{1,10}\s*', text):
        raise UserError(f'{where} must hold a whole number, the label; it holds {text[:40]!r}')
    return int(text)


def _of_json(where: str, text: bytes, field: str) -> int:
    try:
        values = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UserError(f'{where} is no JSON: {str(error)[:100]}') from error
    values = values if isinstance(values, dict) else {}
    names = (field,) if field else _FIELDS
    label = next((values[name] for name in names if type(values.get(name)) is int), None)
    if label is None:
        raise UserError(f'{where} must have the label, a whole number, as {" or ".join(names)}; it has '
                        f'{str(values)[:200]}')
    return label


def _find(root: Path, split: str) -> list[Path]:
    """A split's shards by number. Raises UserError where there are none, or not all."""
    for name in spellings(split):
        if files := _files(root, name):
            refuse_gaps(files, _NUMBERED)
            return sorted(files, key=lambda file: (int((re.fullmatch(_NUMBERED, file.name) or [0, 0])[1]), file))
    found = sorted(str(file.relative_to(root)) for place in ('*', '*/*') for file in root.glob(place))
    there = [name for name in found if re.search(r'\.(tar|tgz|tar\.[a-z0-9]+)$', name)]
    for name in there:
        if split in name and not name.endswith('.tar'):
            with open(root / name, 'rb') as file:
                tars.refuse_compressed(file)
    raise UserError(f'no *{split}-*.tar or {split}/*.tar in {root}; tars there: {few(there)}')


def _files(root: Path, split: str) -> list[Path]:
    # The archives of ILSVRC2012 are named alike, and hold no samples.
    named = rf'(?!ILSVRC2012_)(?:.*[-_.])?{re.escape(split)}(?:[-_.]?{_NUMBER}|\.tar)'
    found = [] if not split else [file for place in (root, root / 'data') for file in matching(place, named)]
    # n01440764.tar, a class of ImageNet, is no shard.
    return found + [file for place in (root, root / 'data')
                    for file in matching(place / split, rf'(?:.*[-_.])?{_NUMBER}' + (f'|{named}' if split else ''))]
