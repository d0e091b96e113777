"""Training's view of one image: cropped, flipped and distorted at random.

It runs in data workers, on the CPU, and gives uint8; normalising is the device's work.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from imagenet_jax import options
from imagenet_jax.errors import UserError, unknown
from imagenet_jax.images.crops import CROPS, Pad, RandomResized, ShorterSide
from imagenet_jax.images.distort import Distort
from imagenet_jax.images.eval_view import LARGEST
from imagenet_jax.images.ops import flip, flip_vertical
from imagenet_jax.images.policies import Unchanged
from imagenet_jax.images.ramp import Ramp


@dataclasses.dataclass(frozen=True)
class TrainView:
    """(image, rng) -> uint8 pixels of `shape`, a function of the two.

    Attributes:
      size: side in pixels.
      crop: one of `CROPS`, made.
      flip: mirror left and right with probability one half.
      policy: one of `policies.POLICIES`, made; it comes after the flips.
      distort: the last.
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
    policy: Callable = dataclasses.field(default_factory=Unchanged)
    distort: Distort = dataclasses.field(default_factory=Distort)
    flip_vertical: bool = False
    repeats: int = 1
    views: int = 1
    ramp: Ramp | None = None

    def __post_init__(self):
        if self.size < 1:
            raise UserError(f'config.augment.size={self.size} must be positive')
        options.refuse_above(self, 'config.augment', size=LARGEST, views=100)
        for name in ('repeats', 'views'):
            if getattr(self, name) < 1:
                raise UserError(f'config.augment.{name}={getattr(self, name)} must be at least 1')
        if isinstance(self.crop, (Pad, ShorterSide)):
            self.crop.check(self.ramp.first_size if self.ramp else self.size, self.ramp is not None)

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
        return self.distort(self.policy(pixels, rng), rng)

    @property
    def distorts(self) -> bool:
        """Whether anything but crop and flips is done, by which views differ."""
        return (self.policy, self.distort) != (Unchanged(), Distort())

    @property
    def shape(self) -> tuple[int, ...]:
        """(size, size, 3), or of several views (views, size, size, 3)."""
        return (self.views,) * (self.views > 1) + (self.size, self.size, 3)


def create(section: Mapping[str, Any], where: str, policy: Callable | None = None) -> TrainView:
    """The view that a section describes: `crop` names one of CROPS, which takes the options that are its own.

    `first_size` and `ramp_epochs` make a ramp.

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
    of_ramp = options.reads(Ramp).keys() - {'size'}
    known = of_crops | of_distort | of_ramp | options.reads(TrainView).keys() - {'policy', 'distort', 'ramp'}
    if strangers := sorted(given.keys() - known):
        raise unknown(f'option {where}.{strangers[0]}: nothing reads', strangers[0], sorted(known))

    def part(names):
        return {name: given[name] for name in given if name in names}
    view = options.apply(
        TrainView, {name: given[name] for name in given.keys() - of_crops - of_distort - of_ramp}, where,
        crop=options.create(CROPS, part(of_crops), where, key='crop'), policy=policy or Unchanged(),
        distort=options.apply(Distort, part(of_distort), where))
    if not part(of_ramp):
        return view
    return dataclasses.replace(view, ramp=options.apply(Ramp, part(of_ramp), where, size=view.size))
