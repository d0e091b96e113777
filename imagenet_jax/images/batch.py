"""A batch on the device: uint8 images as they were copied -> what the model sees."""

import dataclasses
import math

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
