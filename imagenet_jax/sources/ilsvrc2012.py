"""ImageNet as it is downloaded, read without unpacking.

    root/ILSVRC2012_img_train.tar       of n01440764.tar, n01443537.tar, ..., each of n01440764_10026.JPEG, ...
    root/ILSVRC2012_img_val.tar         of ILSVRC2012_val_00000001.JPEG, ...
    root/ILSVRC2012_devkit_t12.tar.gz   data/meta.mat: wnids and their ILSVRC numbers;
                                        data/ILSVRC2012_validation_ground_truth.txt: such a number a line

Splits 'train' and 'val'. Labels are the wnids in alphabetical order, as a folder of class folders would have them, and
not the ILSVRC numbers.
"""

import collections
import gzip
import io
import os
import struct
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from imagenet_jax.errors import UserError
from imagenet_jax.sources import tars
from imagenet_jax.sources.base import Source, refuse_large

_DEVKIT = 'ILSVRC2012_devkit_t12.tar.gz'
_LARGEST_DEVKIT = 64 << 20  # bytes, unpacked; it has about a tenth


class _Devkit(NamedTuple):
    """ILSVRC numbers -> wnids; wnids -> training images, where it says; the number of each validation image."""
    wnids: Mapping[int, str]
    counts: Mapping[str, int]
    truth: Sequence[int]


class Ilsvrc2012(Source):
    """Images by their place in the tar, sorted by name; a training split's headers take about a minute to read."""

    def __init__(self, path: str, split: str):
        root = Path(path).expanduser()
        if split not in ('train', 'val'):
            raise UserError(f'ilsvrc2012 has the splits train and val, not {split!r}')
        self._tar = root / f'ILSVRC2012_img_{split}.tar'
        for file in (self._tar, root / _DEVKIT):
            if not file.is_file():
                there = sorted(p.name for p in root.glob('*'))[:10]
                raise UserError(f'no file {file}; in {root}: {", ".join(there) or "nothing"}')
        devkit = _read_devkit(root / _DEVKIT)
        self.class_names = tuple(sorted(devkit.wnids.values()))
        with self._tar.open('rb') as file:
            images = sorted((_training if split == 'train' else _validation)(file, devkit))
        number = {wnid: label for label, wnid in enumerate(self.class_names)}
        self.labels = np.array([number[wnid] for _, wnid, _, _ in images], np.int32)
        self._names = np.array([os.fsencode(name) for name, _, _, _ in images])
        self._places = np.array([place for _, _, *place in images], np.int64).reshape(-1, 2)

    @classmethod
    def is_at(cls, path, split):
        return bool(path) and (Path(path).expanduser() / f'ILSVRC2012_img_{split}.tar').is_file()

    def image(self, index):
        offset, size = self._places[index].tolist()
        refuse_large(size)
        with self._tar.open('rb') as file:  # two calls, and nothing to share between threads or processes
            return os.pread(file.fileno(), size, offset)

    def key(self, index):
        return os.fsdecode(self._names[index].item())


def _training(file, devkit: _Devkit) -> Iterator[tuple[str, str, int, int]]:
    """(name, wnid, offset, size) of each image."""
    classes = set(devkit.wnids.values())
    lacking = set(classes)
    for name, offset, size in _files(file, 0, os.fstat(file.fileno()).st_size):
        wnid = Path(name).stem
        if wnid not in lacking:
            wrong = ' twice' if wnid in classes else ', which is no class of the devkit'
            raise UserError(f'{file.name} holds {name}{wrong}')
        lacking.remove(wnid)
        images = list(_files(file, offset, offset + size))
        _refuse_wrong_count(f'{file.name}: {name} holds', [image for image, *_ in images], devkit.counts.get(wnid))
        yield from ((f'{wnid}/{image}', wnid, *place) for image, *place in images)
    if lacking:
        raise UserError(f'{file.name} lacks {len(lacking)} classes of the devkit, the first {min(lacking)}: '
                        'it is not whole')


def _refuse_wrong_count(where: str, names: Sequence[str], expected: int | None) -> None:
    if not names:
        raise UserError(f'{where} no image')
    counts = collections.Counter(names)
    twice = [name for name, count in counts.items() if count > 1]
    if twice or expected not in (None, 0, len(counts)):
        double = f'{", ".join(twice[:5])} twice and ' if twice else ''
        said = f', where the devkit counts {expected:,}' if expected else ''
        raise UserError(f'{where} {double}{len(counts):,} different images{said}: it is not whole, or not as published')


def _validation(file, devkit: _Devkit) -> Iterator[tuple[str, str, int, int]]:
    seen, twice, count = set(), [], len(devkit.truth)
    for name, offset, size in _files(file, 0, os.fstat(file.fileno()).st_size):
        stem = Path(name).stem
        number = int(stem[-8:]) if stem[-8:].isdecimal() else 0
        if not 0 < number <= count:
            raise UserError(f'{file.name} holds {name}; the devkit knows ILSVRC2012_val_00000001 to {count:08d}')
        twice += [name] if number in seen else []
        seen.add(number)
        yield name, devkit.wnids[devkit.truth[number - 1]], offset, size
    missing = [f'ILSVRC2012_val_{number:08d}.JPEG' for number in range(1, count + 1) if number not in seen]
    if twice or missing:
        found = [f'holds {", ".join(twice[:5])} twice'] if twice else []
        found += [f'lacks {len(missing):,} of {count:,} images, the first {", ".join(missing[:5])}'] if missing else []
        raise UserError(f'{file.name} {" and ".join(found)}: it is not whole, or not as published')


def _files(file, start: int, end: int) -> Iterator[tuple[str, int, int]]:
    """(name, offset, size) of each file of a tar of images, or of such tars."""
    for member in tars.members(file, file.name, start, end):
        name = Path(member.name).name
        if member.isdir() or name.startswith('._'):  # what macOS adds to an archive
            continue
        if member.name.startswith('/') or '..' in member.name.split('/'):
            raise UserError(f'{file.name} holds {member.name[:80]}, which leads out of it; ILSVRC2012 has no such name')
        if not member.isfile():
            raise UserError(f'{file.name} holds {member.name[:80]}, which is no plain file but a link or the like; '
                            'ILSVRC2012 has none')
        yield name, member.offset_data, member.size


def _read_devkit(path: Path) -> _Devkit:
    """Raises UserError."""
    from scipy.io import loadmat
    try:
        with gzip.open(path) as file:
            whole = file.read(_LARGEST_DEVKIT + 1)  # to its end, which checks it: loadmat may crash on damaged bytes
        if len(whole) > _LARGEST_DEVKIT:
            raise ValueError(f'it unpacks to more than {_LARGEST_DEVKIT:,} bytes')
        files = {Path(member.name).name: whole[member.offset_data:member.offset_data + member.size]
                 for member in tars.members(io.BytesIO(whole), 'its tar', 0, len(whole)) if member.isfile()}
        meta, truth = files['meta.mat'], files['ILSVRC2012_validation_ground_truth.txt']
        _refuse_bomb(meta)
        rows = loadmat(io.BytesIO(meta), squeeze_me=True)['synsets']
        # Further rows, with numbers above those of the classes, are the hierarchy's inner nodes.
        wnids = {int(row['ILSVRC2012_ID']): str(row['WNID']) for row in rows if int(row['num_children']) == 0}
        counted = rows if 'num_train_images' in rows.dtype.names else []
        counts = {str(row['WNID']): int(row['num_train_images']) for row in counted}
        numbers = [int(line) for line in truth.split()]
    except Exception as error:  # of many kinds: from gzip, tarfile and loadmat
        raise UserError(f'{path} cannot be read as the ILSVRC2012 devkit: '
                        f'{error if isinstance(error, UserError) else repr(error)}') from error
    if not wnids or not numbers or set(numbers) - set(wnids):
        raise UserError(f'{path} is not the ILSVRC2012 devkit: {len(wnids)} classes, {len(numbers)} labels')
    return _Devkit(wnids, counts, numbers)


def _refuse_bomb(meta: bytes) -> None:
    """Raises ValueError where a part of a MATLAB file unpacks to more than any devkit has."""
    order, at = '<' if meta[126:128] == b'IM' else '>', 128
    while at + 8 <= len(meta):
        kind, size = struct.unpack_from(f'{order}II', meta, at)
        at += 8
        compressed = meta[at:at + size] if kind == 15 else b''
        if len(zlib.decompressobj().decompress(compressed, _LARGEST_DEVKIT + 1)) > _LARGEST_DEVKIT:
            raise ValueError(f'meta.mat unpacks to more than {_LARGEST_DEVKIT:,} bytes')
        at += size
