"""What every layout answers."""

import abc
import copy
import os
import stat
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

import numpy as np

# Bytes of an encoded image: 89 million pixels of 16 bits, uncompressed, and a header.
LARGEST_IMAGE = 513 << 20


class Source(abc.ABC):
    """Random access to labelled images. Pickles small, for data workers; threads may read it at once.

    Attributes:
      labels: int32 (N,), one an image, read when the source is opened; multi-label: float32 (N, classes) of 0 and 1,
        NaN where neither counts.
      class_names: one a class, in label order; empty where the layout has none.
      class_words: of names that are ids, and none of ImageNet's 1000, what the data says they mean.
      on_disk: False where no path has to be given.
      refers: True where the layout only names images, which may lie beside it in another layout.
      draws: True where training batches are drawn on the devices, by `draw(key, shape)`, and not read.
    """
    labels: np.ndarray
    class_names: tuple[str, ...] = ()
    class_words: Mapping[str, str] = MappingProxyType({})
    on_disk = True
    refers = False
    draws = False

    @classmethod
    def is_at(cls, path: str, split: str) -> bool:
        """Whether `path` holds `split` in this layout."""
        return False

    @abc.abstractmethod
    def image(self, index: int) -> bytes | np.ndarray:
        """Encoded bytes, or uint8 pixels in HWC. Raises OSError where it cannot be read."""

    @abc.abstractmethod
    def key(self, index: int) -> str:
        """A name for messages and lists, the same in every run."""

    @property
    def multi_label(self) -> bool:
        """Whether an image may have several classes: the one place that looks at the rank of labels is this class."""
        return self.labels.ndim == 2

    @property
    def num_labels(self) -> int:
        """Classes that the labels count, from 0 to the highest that there is; named or not."""
        return self.labels.shape[1] if self.multi_label else int(self.labels.max()) + 1

    def class_counts(self, num_classes: int) -> np.ndarray:
        """int (num_classes,): images of each class; one of several classes counts in each."""
        if self.multi_label:
            return np.nansum(self.labels, axis=0).astype(int)
        return np.bincount(self.labels, minlength=num_classes)

    def classes_of(self, index: int) -> np.ndarray:
        """Numbers of the classes that an image has."""
        return self.classes_in(self.labels[index])

    @staticmethod
    def classes_in(label: np.ndarray) -> np.ndarray:
        """The same of one image's label."""
        return np.flatnonzero(label == 1) if np.ndim(label) else np.array([label])

    def renumbered(self, places: np.ndarray, class_names: tuple[str, ...], num_classes: int) -> 'Source':
        """The same images, class i now places[i] of num_classes; of several labels, those nobody took are NaN."""
        changed = copy.copy(self)
        changed.class_names = class_names
        if self.multi_label:
            changed.labels = np.full((len(self), num_classes), np.nan, np.float32)
            changed.labels[:, places] = self.labels
        else:
            changed.labels = places[self.labels].astype(np.int32)
        return changed

    def fingerprint(self) -> dict[str, int]:
        """By which two hosts see whether they have the same: images, and CRC-32s of labels, of class names and of the
        names of 64 images."""
        keys = [self.key(int(i)) for i in np.linspace(0, len(self) - 1, min(64, len(self)))]
        return {'images': len(self), 'labels': zlib.crc32(np.ascontiguousarray(self.labels)),
                'class names': zlib.crc32(repr(tuple(self.class_names)).encode(errors='surrogateescape')),
                'names of images': zlib.crc32(repr(keys).encode(errors='surrogateescape'))}

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> dict:
        label = self.labels[index]
        return {'image': self.image(index), 'label': label if self.multi_label else int(label), 'key': self.key(index)}


class Files(Source):
    """Images that are files below one folder; a path below it is the key.

    Args:
      root: the folder.
      files: paths below it, as text or bytes.
      labels: as of every source.
    """

    def __init__(self, root: Path, files: Sequence[str | bytes], labels: np.ndarray):
        self._root, self.labels = root, labels
        # Bytes in one array, not a list of str: a million paths pickle to each worker at once.
        self._files = np.array([os.fsencode(f) for f in files])

    def image(self, index):
        return read_file(os.path.join(self._root, self.key(index)))  # pathlib takes twice as long

    def key(self, index):
        return os.fsdecode(self._files[index].item())


def read_file(path: str) -> bytes:
    """A regular file's bytes. Raises OSError."""
    with open(path, 'rb', buffering=0, opener=_without_waiting) as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise OSError('it is no regular file')
        refuse_large(status.st_size)
        return file.read()


def refuse_large(size: int) -> None:
    """Raises OSError where so many bytes are no image, before they are read."""
    if size > LARGEST_IMAGE:
        raise OSError(f'{size:,} bytes are more than an image has')


def _without_waiting(path, flags):
    """A named pipe would be waited for until somebody writes to it."""
    return os.open(path, flags | os.O_NONBLOCK)
