"""Progressive resizing: early epochs see smaller images, which cost less, and the last ones the full size."""

import dataclasses
import itertools
import math

from imagenet_jax.errors import UserError


@dataclasses.dataclass(frozen=True, kw_only=True)
class Ramp:
    """Epoch, counted from 0 -> side of its images in pixels, as in ffcv's recipes for ImageNet.

    Sides lie whole steps above `first_size`, at the nearest to the straight line. A step is 32 pixels, where the two
    ends are a multiple of that apart, and else the largest power of two that goes into their distance twice: 128, 160,
    192, 224, but 16, 24, 32. Each side is compiled for anew, so that fine steps would cost more than they save.

    Attributes:
      size: at the end.
      first_size: at the start.
      ramp_epochs: (start, end): up to the one the first size, from the other on the last.
    """
    size: int
    first_size: int
    ramp_epochs: tuple[float, float]

    def __post_init__(self):
        start, end = self.ramp_epochs
        if not 1 <= self.first_size <= self.size:
            raise UserError(f'config.augment.first_size={self.first_size} must be in 1..{self.size}, which is '
                            'config.augment.size')
        if not 0 <= start <= end:
            raise UserError(f'config.augment.ramp_epochs={self.ramp_epochs} must be (start, end), 0 <= start <= end')

    def __call__(self, epoch: int) -> int:
        start, end = self.ramp_epochs
        if epoch >= end:
            return self.size
        if epoch <= start:
            return self.first_size
        rise = (self.size - self.first_size) * (epoch - start) / (end - start)
        return self.first_size + self._step * math.floor(rise / self._step + 0.5)

    def sizes(self) -> list[tuple[int, int]]:
        """(epoch, side) of every epoch that brings another side, the first one included."""
        epochs = range(math.ceil(self.ramp_epochs[1]) + 1)
        return [(next(same), side) for side, same in itertools.groupby(epochs, self)]

    @property
    def _step(self) -> int:
        distance = self.size - self.first_size
        return 32 if distance % 32 == 0 else max(n for n in (1, 2, 4, 8, 16) if n == 1 or
                                                 (distance % n == 0 and 2 * n <= distance))
