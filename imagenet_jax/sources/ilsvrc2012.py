"""ImageNet as it is downloaded, read without unpacking.

    root/ILSVRC2012_img_train.tar       of n01440764.tar, n01443537.tar, ..., each of n01440764_10026.JPEG, ...
    root/ILSVRC2012_img_val.tar         of ILSVRC2012_val_00000001.JPEG, ...
    root/ILSVRC2012_devkit_t12.tar.gz   data/meta.mat: wnids and their ILSVRC numbers;
                                        data/ILSVRC2012_validation_ground_truth.txt: such a number a line

Splits 'train' and 'val'. Labels are the wnids in alphabetical order, as a folder of class folders would have them, and
not the ILSVRC numbers.
"""

import gzip
import io
import logging
import os
import tarfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from imagenet_jax.errors import UserError
from imagenet_jax.sources.base import Source

log = logging.getLogger(__name__)

_DEVKIT = 'ILSVRC2012_devkit_t12.tar.gz'
_BLOCK = 512


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
        wnids, truth = _read_devkit(root / _DEVKIT)
        self.class_names = tuple(sorted(wnids.values()))
        with self._tar.open('rb') as file:
            read = _training if split == 'train' else _validation
            images = sorted(read(file, wnids, truth))
        number = {wnid: label for label, wnid in enumerate(self.class_names)}
        self.labels = np.array([number[wnid] for _, wnid, _, _ in images], np.int32)
        self._names = np.array([name.encode() for name, _, _, _ in images])
        self._places = np.array([place for _, _, *place in images], np.int64).reshape(-1, 2)

    @classmethod
    def is_at(cls, path, split):
        return bool(path) and (Path(path).expanduser() / f'ILSVRC2012_img_{split}.tar').is_file()

    def image(self, index):
        offset, size = self._places[index].tolist()
        with self._tar.open('rb') as file:  # two calls, and nothing to share between threads or processes
            return os.pread(file.fileno(), size, offset)

    def key(self, index):
        return self._names[index].item().decode()


def _training(file, wnids, truth) -> Iterator[tuple[str, str, int, int]]:
    """(name, wnid, offset, size) of each image."""
    del truth
    classes = set(wnids.values())
    for name, offset, size in _members(file, 0, os.fstat(file.fileno()).st_size):
        wnid = Path(name).stem
        if wnid not in classes:
            raise UserError(f'{file.name} holds {name}, which is no class of the devkit')
        classes.remove(wnid)
        images = [(f'{wnid}/{image}', wnid, *place) for image, *place in _members(file, offset, offset + size)]
        if not images:
            raise UserError(f'{file.name}: {name} holds no image')
        yield from images
    if classes:
        raise UserError(f'{file.name} lacks {len(classes)} classes of the devkit, the first {min(classes)}: '
                        'it is not whole')


def _validation(file, wnids, truth) -> Iterator[tuple[str, str, int, int]]:
    count = 0
    for name, offset, size in _members(file, 0, os.fstat(file.fileno()).st_size):
        stem, count = Path(name).stem, count + 1
        number = int(stem[-8:]) if stem[-8:].isdigit() else 0
        if not 0 < number <= len(truth):
            raise UserError(f'{file.name} holds {name}; the devkit knows ILSVRC2012_val_00000001 to '
                            f'{len(truth):08d}')
        yield name, wnids[truth[number - 1]], offset, size
    if count != len(truth):
        raise UserError(f'{file.name} holds {count} images and the devkit {len(truth)} labels: it is not whole')


def _members(file, start: int, end: int) -> Iterator[tuple[str, int, int]]:
    """(name, offset, size) of the files of the tar that lies at start..end of `file`.

    tarfile takes a damaged header, and a missing end, for the end of an archive: what follows the last member must be
    blocks of zeros.
    """
    file.seek(start)
    try:
        with tarfile.TarFile(fileobj=file) as archive:
            while member := archive.next():
                if member.offset_data + member.size > end:
                    raise tarfile.ReadError(f'{member.name} ends after the archive')
                if member.isfile():
                    yield Path(member.name).name, member.offset_data, member.size
                archive.members.clear()  # it would keep a million of them
            after = archive.offset
    except (tarfile.TarError, ValueError, OverflowError) as error:
        raise UserError(f'{file.name} is damaged or not whole: {error}') from error
    file.seek(after)
    if after + _BLOCK > end or file.read(_BLOCK).strip(b'\0'):
        raise UserError(f'{file.name} is damaged or not whole: no more than its first {after} bytes can be read')


def _read_devkit(path: Path) -> tuple[dict[int, str], list[int]]:
    """({ILSVRC number: wnid} of the classes, the number of each validation image)."""
    from scipy.io import loadmat
    try:
        whole = gzip.decompress(path.read_bytes())  # which checks it: loadmat may crash on damaged bytes
        with tarfile.open(fileobj=io.BytesIO(whole)) as archive:
            files = {Path(member.name).name: member for member in archive if member.isfile()}
            meta = archive.extractfile(files['meta.mat']).read()
            truth = archive.extractfile(files['ILSVRC2012_validation_ground_truth.txt']).read()
        rows = loadmat(io.BytesIO(meta), squeeze_me=True)['synsets']
        # Further rows, with numbers above those of the classes, are the hierarchy's inner nodes.
        wnids = {int(row['ILSVRC2012_ID']): str(row['WNID']) for row in rows if int(row['num_children']) == 0}
        numbers = [int(line) for line in truth.split()]
    except Exception as error:  # of many kinds: from gzip, tarfile and loadmat
        raise UserError(f'{path} cannot be read as the ILSVRC2012 devkit: {error!r}') from error
    if not wnids or not numbers or set(numbers) - set(wnids):
        raise UserError(f'{path} is not the ILSVRC2012 devkit: {len(wnids)} classes, {len(numbers)} labels')
    return wnids, numbers
