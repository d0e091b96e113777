"""A part of each image, drawn for each, is erased. `ERASERS` names the choices."""

import abc
import dataclasses
import math
from functools import partial
from typing import ClassVar

import jax
import jax.numpy as jnp

from imagenet_jax.errors import UserError, unknown
from imagenet_jax.images.boxes import around_any_pixel, inside
from imagenet_jax.images.ending import Ending

# How often a box is drawn anew that does not fit into the image, before the image stays whole; as in torchvision.
TRIES = 10

# What is put in place of pixels that are normalised already, from a key and a shape: the mean colour; noise of its own
# for each pixel and channel; one colour for the image.
FILLS = {'constant': lambda key, shape, dtype: jnp.zeros((), dtype),
         'noise': jax.random.normal,
         'channel': lambda key, shape, dtype: jax.random.normal(key, shape[-1:], dtype)}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Erase(Ending, abc.ABC):
    """(key, step, images, places) -> images, each with a box erased that its place in the global batch decides."""
    fill: ClassVar[str] = 'constant'
    where: ClassVar[str] = 'config.erase'

    def __call__(self, key: jax.Array, step: jax.Array, images: jax.Array, places: jax.Array) -> jax.Array:
        """Erases at that step.

        Args:
          key: of all that the step draws for it.
          step: of the run.
          images: float (N, H, W, 3), normalised.
          places: int (N,), of the images in the global batch.
        """
        def erased(image, place):
            of_box, of_fill = jax.random.split(jax.random.fold_in(key, place))
            fill = FILLS[self.fill](of_fill, image.shape, image.dtype)
            return jnp.where(self._box(of_box, image.shape[:2]) & self.on(step), fill, image)
        return jax.vmap(erased)(images, places)

    @abc.abstractmethod
    def check(self, size: int) -> None:
        """Raises UserError where images of so many pixels a side would lose nothing, or all."""

    @abc.abstractmethod
    def _box(self, key, size) -> jax.Array:
        """bool (H, W, 1), the pixels of an image of `size` that are erased."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class RandomErasing(Erase):
    """Random erasing (arXiv 1708.04896): a box of random area and aspect that lies in the image whole.

    Boxes are drawn until one is smaller than the image either way; all `TRIES` of them are drawn at once here and the
    first that fits is taken, which is the same.

    Attributes:
      probability: of an image losing anything.
      area: the least and the greatest, as fractions of the image's; uniform between.
      aspect: height over width, the least and the greatest; its logarithm is uniform between.
      fill: one of FILLS.
    """
    probability: float = 0.5
    area: tuple[float, float] = (0.02, 0.4)
    aspect: tuple[float, float] = (0.3, 3.33)
    fill: str = 'constant'

    def __post_init__(self):
        super().__post_init__()
        if not 0 < self.probability <= 1:
            raise UserError(f'config.erase.probability={self.probability} must be in (0, 1]')
        if not 0 < self.area[0] <= self.area[1] <= 1:
            raise UserError(f'config.erase.area={self.area} must be two rising fractions, in (0, 1]')
        if not 0 < self.aspect[0] <= self.aspect[1]:
            raise UserError(f'config.erase.aspect={self.aspect} must be two rising numbers above 0')
        # A box of the least area is nearest to a square, as which it is shortest, at this aspect.
        nearest = min(max(1.0, self.aspect[0]), self.aspect[1])
        if self.area[0] * max(nearest, 1 / nearest) >= 1:
            raise UserError(f'config.erase.area={self.area} with config.erase.aspect={self.aspect}: no such box fits '
                            'into an image, which would stay whole')
        if self.fill not in FILLS:
            raise unknown('config.erase.fill', self.fill, FILLS)

    def check(self, size):
        if self.area[1] * size**2 < 1:
            raise UserError(f'config.erase.area={self.area} must be at least a pixel of {size} x {size}')

    def _box(self, key, size):
        whether, of_area, of_aspect, of_place = jax.random.split(key, 4)
        draw = partial(jax.random.uniform, shape=(TRIES,))
        area = draw(of_area, minval=self.area[0], maxval=self.area[1]) * math.prod(size)
        aspect = jnp.exp(draw(of_aspect, minval=math.log(self.aspect[0]), maxval=math.log(self.aspect[1])))
        boxes = jnp.stack([jnp.sqrt(area * aspect), jnp.sqrt(area / aspect)], 1).round().astype(jnp.int32)
        fits = (boxes < jnp.array(size)).all(1)
        box = boxes[fits.argmax()]
        corner = jax.random.randint(of_place, (2,), 0, jnp.array(size) - box + 1)
        return inside(corner, box, size) & fits.any() & (jax.random.uniform(whether) < self.probability)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Cutout(Erase):
    """Cutout (arXiv 1708.04552): a square around any pixel, clipped at the edges, becomes the mean colour.

    Attributes:
      side: of the square, in pixels.
    """
    side: int

    def __post_init__(self):
        super().__post_init__()
        if self.side < 1:
            raise UserError(f'config.erase.side={self.side} must be positive')

    def check(self, size):
        if self.side >= size:
            raise UserError(f'config.erase.side={self.side} must be below the side of an image, {size}: whole images '
                            'would be erased')

    def _box(self, key, size):
        return around_any_pixel(key, jnp.full(2, self.side), size)


def nothing(steps: int, steps_per_epoch: float) -> None:
    """Images stay whole, for as long as a run takes."""
    del steps, steps_per_epoch


# config.erase.name -> what erases.
ERASERS = {'none': nothing, 'random': RandomErasing, 'cutout': Cutout}
