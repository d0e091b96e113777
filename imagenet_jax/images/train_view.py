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
from imagenet_jax.images.crops import CROPS, RandomResized
from imagenet_jax.images.ops import color_jitter, flip


@dataclasses.dataclass(frozen=True)
class TrainView:
    """(image, rng) -> uint8 (size, size, 3), a function of the two.

    Attributes:
      size: side in pixels.
      crop: one of `CROPS`, made.
      flip: mirror left and right with probability one half.
      color_jitter: strength, 0 for none; as in torchvision it may be above 1, and factors then start at 0.
    """
    size: int
    crop: Callable = dataclasses.field(default_factory=RandomResized)
    flip: bool = True
    color_jitter: float = 0.0

    def __post_init__(self):
        if self.size < 1:
            raise UserError(f'augment.size {self.size} must be positive')
        if not 0 <= self.color_jitter < math.inf:
            raise UserError(f'augment.color_jitter {self.color_jitter} must be finite and not negative')

    def __call__(self, image: bytes | np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Raises DecodeError."""
        pixels = self.crop(image, self.size, rng)
        if self.flip and rng.random() < 0.5:
            pixels = flip(pixels)
        if self.color_jitter:
            pixels = color_jitter(pixels, self.color_jitter, rng)
        return pixels


def create(section: Mapping[str, Any], where: str) -> TrainView:
    """The view that a section describes: `crop` names one of CROPS, which takes the options that are its own.

    Raises:
      UserError: an option that nothing reads or that another crop reads, or one out of its range.
    """
    given = options.chosen(section)
    of_crops = {'crop'}.union(*map(options.reads, CROPS.values()))
    known = of_crops | options.reads(TrainView).keys()
    if strangers := sorted(given.keys() - known):
        raise unknown(f'option {where}.{strangers[0]}: nothing reads', strangers[0], sorted(known))
    crop = options.create(CROPS, {name: given[name] for name in given if name in of_crops}, where, key='crop')
    rest = {name: given[name] for name in given if name not in of_crops}
    return options.apply(TrainView, rest, where, crop=crop)
