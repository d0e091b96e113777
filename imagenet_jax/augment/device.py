"""A batch on the device: uint8 images as they were copied -> what the model sees."""

import dataclasses

import jax
import jax.numpy as jnp


@dataclasses.dataclass(frozen=True)
class Normalize:
    """(x / 255 - mean) / std, per channel; the defaults are ImageNet's."""
    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    std: tuple[float, ...] = (0.229, 0.224, 0.225)

    def __call__(self, images: jax.Array) -> jax.Array:
        """uint8 (N, H, W, 3) -> float32 of the same shape."""
        mean, std = jnp.asarray(self.mean), jnp.asarray(self.std)
        return (images.astype(jnp.float32) / 255 - mean) / std
