"""Deformable convolution v2 (arXiv 1811.11168): where taps of a window look, and how much each counts, is learned."""

import itertools

import flax.linen as nn
import jax
import jax.numpy as jnp

from imagenet_jax.models.layers.dtypes import at_least_float32


class DeformableConv(nn.Module):
    """A convolution, padded by half its kernel and without bias, whose taps are moved and weighed at each pixel.

    A convolution of the same input, `conv_offset`, answers both: down and right of each tap, in pixels, then the logit
    of its weight. It starts at 0, so that the layer starts as half of the plain convolution. Its channels are ordered
    as in torchvision, Detectron2 and MMCV.

    Attributes:
      features, kernel, stride, groups: of the convolution.
      kernel_init: of its kernel, which has the name and the shape that nn.Conv's has.
      dtype, param_dtype: of the computation (places are computed in float32 at least), and of the parameters.
    """
    features: int
    kernel: int
    stride: int
    groups: int
    kernel_init: nn.initializers.Initializer
    dtype: jnp.dtype
    param_dtype: jnp.dtype

    @nn.compact
    def __call__(self, x):
        side, taps = self.kernel, self.kernel**2
        kernel = self.param('kernel', self.kernel_init, (side, side, x.shape[-1] // self.groups, self.features),
                            self.param_dtype)
        moves = nn.Conv(3 * taps, (side, side), (self.stride,) * 2, padding=side // 2, dtype=self.dtype,
                        kernel_init=nn.initializers.zeros, param_dtype=self.param_dtype, name='conv_offset')(x)
        moves = at_least_float32(moves)
        offset = moves[..., :2 * taps].reshape(*moves.shape[:3], taps, 2)
        mask = nn.sigmoid(moves[..., 2 * taps:])
        return deformable_conv(x, offset, mask, kernel.astype(self.dtype), self.stride, self.groups)


def deformable_conv(x: jax.Array, offset: jax.Array, mask: jax.Array, kernel: jax.Array, stride: int = 1,
                    groups: int = 1) -> jax.Array:
    """The convolution of (N, H, W, C) with moved and weighed taps; `torchvision.ops.deform_conv2d` with a mask.

    Args:
      x: the maps, taken for 0 outside.
      offset: (N, h, w, taps, 2), down and right, in pixels; at least float32. h and w are the answer's.
      mask: (N, h, w, taps), the weight of each tap; likewise.
      kernel: (k, k, C / groups, features), of as many taps, row by row, and of the dtype that is answered; k is odd and
        the padding k // 2.
    """
    side = kernel.shape[0]
    rows, columns = (jnp.arange(n, dtype=offset.dtype) * stride - side // 2 for n in offset.shape[1:3])
    pixels = jnp.stack(jnp.meshgrid(rows, columns, indexing='ij'), -1)
    taps = jnp.stack(jnp.meshgrid(*(jnp.arange(side, dtype=offset.dtype),) * 2, indexing='ij'), -1).reshape(-1, 2)
    kernel = kernel.reshape(len(taps), kernel.shape[2], groups, -1)
    return _convolve(x, pixels[:, :, None] + taps + offset, mask, kernel)


def _at_once(x, places, weights, kernel):
    """Of rows and columns (N, h, w, taps, 2), their weights, and a kernel (taps, C / groups, groups, features)."""
    seen = _bilinear(x, places, weights).astype(kernel.dtype)
    seen = seen.reshape(*weights.shape, kernel.shape[2], kernel.shape[1])
    return jnp.einsum('nhwtgc,tcgf->nhwgf', seen, kernel).reshape(*weights.shape[:3], -1)


_convolve = jax.custom_vjp(_at_once)


def _convolve_forward(*inputs):
    return _convolve(*inputs), inputs


def _convolve_backward(inputs, g):
    x, places, weights, kernel = inputs
    wide = at_least_float32(x)  # the sum over all that see a pixel

    def add(total, tap):
        _, pull = jax.vjp(_at_once, wide, *tap)
        gradient, *others = pull(g)
        return total + gradient, others

    # Tap by tap, and looking again: what all of them see is nine times as large as the map, and XLA's own gradient
    # reserves that ten times over.
    taps = jnp.moveaxis(places, 3, 0)[..., None, :], jnp.moveaxis(weights, 3, 0)[..., None], kernel[:, None]
    total, (of_places, of_weights, of_kernel) = jax.lax.scan(add, jnp.zeros_like(wide), taps)
    return (total.astype(x.dtype), jnp.moveaxis(of_places[..., 0, :], 0, 3), jnp.moveaxis(of_weights[..., 0], 0, 3),
            of_kernel[:, 0])


_convolve.defvjp(_convolve_forward, _convolve_backward)


def _bilinear(x, places, weights):
    """Of (N, H, W, C), at (N, ..., 2) rows and columns, times (N, ...) weights: (N, ..., C), at least float32."""
    n, height, width, c = x.shape
    pixels = at_least_float32(x).reshape(-1, c)
    size = jnp.array((height, width))
    places = jnp.clip(places, -2, size + 1)  # all 0 out there; and no place too far for a whole number
    first = jnp.floor(places)
    part = places - first
    images = jnp.arange(n).reshape(n, *(1,) * (places.ndim - 2)) * (height * width)
    total = 0
    for corner in itertools.product((0, 1), repeat=2):
        at = first.astype(jnp.int32) + jnp.array(corner)
        inside = ((at >= 0) & (at < size)).all(-1)
        share = jnp.where(jnp.array(corner) == 1, part, 1 - part).prod(-1)
        row, column = jnp.moveaxis(jnp.clip(at, 0, size - 1), -1, 0)
        values = pixels.at[images + row * width + column].get(mode='promise_in_bounds')
        total += values * jnp.where(inside, share * weights, 0)[..., None]
    return total
