"""A batch on the device: uint8 images as they were copied -> what the model sees.

Every batch is normalised. In training it may be mixed: each image with its partner, of the same place in the global
batch reversed, so that the pairs do not depend on the number of devices.
"""

import dataclasses
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp

from imagenet_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class Normalize:
    """(x / 255 - mean) / std, per channel; the defaults are ImageNet's."""
    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    std: tuple[float, ...] = (0.229, 0.224, 0.225)

    def __post_init__(self):
        if not all(0 < value < math.inf for value in self.std) or not all(map(math.isfinite, self.mean)):
            raise UserError(f'normalize.mean {self.mean} and normalize.std {self.std} must be finite, std above 0')
        if not {len(self.mean), len(self.std)} <= {1, 3}:
            raise UserError(f'normalize.mean {self.mean} and normalize.std {self.std} must have 3 values, or 1 for all')

    def __call__(self, images: jax.Array) -> jax.Array:
        """uint8 (N, H, W, 3) -> float32 of the same shape."""
        mean, std = jnp.asarray(self.mean), jnp.asarray(self.std)
        return (images.astype(jnp.float32) / 255 - mean) / std

    def undo(self, images: jax.Array) -> jax.Array:
        """Back to uint8 pixels, rounded; what lies outside 0..255 is clipped."""
        mean, std = jnp.asarray(self.mean), jnp.asarray(self.std)
        return ((images.astype(jnp.float32) * std + mean) * 255).round().clip(0, 255).astype(jnp.uint8)


@dataclasses.dataclass(frozen=True)
class Mix:
    """mixup (arXiv 1710.09412): images and targets times a share, and those of their partners times the rest.

    Attributes:
      mixup: alpha of the Beta(alpha, alpha) that a batch's share is drawn from; 0: nothing is mixed.
    """
    mixup: float = 0.0

    def __post_init__(self):
        if self.mixup < 0:
            raise UserError(f'config.mix.mixup={self.mixup} must not be negative')

    def __bool__(self) -> bool:
        return self.mixup > 0

    def share(self, key: jax.Array) -> jax.Array:
        """float32 in 0..1, one for the batch."""
        return jax.random.beta(key, self.mixup, self.mixup)


def mixed(share: jax.Array, own: jax.Array, partners: jax.Array) -> jax.Array:
    """Arrays of one shape, such as images or targets, weighed."""
    return share * own + (1 - share) * partners


def seen(normalize: Callable, mix: Mix, images: jax.Array, partners: jax.Array, share: jax.Array) -> jax.Array:
    """uint8 images, (N, H, W, 3), and their partners -> float32, what training gives to the model.

    `partners` and `share` are not looked at where nothing is mixed.
    """
    return mixed(share, normalize(images), normalize(partners)) if mix else normalize(images)
