"""float32 convolutions on a CPU: some as matrix products or as sums of shifted maps, where XLA's own are slow.

JAX lowers a convolution by a rule of its own for each platform; `register` puts one in the place of that for CPUs. What
is traced stays a convolution, and so do its gradients, which come here in turn. Programs for other devices are the same
as without, and so is the part for a GPU of one that is exported for both. Sums are in another order: results agree to
rounding.

What XLA's own took and what stands for it here, in ms on two cores (batches of 32 or 64, jaxlib 0.10.2):

  3x3 on 2x2 maps of 512 channels: forward 564 : 5.6, by the map 567 : 6.2, with stride 2 from 4x4 of 256, by the map
    118 : 4.7
  depthwise 3x3 on 32x32 maps of 144: forward 102 : 6.9, by the map 106 : 5.1, by the kernel 300 : 37
  1x1 on 32x32 maps, 24 to 144 channels: forward 9.9 : 5.5, by the map 6.3 : 1.5, by the kernel 17 : 4.5
  3x3 on 16x16 maps, 64 to 64 channels: by the kernel 37 : 17, but forward 8.7 : 17, and by the kernel of 128 to 128 7
    : 9, so that these stay XLA's

What is left out was no faster: patches and one product for a whole batch, and the stem's convolution by any form.
"""

import functools
import itertools
import math
import operator
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax._src.lax.convolution import _conv_general_dilated_lower  # JAX's own rule, which no public name gives
from jax.extend.core.primitives import conv_general_dilated_p
from jax.interpreters import mlir

# A convolution as JAX registers it for CPUs.
plain = partial(_conv_general_dilated_lower, expand_complex_convolutions=True)
_MOST_TAPS = 49  # each is an operation of its own
_PART_BYTES = 2**19  # of maps, which a core's cache keeps while the taps go over them
_FEW = 64  # output channels, up to which XLA's gradient of a kernel is slow


class Window(NamedTuple):
    """How a kernel moves over a map: a number an axis of each; of `padding`, which may be negative, pairs."""
    padding: tuple
    strides: tuple
    map_dilation: tuple
    kernel_dilation: tuple
    out: tuple

    def padded(self, x: jax.Array) -> jax.Array:
        """The map dilated, with zeros around it."""
        edges = [(*pad, gap - 1) for pad, gap in zip(self.padding, self.map_dilation, strict=True)]
        return lax.pad(x, jnp.zeros((), x.dtype), [(0, 0, 0), *edges, (0, 0, 0)])


def _steps(index, step):
    """Each axis's index times its step."""
    return tuple(map(operator.mul, index, step))


def _grid(shape):
    """All indices of a shape."""
    return itertools.product(*map(range, shape))


def _slice(x, start, steps, shape):
    """Of each image the pixels from `start`, `steps` apart, `shape` of them."""
    ends = [i + step * (n - 1) + 1 for i, step, n in zip(start, steps, shape, strict=True)]
    return lax.slice(x, (0, *start, 0), (x.shape[0], *ends, x.shape[-1]), (1, *steps, 1))


# Forms of a convolution: (N, ..., I) and (..., I, O) -> (N, ..., O), `dot` being lax.dot_general at its precision.


def _taps(x, kernel, window, dot):
    """The sum over the kernel's taps of a product of all pixels that a tap meets."""
    over_channels = ((x.ndim - 1,), (0,)), ((), ())
    x, taps = window.padded(x), kernel.shape[:-2]
    return functools.reduce(operator.add, (
        dot(_slice(x, _steps(tap, window.kernel_dilation), window.strides, window.out), kernel[tap], over_channels)
        for tap in _grid(taps)))


def _spread_taps(x, kernel, window, dot):
    """`_taps` of a dilated map, whose zeros are not multiplied: each tap's product is spread and shifted after it."""
    over_channels, zero = (((x.ndim - 1,), (0,)), ((), ())), jnp.zeros((), x.dtype)

    def spread(tap):
        edges = []
        for i, (low, _), gap, side, out in zip(_steps(tap, window.kernel_dilation), window.padding,
                                               window.map_dilation, x.shape[1:-1], window.out, strict=True):
            edges.append((low - i, out - (low - i) - (gap * (side - 1) + 1), gap - 1))
        return lax.pad(dot(x, kernel[tap], over_channels), zero, [(0, 0, 0), *edges, (0, 0, 0)])
    return functools.reduce(operator.add, map(spread, _grid(kernel.shape[:-2])))


def _one_place(x, kernel, window, dot):
    """One product, where the kernel is in one place only: so the gradient of a 1x1 kernel."""
    met = _slice(window.padded(x), (0,) * len(window.out), window.kernel_dilation, kernel.shape[:-2])
    y = dot(met, kernel, ((tuple(range(1, x.ndim)), tuple(range(kernel.ndim - 1))), ((), ())))
    return y.reshape(x.shape[0], *window.out, -1)


def _depthwise(x, kernel, window, dot):
    """The sum over the kernel's taps of shifted maps, each channel times its own weight."""
    x, taps = window.padded(x), kernel.shape[:-2]
    return functools.reduce(operator.add, (
        _slice(x, _steps(tap, window.kernel_dilation), window.strides, window.out) * kernel[tap][0]
        for tap in _grid(taps)))


def _kernel_gradient(x, kernel, window, dot, product):
    """The gradient of a kernel, from maps (I, ..., N) and gradients (..., N, O): a product for each tap, summed.

    A few images at a time stay in the cache: all at once take twice as long.
    """
    images, gradients = jnp.moveaxis(window.padded(x), (0, -1), (-1, 0)), jnp.moveaxis(kernel, -2, 0)
    count, most = len(images), _PART_BYTES * len(images) // images.nbytes
    part = next(part for part in range(max(1, min(count, most)), 0, -1) if count % part == 0)
    images, gradients = (each.reshape(-1, part, *each.shape[1:]) for each in (images, gradients))

    def add(total, pair):
        images, gradient = pair
        return total + jnp.stack([
            product(_slice(images, _steps(tap, window.strides), window.kernel_dilation, gradient.shape[1:-1]), gradient,
                    dot) for tap in _grid(window.out)]), None
    total = jnp.zeros(jax.eval_shape(add, 0.0, (images[0], gradients[0]))[0].shape, x.dtype)
    total, _ = lax.scan(add, total, (images, gradients))
    return jnp.moveaxis(total.reshape(*window.out, -1, kernel.shape[-1]), -2, 0)


def _of_channels(x, gradient, dot):
    """(n, ..., C) twice -> (C,): the kernel is depthwise."""
    return (x * gradient).sum(range(x.ndim - 1))


def _of_all(x, gradient, dot):
    """(n, ..., I) and (n, ..., O) -> (I, O)."""
    pixels = tuple(range(x.ndim - 1))
    return dot(x, gradient, ((pixels, pixels), ((), ())))


def form(x: tuple, kernel: tuple, window: Window, groups: int, batch_groups: int) -> Callable | None:
    """The form that is fastest for these shapes, (N, ..., I) and (..., I, O); None: XLA's own.

    Args:
      groups, batch_groups: that the features, or the images, are cut into; the latter is how JAX writes the gradient of
        a grouped kernel.
    """
    taps, places, dilated = kernel[:-2], math.prod(window.out), max(window.map_dilation) > 1
    if batch_groups > 1:
        depthwise = batch_groups == x[0] == kernel[-1] and places <= _MOST_TAPS
        return partial(_kernel_gradient, product=_of_channels) if depthwise else None
    if groups > 1:
        return _depthwise if groups == x[-1] == kernel[-1] and math.prod(taps) <= _MOST_TAPS else None
    if math.prod(taps) > 1:
        if places == 1:
            return _one_place
        if 1 < places <= 9 < math.prod(taps) and x[0] >= 16 and kernel[-1] <= _FEW:
            return partial(_kernel_gradient, product=_of_all)
        if math.prod(taps) > _MOST_TAPS or not any(map(operator.gt, taps, x[1:-1])):
            return None
    if not dilated:
        return _taps
    return _spread_taps if max(window.strides) == 1 else None


def _lower(ctx, x, kernel, **options):
    """JAX's rule of lowering a convolution, for CPUs."""
    found = _chosen(*ctx.avals_in, *ctx.avals_out, options)
    if not found:
        return plain(ctx, x, kernel, **options)
    # Without what shard_map notes of a type: which devices differ in a value is settled by now.
    bare = [jax.core.ShapedArray(aval.shape, aval.dtype) for aval in ctx.avals_in]
    return mlir.lower_fun(found, multiple_results=False)(ctx.replace(avals_in=bare), x, kernel)


def _chosen(x, kernel, y, options) -> Callable | None:
    """(x, kernel) -> y by the fastest form, in the axes that the options of the convolution name; None: XLA's."""
    order, kernel_order, out_order = ((first, *spatial, second) for first, second, *spatial in
                                      options['dimension_numbers'])
    kernel_order = (*kernel_order[1:], kernel_order[0])
    shape, kernel_shape, out = (tuple(aval.shape[i] for i in axes) for aval, axes in
                                ((x, order), (kernel, kernel_order), (y, out_order)))
    fixed = *shape[1:], *kernel_shape  # a batch of any size, in a program to be exported, may be the first
    if any(aval.dtype != np.float32 for aval in (x, kernel, y)) or len(shape) < 3 or 0 in (*shape, *fixed, *out) or (
            not all(isinstance(n, int) for n in fixed)):
        return None
    window = Window(tuple(map(tuple, options['padding'])), *(tuple(options[name]) for name in (
        'window_strides', 'lhs_dilation', 'rhs_dilation')), out[1:-1])
    chosen = form(shape, kernel_shape, window, options['feature_group_count'], options['batch_group_count'])
    dot = partial(lax.dot_general, precision=options['precision'])
    return chosen and (lambda x, kernel: chosen(
        x.transpose(order), kernel.transpose(kernel_order), window, dot).transpose(np.argsort(out_order)))


def register() -> None:
    """From here on this process lowers convolutions for CPUs so."""
    mlir.register_lowering(conv_general_dilated_p, _lower, platform='cpu')
