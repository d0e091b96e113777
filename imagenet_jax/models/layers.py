"""Layers shared by the families, and the choice of them that a model makes once for all its blocks."""

import dataclasses
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp

from imagenet_jax.errors import unknown

# Name of the mesh axis that the data is split over; synchronous BatchNorm averages over it.
DATA_AXIS = 'data'
FLOAT32 = jnp.dtype(jnp.float32)
_NORM_AXIS = {'batch': None, 'sync': DATA_AXIS}

dense_init = nn.initializers.normal(0.01)


def he_init(groups: int = 1):
    """Kaiming normal by fan-out (arXiv 1502.01852), a grouped kernel's fan-out divided by its groups."""
    return nn.initializers.variance_scaling(2.0 * groups, 'fan_out', 'normal')


@dataclasses.dataclass(frozen=True)
class Layers:
    """What a model's blocks are made of.

    Attributes:
      dtype: of convolutions and activations. Norms compute statistics in float32 whatever it is.
      param_dtype: of parameters.
      norm: 'batch' (statistics of the device's own images) or 'sync' (of the global batch).
      zero_gamma: norms that end a residual branch start at scale 0 (arXiv 1706.02677).
    """
    dtype: jnp.dtype = FLOAT32
    param_dtype: jnp.dtype = FLOAT32
    norm: str = 'batch'
    zero_gamma: bool = False

    def __post_init__(self):
        if self.norm not in _NORM_AXIS:
            raise unknown('model.norm', self.norm, _NORM_AXIS)

    def __call__(self, train: bool):
        """Answers (conv, norm, act) for one call of a block."""
        return self._conv, partial(self._norm, train), nn.relu

    def _conv(self, features: int, kernel: int, stride: int = 1, groups: int = 1, *, name: str) -> nn.Conv:
        # Symmetric padding: 'SAME' pads a strided convolution on one side only and differs from published weights.
        return nn.Conv(features, (kernel, kernel), (stride, stride), padding=kernel // 2, feature_group_count=groups,
                       use_bias=False, kernel_init=he_init(groups), dtype=self.dtype, param_dtype=self.param_dtype,
                       name=name)

    def _norm(self, train: bool, name: str, ends_branch: bool = False) -> nn.BatchNorm:
        scale_init = nn.initializers.zeros if ends_branch and self.zero_gamma else nn.initializers.ones
        return nn.BatchNorm(use_running_average=not train, momentum=0.9, epsilon=1e-5, scale_init=scale_init,
                            axis_name=_NORM_AXIS[self.norm], dtype=self.dtype, param_dtype=self.param_dtype, name=name)


def max_pool(x: jax.Array, window: int, stride: int, padding: int) -> jax.Array:
    """Max-pool of (N, H, W, C), padded with -inf.

    Its gradient goes to the first maximum of each window, as in PyTorch. XLA's own, select-and-scatter, has no
    deterministic form on a GPU; this one is a sum of shifted selections.
    """
    return _max_pool(x, window, stride, padding)


@partial(jax.custom_vjp, nondiff_argnums=(1, 2, 3))
def _max_pool(x, window, stride, padding):
    return nn.max_pool(x, (window, window), (stride, stride), ((padding, padding),) * 2)


def _max_pool_forward(x, window, stride, padding):
    y = _max_pool(x, window, stride, padding)
    return y, (x, y)


def _max_pool_backward(window, stride, padding, saved, g):
    x, y = saved
    n, height, width, c = x.shape
    rows, columns = y.shape[1:3]
    edge = ((0, 0), (padding, padding), (padding, padding), (0, 0))
    padded = jnp.pad(x, edge, constant_values=-jnp.inf)
    size_h, size_w = padded.shape[1:3]
    free = jnp.ones(y.shape, bool)
    total = jnp.zeros(padded.shape, g.dtype)
    zero = jnp.zeros((), g.dtype)
    for i in range(window):
        for j in range(window):
            last = (i + stride * (rows - 1) + 1, j + stride * (columns - 1) + 1)
            hit = free & (jax.lax.slice(padded, (0, i, j, 0), (n, *last, c), (1, stride, stride, 1)) == y)
            free &= ~hit
            # The transpose of a strided slice: zeros between the values and around them.
            total += jax.lax.pad(jnp.where(hit, g, zero), zero, (
                (0, 0, 0), (i, size_h - last[0], stride - 1), (j, size_w - last[1], stride - 1), (0, 0, 0)))
    return (total[:, padding:padding + height, padding:padding + width],)


_max_pool.defvjp(_max_pool_forward, _max_pool_backward)
