"""Local importance-based pooling (arXiv 1908.04156): means of windows, weighed by what a small network says of pixels.

Where LIP stands, and what its network is, is that of its authors' LIP-ResNet. The network has its own norms, one image
and channel at a time, and its own ReLU, whatever the model's are.
"""

import dataclasses
from collections.abc import Callable
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp

from imagenet_jax.models.layers.choice import Layers
from imagenet_jax.models.layers.dtypes import at_least_float32

# Channels of what the pools of one block look at.
WIDTH = 128
# Of the logits, so that no weight is more than exp(BOUND) times another.
BOUND = 12.0


def local_importance_pool(x: jax.Array, logits: jax.Array) -> jax.Array:
    """(N, H, W, C), and logits of that shape -> (N, ceil(H / 2), ceil(W / 2), C): means over 3x3 windows, two apart.

    A pixel weighs exp(logit), one outside nothing. At least in float32, where logits up to 80 are safe: float16 has no
    exp(BOUND).
    """
    total = partial(nn.avg_pool, window_shape=(3, 3), strides=(2, 2), padding=((1, 1), (1, 1)))
    weights = jnp.exp(at_least_float32(logits))
    return (total(x * weights) / total(weights)).astype(x.dtype)


class LIP(nn.Module):
    """Pools x by logits made of `seen`, a map of the same pixels: convolution, norm, and BOUND times sigmoid.

    The convolution starts at 0, and so the pool as an average.
    """
    kernel: int
    layers: Layers

    @nn.compact
    def __call__(self, x, seen):
        logits = self.layers.conv(x.shape[-1], self.kernel, init=nn.initializers.zeros, name='conv')(seen)
        return _gated(x, _norm(self.layers, 'norm')(logits))


@jax.checkpoint  # the gradient keeps no float32 map of all pixels
def _gated(x, logits):
    return local_importance_pool(x, BOUND * nn.sigmoid(at_least_float32(logits)))


class Importance(nn.Module):
    """What the pools of a block look at: a 1x1 and a 3x3 convolution of its input, with norms and ReLUs."""
    layers: Layers

    @nn.compact
    def __call__(self, x):
        for i, kernel in enumerate((1, 3), start=1):
            x = _norm(self.layers, f'norm{i}')(self.layers.conv(WIDTH, kernel, name=f'conv{i}')(x))
            x = nn.relu(x)
        return x


def _norm(layers, name):
    return nn.InstanceNorm(epsilon=1e-5, dtype=layers.dtype, param_dtype=layers.param_dtype, name=name)


def strided(x: jax.Array, stride: int, layers: Layers) -> tuple[Callable[[jax.Array, str], jax.Array], int, int]:
    """How a residual block takes its stride: what pools, the kernel of the 3x3 convolution after it, and its stride.

    With `layers.lip` and a stride, both the branch and the shortcut are pooled, and a 1x1 convolution stands for the
    strided 3x3. Otherwise nothing is: a 3x3 with the stride.

    Args:
      x: the block's input, or where the norm comes first, what that and the activation make of it.
      stride: the block's.
      layers: of the block. To be called once in its compact method: it makes `importance` there, and each call of the
        pool a LIP of the given name.
    """
    if not layers.lip or stride == 1:
        return (lambda y, name: y), 3, stride
    layers = dataclasses.replace(layers, deforms=False)
    seen = Importance(layers, name='importance')(x)
    return (lambda y, name: LIP(1, layers, name=name)(y, seen)), 1, 1
