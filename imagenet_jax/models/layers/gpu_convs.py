"""Half-precision convolutions in the form that is fastest on an NVIDIA GPU.

cuDNN has no kernels for tensor cores that take few channels well: an image's three, or the four to eight of a narrow
group. Another form of the same convolution has more. What it took as written and takes so, in ms on an H200, for 256
images in bfloat16 (JAX 0.11.2, cuDNN 9.19), forward : by the map : by the kernel:

  7x7 with stride 2 on images of 224, to 64 channels: 1.85 : - : 1.19, as 4x4 of 2x2 pixels 0.75 : - : 0.55
  3x3 of 32 groups of 4 channels, 56x56: 0.37 : 0.37 : 0.51, as 2 groups of 64 0.25 : 0.25 : 0.28
  3x3 of 32 groups of 8 channels, 28x28: 0.19 : 0.20 : 0.16, as 4 groups of 64 0.14 : 0.14 : 0.15, and with stride 2
    0.19 : 0.97 : 0.17, so 0.16 : 0.74 : 0.17

Groups of 16 channels, 0.08 : 0.08 : 0.10, were slower as 64, 0.10 : 0.10 : 0.10, and stay. On other devices a
convolution is what is written.
"""

import math
from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
from jax import lax

_IMAGE = 4         # channels at most, of what is taken for an image
_ALIGNED = 16      # channels of blocks of pixels: a multiple of it
_NARROW = 8        # channels of a group at most that is merged with others
_MERGED = 64       # channels of a merged group


def conv(x: jax.Array, kernel: jax.Array, window_strides: tuple[int, int], padding, **options) -> jax.Array:
    """`jax.lax.conv_general_dilated` of (N, H, W, C) by (height, width, C / groups, features)."""
    plain = partial(lax.conv_general_dilated, window_strides=window_strides, padding=padding, **options)
    form = _form(x, kernel, window_strides, padding, options)
    return lax.platform_dependent(x, kernel, cuda=form, default=plain) if form else plain(x, kernel)


def _form(x, kernel, strides, padding, options) -> Callable | None:
    """(x, kernel) -> y, or None where what is written is best."""
    groups = options['feature_group_count']
    dilated = {*options['lhs_dilation'], *options['rhs_dilation']} != {1}
    if x.dtype.itemsize != 2 or x.ndim != 4 or dilated or isinstance(padding, str):
        return None
    width, features = kernel.shape[2], kernel.shape[3] // groups
    if groups > 1 and 1 < width <= _NARROW and features <= _NARROW:
        merged = math.gcd(groups, _MERGED // width)
        return partial(_merged, merged, strides, padding, options) if merged > 1 else None
    stride, _ = strides
    if groups == 1 and width <= _IMAGE and strides == (stride, stride) and 1 < stride < min(kernel.shape[:2]) and (
            x.shape[1] % stride == x.shape[2] % stride == 0):
        return partial(_blocks, stride, padding, options)
    return None


def _blocks(stride, padding, options, x, kernel):
    """By blocks of stride x stride pixels, which are the channels then, as one that does not stride."""
    n, *sides, c = x.shape
    windows, ahead, around = [], [], []
    for side, size, (low, high) in zip(sides, kernel.shape, padding, strict=False):
        front = -low % stride  # zeros ahead of the kernel, or its windows would begin within a block
        taps, out = -(-(size + front) // stride), (side + low + high - size) // stride + 1
        before = (low + front) // stride
        windows.append(taps)
        ahead.append((front, taps * stride - size - front))
        around.append((before, out - 1 + taps - side // stride - before))
    x = x.reshape(n, sides[0] // stride, stride, sides[1] // stride, stride, c).swapaxes(2, 3)
    kernel = jnp.pad(kernel, (*ahead, (0, 0), (0, 0)))
    kernel = kernel.reshape(windows[0], stride, windows[1], stride, c, -1).swapaxes(1, 2)
    channels = stride**2 * c
    fill = (0, -channels % _ALIGNED)
    x = jnp.pad(x.reshape(*x.shape[:3], channels), ((0, 0), (0, 0), (0, 0), fill))
    kernel = jnp.pad(kernel.reshape(*windows, channels, -1), ((0, 0), (0, 0), fill, (0, 0)))
    return lax.conv_general_dilated(x, kernel, (1, 1), around, **options)


def _merged(merged, strides, padding, options, x, kernel):
    """So many groups as one, by kernels that are 0 between them."""
    *window, width, features = kernel.shape
    groups = options['feature_group_count'] // merged
    kernel = kernel.reshape(*window, width, groups, merged, -1)
    kernel = jnp.einsum('hwigmo,nm->hwnigmo', kernel, jnp.eye(merged, dtype=kernel.dtype))
    return lax.conv_general_dilated(x, kernel.reshape(*window, merged * width, features), strides, padding,
                                    **options | {'feature_group_count': groups})
