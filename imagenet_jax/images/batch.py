"""A batch on the device: uint8 images as they were copied -> what the model sees.

Every batch is normalised. In training each image may then have a part erased, and then be mixed with its partner, which
is normalised and erased likewise: that of the same place in the global batch reversed. What is drawn for an image goes
by that place, so that nothing depends on the number of devices.
"""

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp

from imagenet_jax.errors import UserError
from imagenet_jax.images.erase import Erase
from imagenet_jax.images.mix import Mix, Mixing


@dataclasses.dataclass(frozen=True)
class Normalize:
    """(x / 255 - mean) / std, per channel; the defaults are ImageNet's."""
    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    std: tuple[float, ...] = (0.229, 0.224, 0.225)

    def __post_init__(self):
        for name, least in (('mean', -100), ('std', 1e-6)):
            values = getattr(self, name)
            if not all(least <= value <= 100 for value in values):
                raise UserError(f'config.normalize.{name}={values} must be finite, std above 0: in {least:g}..100')
            if len(values) not in (1, 3):
                raise UserError(f'config.normalize.{name}={values} must have 3 values, or 1 for all')

    def __call__(self, images: jax.Array) -> jax.Array:
        """uint8 (N, H, W, 3) -> float32 of the same shape."""
        mean, std = jnp.asarray(self.mean), jnp.asarray(self.std)
        return (images.astype(jnp.float32) / 255 - mean) / std

    def undo(self, images: jax.Array) -> jax.Array:
        """Back to uint8 pixels, rounded; what lies outside 0..255 is clipped."""
        mean, std = jnp.asarray(self.mean), jnp.asarray(self.std)
        return ((images.astype(jnp.float32) * std + mean) * 255).round().clip(0, 255).astype(jnp.uint8)


class Drawn(NamedTuple):
    """What one step makes of its batch, or of a part of it from `with_partners`.

    Attributes:
      normalize: uint8 images -> float images.
      erase: (float images, their places in the global batch) -> images; None: they stay whole.
      mixing: with partners; None: not.
    """
    normalize: Callable
    erase: Callable | None = None
    mixing: Mixing | None = None

    def with_partners(self, batch: dict, axis: str) -> dict:
        """A device's share of the batch, and beside it what is needed of each image's place and partner.

        Args:
          batch: image, and label where targets are made too.
          axis: name of the mapped axis that the batch is split along.
        """
        if self.erase:
            count = len(batch['image'])
            batch = batch | {'place': jax.lax.axis_index(axis) * count + jnp.arange(count)}
        if not self.mixing:
            return batch
        devices = jax.lax.axis_size(axis)
        opposite = [(i, devices - 1 - i) for i in range(devices)]
        return batch | {f'partner_{name}': jax.lax.ppermute(batch[name], axis, opposite)[::-1]
                        for name in ('image', 'label', 'place') if name in batch}

    def images(self, part: dict) -> jax.Array:
        """float (N, H, W, 3), what the model sees."""
        own = self._whole(part, '')
        return self.mixing.images(own, self._whole(part, 'partner_')) if self.mixing else own

    def targets(self, part: dict, make: Callable) -> jax.Array:
        """float (N, K), by what `make` makes of labels."""
        own = make(part['label'])
        return self.mixing.targets(own, make(part['partner_label'])) if self.mixing else own

    def _whole(self, part, whose):
        images = self.normalize(part[f'{whose}image'])
        return self.erase(images, part[f'{whose}place']) if self.erase else images


def draw(normalize: Callable, erase: Erase | None, mix: Mix, key_of: Callable[[str], jax.Array], step: jax.Array,
         size: tuple[int, int]) -> Drawn:
    """What a step makes of its batch.

    Args:
      normalize, erase, mix: what it consists of, in this order.
      key_of: name of a stream -> the step's key of it.
      step: of the run.
      size: height and width of the images.
    """
    return Drawn(normalize, partial(erase, key_of('erase'), step) if erase else None,
                 mix.draw(key_of('mix'), key_of('mix_choice'), step, size) if mix else None)
