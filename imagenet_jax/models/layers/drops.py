"""What training leaves out of a residual network at random: whole branches, and squares of maps."""

import flax.linen as nn
import jax
import jax.numpy as jnp

# Side in pixels of the squares of DropBlock.
SQUARE = 7
# Collection that tells a model how much of its training is over: {'fraction': of the updates}.
PROGRESS = 'progress'


class DropPath(nn.Module):
    """Stochastic depth (arXiv 1603.09382): some images lose a residual branch, the others have it times 1 / keep.

    As in timm and torchvision; the paper multiplies by keep in evaluation instead.

    Attributes:
      rate: probability that an image loses the branch, all maps of it together.
    """
    rate: float

    @nn.compact
    def __call__(self, branch):
        keep = 1 - self.rate
        images = len(jax.tree.leaves(branch)[0])
        kept = jax.random.bernoulli(self.make_rng('drop_path'), keep, (images, 1, 1, 1))
        return jax.tree.map(lambda y: jnp.where(kept, y / keep, jnp.zeros_like(y)), branch)


class DropBlock(nn.Module):
    """DropBlock (arXiv 1810.12890): zeroes squares of `SQUARE` pixels, of each channel others, and scales the rest up.

    The factor, pixels over pixels kept, keeps the sum of the mask. Squares are smaller where the map is, lie wholly
    inside it, and may overlap, for which their number makes no allowance.

    Attributes:
      rate: fraction of the pixels, but for overlaps; may be traced.
    """
    rate: float | jax.Array

    @nn.compact
    def __call__(self, maps):
        return jax.tree.map(lambda x: _without_squares(x, self.rate, self.make_rng('drop_block')), maps)


def _without_squares(x: jax.Array, rate: float, key: jax.Array) -> jax.Array:
    n, height, width, c = x.shape
    size = min(SQUARE, height, width)
    places = (height - size + 1, width - size + 1)
    probability = rate / size**2 * (height * width) / (places[0] * places[1])
    corners = jax.random.bernoulli(key, probability, (n, *places, c))
    # Each pixel looks for a corner among those up to a square's side above it and to its left.
    edge = ((size - 1, size - 1),) * 2
    kept = nn.max_pool(corners.astype(x.dtype), (size, size), padding=edge) == 0
    scale = kept.size / jnp.maximum(kept.sum(), 1)  # where nothing is kept, finite for the gradient's sake
    return jnp.where(kept, x * scale.astype(x.dtype), jnp.zeros_like(x))
