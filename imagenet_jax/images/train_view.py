"""Training's view of one image: cropped, flipped and distorted at random.

It runs in data workers, on the CPU, and gives uint8; normalising is the device's work.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from imagenet_jax import options
from imagenet_jax.errors import UserError, unknown
from imagenet_jax.images.crops import CROPS, RandomResized
from imagenet_jax.images.distort import Distort
from imagenet_jax.images.ops import flip
from imagenet_jax.images.policies import Unchanged


@dataclasses.dataclass(frozen=True)
class TrainView:
    """(image, rng) -> uint8 (size, size, 3), a function of the two.

    Attributes:
      size: side in pixels.
      crop: one of `CROPS`, made.
      flip: mirror left and right with probability one half.
      policy: one of `policies.POLICIES`, made; it comes after the flip.
      distort: the last.
    """
    size: int
    crop: Callable = dataclasses.field(default_factory=RandomResized)
    flip: bool = True
    policy: Callable = dataclasses.field(default_factory=Unchanged)
    distort: Distort = dataclasses.field(default_factory=Distort)

    def __post_init__(self):
        if self.size < 1:
            raise UserError(f'augment.size {self.size} must be positive')

    def __call__(self, image: bytes | np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Raises DecodeError."""
        pixels = self.crop(image, self.size, rng)
        if self.flip and rng.random() < 0.5:
            pixels = flip(pixels)
        return self.distort(self.policy(pixels, rng), rng)


def create(section: Mapping[str, Any], where: str, policy: Callable | None = None) -> TrainView:
    """The view that a section describes: `crop` names one of CROPS, which takes the options that are its own.

    Args:
      section: `config.augment`.
      where: its path in messages.
      policy: of another section; None: none.

    Raises:
      UserError: an option that nothing reads or that another crop reads, or one out of its range.
    """
    given = options.chosen(section)
    of_crops = {'crop'}.union(*map(options.reads, CROPS.values()))
    of_distort = options.reads(Distort).keys()
    known = of_crops | of_distort | options.reads(TrainView).keys()
    if strangers := sorted(given.keys() - known):
        raise unknown(f'option {where}.{strangers[0]}: nothing reads', strangers[0], sorted(known))
    crop = options.create(CROPS, {name: given[name] for name in given if name in of_crops}, where, key='crop')
    distort = options.apply(Distort, {name: given[name] for name in given if name in of_distort}, where)
    rest = {name: given[name] for name in given if name not in of_crops | of_distort}
    return options.apply(TrainView, rest, where, crop=crop, policy=policy or Unchanged(), distort=distort)
