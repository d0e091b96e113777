"""Training's view of one image: cropped, flipped and distorted at random.

It runs in data workers, on the CPU, and gives uint8; normalising is the device's work.
"""

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from imagenet_jax import options
from imagenet_jax.errors import UserError, unknown
from imagenet_jax.images.crops import CROPS, RandomResized, ShorterSide
from imagenet_jax.images.ops import color_jitter, flip, flip_vertical
from imagenet_jax.images.ramp import Ramp


@dataclasses.dataclass(frozen=True)
class TrainView:
    """(image, rng) -> uint8 pixels of `shape`, a function of the two.

    Attributes:
      size: side in pixels.
      crop: one of `CROPS`, made.
      flip: mirror left and right with probability one half.
      color_jitter: strength, 0 for none; as in torchvision it may be above 1, and factors then start at 0.
      flip_vertical: mirror top and bottom with probability one half.
      repeats: how many times an image comes, one after the other, each with its own augmentation (arXiv 1901.09335);
        an epoch keeps its length, and has so many times fewer images.
      views: of each sample, for a loss that compares them (AugMix, arXiv 1912.02781): the first is cropped and flipped
        alone, and each other is that distorted in its own way. 1: one, distorted.
      ramp: what the size is in early epochs, where not `size`.
    """
    size: int
    crop: Callable = dataclasses.field(default_factory=RandomResized)
    flip: bool = True
    color_jitter: float = 0.0
    flip_vertical: bool = False
    repeats: int = 1
    views: int = 1
    ramp: Ramp | None = None

    def __post_init__(self):
        if self.size < 1:
            raise UserError(f'augment.size {self.size} must be positive')
        for name in ('repeats', 'views'):
            if getattr(self, name) < 1:
                raise UserError(f'augment.{name} {getattr(self, name)} must be at least 1')
        if isinstance(self.crop, ShorterSide):
            self.crop.check(self.size, self.ramp is not None)
        if not 0 <= self.color_jitter < math.inf:
            raise UserError(f'augment.color_jitter {self.color_jitter} must be finite and not negative')

    def __call__(self, image: bytes | np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Raises DecodeError."""
        pixels = self.crop(image, self.size, rng)
        if self.flip and rng.random() < 0.5:
            pixels = flip(pixels)
        if self.flip_vertical and rng.random() < 0.5:
            pixels = flip_vertical(pixels)
        if self.views == 1:
            return self._distorted(pixels, rng)
        return np.stack([pixels, *(self._distorted(pixels, rng) for _ in range(self.views - 1))])

    def _distorted(self, pixels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        if self.color_jitter:
            pixels = color_jitter(pixels, self.color_jitter, rng)
        return pixels

    @property
    def shape(self) -> tuple[int, ...]:
        """(size, size, 3), or of several views (views, size, size, 3)."""
        return (self.views,) * (self.views > 1) + (self.size, self.size, 3)


def create(section: Mapping[str, Any], where: str) -> TrainView:
    """The view that a section describes: `crop` names one of CROPS, which takes the options that are its own.

    `first_size` and `ramp_epochs` make a ramp.

    Raises:
      UserError: an option that nothing reads or that another crop reads, or one out of its range.
    """
    given = options.chosen(section)
    of_crops = {'crop'}.union(*map(options.reads, CROPS.values()))
    of_ramp = options.reads(Ramp).keys() - {'size'}
    known = of_crops | of_ramp | options.reads(TrainView).keys() - {'ramp'}
    if strangers := sorted(given.keys() - known):
        raise unknown(f'option {where}.{strangers[0]}: nothing reads', strangers[0], sorted(known))
    crop = options.create(CROPS, {name: given[name] for name in given if name in of_crops}, where, key='crop')
    rest = {name: given[name] for name in given if name not in of_crops | of_ramp}
    view = options.apply(TrainView, rest, where, crop=crop)
    if not of_ramp & given.keys():
        return view
    ramp = options.apply(Ramp, {name: given[name] for name in given if name in of_ramp}, where, size=view.size)
    return dataclasses.replace(view, ramp=ramp)
