"""What every layout answers."""

import abc

import numpy as np


class Source(abc.ABC):
    """Random access to labelled images. Pickles small, for data workers; threads may read it at once.

    Attributes:
      labels: int32, one an image, read when the source is opened.
      class_names: one a class, in label order; empty where the layout has none.
      on_disk: False where no path has to be given.
    """
    labels: np.ndarray
    class_names: tuple[str, ...] = ()
    on_disk = True

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

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> dict:
        return {'image': self.image(index), 'label': int(self.labels[index]), 'key': self.key(index)}
