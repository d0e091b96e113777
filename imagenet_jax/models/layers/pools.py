"""Pools of (N, H, W, C)."""

import itertools
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from imagenet_jax.errors import UserError
from imagenet_jax.models.layers.dtypes import at_least_float32


def global_mean(x: jax.Array, keepdims: bool = False) -> jax.Array:
    """(N, H, W, C) -> (N, C), or (N, 1, 1, C) with `keepdims`: means over all pixels, at least float32."""
    return jnp.mean(at_least_float32(x), axis=(1, 2), keepdims=keepdims)


def adaptive_mean_pool(x: jax.Array, size: int) -> jax.Array:
    """(N, H, W, C) -> (N, size, size, C): means over PyTorch's adaptive windows, which may overlap or repeat."""
    if 0 in x.shape:
        raise UserError('images too small for this model: its convolutions and pools leave no pixel of them')
    if x.shape[1:3] == (size, size):
        return x
    wide = at_least_float32(x)
    rows, columns = (_adaptive_windows(side, size).astype(wide.dtype) for side in x.shape[1:3])
    return jnp.einsum('ih,nhwc,jw->nijc', rows, wide, columns, precision='highest').astype(x.dtype)


def _adaptive_windows(side: int, size: int) -> np.ndarray:
    """(size, side): row i averages the pixels from floor(i * side / size) up to ceil((i + 1) * side / size)."""
    weights = np.zeros((size, side))
    for i in range(size):
        start, stop = i * side // size, -(-(i + 1) * side // size)
        weights[i, start:stop] = 1 / (stop - start)
    return weights


def halve(x: jax.Array) -> jax.Array:
    """Means of 2x2 pixels, one for each pair of rows and columns; at an odd edge, of the pixels that there are."""
    edge = [(0, side % 2) for side in x.shape[1:3]]
    return nn.avg_pool(x, (2, 2), (2, 2), edge, count_include_pad=False)


def blur(x: jax.Array, stride: int) -> jax.Array:
    """(N, H, W, C) -> (N, ceil(H / stride), ceil(W / stride), C): means weighed 1, 2, 1 each way (arXiv 1904.11486).

    Edges are mirrored, as in the authors' code and timm's; pixels outside are not 0.
    """
    wide = at_least_float32(x)
    for axis in (1, 2):
        side = wide.shape[axis]
        padded = jnp.pad(wide, [(int(i == axis),) * 2 for i in range(4)], mode='reflect')
        left, middle, right = (jax.lax.slice_in_dim(padded, i, i + side, stride, axis) for i in range(3))
        wide = (left + 2 * middle + right) / 4
    return wide.astype(x.dtype)


def max_pool(x: jax.Array, window: int, stride: int, padding: int, ceil: bool = False) -> jax.Array:
    """Max-pool of (N, H, W, C), padded with -inf; with `ceil`, a last window that is only partly inside counts too.

    Its gradient goes to the first maximum of each window, as in PyTorch. XLA's own, select-and-scatter, has no
    deterministic form on a GPU; this one is a sum of shifted selections.
    """
    if ceil:
        extra = [-(side + 2 * padding - window) % stride for side in x.shape[1:3]]
        x = jnp.pad(x, ((0, 0), *((0, more) for more in extra), (0, 0)), constant_values=-jnp.inf)
    return _max_pool(x, window, stride, padding)


@partial(jax.custom_vjp, nondiff_argnums=(1, 2, 3))
def _max_pool(x, window, stride, padding):
    return nn.max_pool(x, (window, window), (stride, stride), ((padding, padding),) * 2)


def _max_pool_forward(x, window, stride, padding):
    """Keeps which pixel of its window the first maximum is, a byte each, and of the map nothing."""
    edge = ((0, 0), (padding, padding), (padding, padding), (0, 0))
    padded = jnp.pad(x, edge, constant_values=-jnp.inf)
    taps = [padded[:, i:padded.shape[1] - window + 1 + i:stride, j:padded.shape[2] - window + 1 + j:stride]
            for i in range(window) for j in range(window)]
    y, first = taps[0], jnp.zeros(taps[0].shape, np.min_scalar_type(window**2 + 1))
    for k, tap in enumerate(taps[1:], 1):
        first = jnp.where(tap > y, k, first)
        y = jnp.maximum(y, tap)
    return y, (first, x.shape)


def _max_pool_backward(window, stride, padding, saved, g):
    """Each pixel asks the windows that it may be in whether it is their first maximum."""
    first, (_, *sides, _) = saved
    nowhere, outside = window**2, window**2 + 1  # no pixel of a window has these numbers

    def near(x, windows, fill):
        """x of the window so many beyond that which has the number of a pixel's stride, for every pixel."""
        for axis, (side, beyond) in enumerate(zip(sides, windows, strict=True), 1):
            after = -(-side // stride) + beyond - x.shape[axis]
            edges = [(-beyond, after, 0) if i == axis else (0, 0, 0) for i in range(x.ndim)]
            x = jnp.repeat(jax.lax.pad(x, jnp.array(fill, x.dtype), edges), stride, axis)
        return x[:, :sides[0], :sides[1]]
    total, zero = 0, jnp.zeros((), g.dtype)
    beyond = range(-((window - 1 - padding) // stride), (stride - 1 + padding) // stride + 1)
    for windows in itertools.product(beyond, repeat=2):
        places = [np.arange(side) % stride + padding - stride * further
                  for side, further in zip(sides, windows, strict=True)]
        inside = np.logical_and.outer(*((place >= 0) & (place < window) for place in places))
        pixel = np.where(inside, np.add.outer(places[0] * window, places[1]), nowhere).astype(first.dtype)
        total += jnp.where(near(first, windows, outside) == pixel[..., None], near(g, windows, 0), zero)
    return (total,)


_max_pool.defvjp(_max_pool_forward, _max_pool_backward)
