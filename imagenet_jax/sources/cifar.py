"""CIFAR-10 and CIFAR-100 as published, in Python pickles (Krizhevsky, https://www.cs.toronto.edu/~kriz/cifar.html).

    root/cifar-10-batches-py/data_batch_1 ... data_batch_5, test_batch, batches.meta
    root/cifar-100-python/train, test, meta

The root may also be the folder of the files itself. The pickles are read as data: nothing in them is run.
"""

from pathlib import Path

import numpy as np

from imagenet_jax.errors import UserError, unknown
from imagenet_jax.sources import pickles
from imagenet_jax.sources.base import Source

# Folder -> the file of class names, then the files of each split.
_FILES = {
    'cifar-10-batches-py': ('batches.meta', {'train': [f'data_batch_{n}' for n in range(1, 6)],
                                             'test': ['test_batch']}),
    'cifar-100-python': ('meta', {'train': ['train'], 'test': ['test']}),
}
# (file of class names, data.labels) -> the entry with the labels, the one with their names.
_ENTRIES = {('batches.meta', 'fine'): ('labels', 'label_names'), ('meta', 'fine'): ('fine_labels', 'fine_label_names'),
            ('meta', 'coarse'): ('coarse_labels', 'coarse_label_names')}
_PARTS = {'train45k': slice(0, 45_000), 'val5k': slice(45_000, 50_000)}
_SPLITS = ('train', 'test', *_PARTS)
_SHAPE = (3, 32, 32)
_LARGEST = 1 << 29  # bytes of a file; CIFAR-100's training images have a quarter of it


class Cifar(Source):
    """uint8 (32, 32, 3) images in file order.

    Args:
      path: as above.
      split: 'train', 'test', or the two parts of 'train' that are usual for validation (He et al., 2015, section 4.2):
        'train45k', its first 45,000 images, and 'val5k', its last 5,000.
      labels: 'fine', or for CIFAR-100 'coarse', its 20 superclasses.
    """

    def __init__(self, path: str, split: str, labels: str = 'fine'):
        if split not in _SPLITS:
            raise unknown('split of CIFAR', split, _SPLITS)
        folders = _folders(path)
        if len(folders) != 1:
            raise UserError(f'{path} holds {" and ".join(f.name for f, _ in folders) or "no CIFAR"}; expected '
                            f'{" or ".join(_FILES)}, or one of these folders itself, with its file of class names')
        (self._folder, kind), = folders
        meta, files = _FILES[kind]
        if (meta, labels) not in _ENTRIES:
            raise unknown(f'data.labels of {kind}', labels, [name for file, name in _ENTRIES if file == meta])
        self._files = [self._folder / file for file in files['test' if split == 'test' else 'train']]
        entry, names = _ENTRIES[meta, labels]
        self.class_names = _class_names(self._folder / meta, names)
        batches = [_load(file) for file in self._files]
        self._pixels = [_pixels(*pair) for pair in zip(self._files, batches, strict=True)]
        self._starts = np.cumsum([0] + [len(part) for part in self._pixels])
        found = [_labels(file, batch, entry, len(part), len(self.class_names))
                 for file, batch, part in zip(self._files, batches, self._pixels, strict=True)]
        if split in _PARTS and self._starts[-1] != 50_000:
            raise UserError(f'split {split} is a part of 50,000 images; {self._folder} has {self._starts[-1]} in train')
        part = _PARTS.get(split, slice(0, None))
        self._skipped = part.start
        self.labels = np.concatenate(found)[part]

    @classmethod
    def is_at(cls, path, split):
        return bool(path) and split in _SPLITS and bool(_folders(path))

    def __getstate__(self):
        return {k: v for k, v in self.__dict__.items() if k != '_pixels'}

    def __setstate__(self, state):
        self.__dict__.update(state)
        self._pixels = [_pixels(file, _load(file)) for file in self._files]

    def _place(self, index: int) -> tuple[int, int]:
        """The file's number, and the row in it."""
        row = self._skipped + int(index)
        number = int(np.searchsorted(self._starts, row, side='right')) - 1
        return number, row - int(self._starts[number])

    def image(self, index):
        number, row = self._place(index)
        return np.ascontiguousarray(self._pixels[number][row].reshape(_SHAPE).transpose(1, 2, 0))

    def key(self, index):
        number, row = self._place(index)
        return f'{self._files[number].name}:{row}'


def _folders(path: str) -> list[tuple[Path, str]]:
    """Folders at `path` that hold a CIFAR, each with its name in `_FILES`."""
    root = Path(path).expanduser()
    return [(folder, kind) for kind, (meta, files) in _FILES.items() for folder in (root, root / kind)
            if (folder / meta).is_file() and any((folder / file).is_file() for file in files['train'] + files['test'])]


def _load(file: Path) -> dict:
    try:
        if file.stat().st_size > _LARGEST:
            raise ValueError(f'it has {file.stat().st_size:,} bytes, several times those of the largest')
        data = pickles.load(file.read_bytes(), pickles.ARRAYS)
    except (OSError, ValueError) as error:
        raise UserError(f'{file} cannot be read as a file of CIFAR: {error}') from error
    if not isinstance(data, dict):
        raise UserError(f'{file} holds {type(data).__name__}, not a dict as the files of CIFAR do')
    return data


def _pixels(file: Path, batch: dict) -> np.ndarray:
    """uint8 (images, 3072), the three channels one after the other."""
    data = batch.get('data')
    shape = data.value.shape if isinstance(data, pickles.Array) else None
    if shape is None or len(shape) != 2 or shape[1] != 3072:
        raise UserError(f'{file}: data must be a uint8 array of (images, 3072); it is {shape or type(data).__name__}')
    return data.value


def _labels(file: Path, batch: dict, entry: str, images: int, classes: int) -> np.ndarray:
    labels = batch.get(entry)
    if not isinstance(labels, list) or len(labels) != images:
        count = len(labels) if isinstance(labels, list) else 'no'
        raise UserError(f'{file}: {count} {entry} for {images} images')
    for row, label in enumerate(labels):
        if type(label) is not int or not 0 <= label < classes:
            raise UserError(f'{file}: {entry} of row {row} is not a whole number in 0..{classes - 1}')
    return np.array(labels, np.int32)


def _class_names(file: Path, entry: str) -> tuple[str, ...]:
    names = _load(file).get(entry)
    if not isinstance(names, list) or not all(isinstance(name, str | memoryview) for name in names):
        raise UserError(f'{file} has no list {entry}')
    return tuple(name if isinstance(name, str) else bytes(name).decode('latin-1') for name in names)
