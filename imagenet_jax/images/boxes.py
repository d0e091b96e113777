"""Boxes in images, as masks: a compiled program knows their places and sizes only when it runs."""

import jax
import jax.numpy as jnp


def inside(corner: jax.Array, box: jax.Array, size: tuple[int, int]) -> jax.Array:
    """A box's pixels in an image of `size`; what lies outside the image is clipped.

    Args:
      corner: int (2,), its first row and column; may be negative.
      box: int (2,), its height and width.
      size: height and width of the image.

    Returns:
      bool (H, W, 1).
    """
    rows, columns = (((at >= first) & (at < first + length))
                     for at, first, length in zip(map(jnp.arange, size), corner, box, strict=True))
    return (rows[:, None] & columns)[..., None]


def around_any_pixel(key: jax.Array, box: jax.Array, size: tuple[int, int]) -> jax.Array:
    """A box, int (2,), with its middle anywhere in the image, clipped at the edges: bool (H, W, 1)."""
    middle = jax.random.randint(key, (2,), 0, jnp.array(size))
    return inside(middle - box // 2, box, size)
