"""float32 convolutions on a CPU: some as matrix products or as sums of shifted maps, where XLA's own are slow.

JAX lowers a convolution by a rule of its own for each platform; `register` puts one in the place of that for CPUs. What
is traced stays a convolution, and so do its gradients, which come here in turn. Programs for other devices are the same
as without, and so is the part for a GPU of one that is exported for both. Sums are in another order: results agree to
rounding.

What XLA's own took and what stands for it here, in ms on two cores (batches of 32 to 128, jaxlib 0.10.2):

  3x3 on 2x2 maps of 512 channels: forward 564 : 5.6, by the map 567 : 6.2, with stride 2 from 4x4 of 256, by the map
    118 : 4.7
  depthwise 3x3 on 32x32 maps of 144: forward 102 : 6.9, by the map 106 : 5.1, by the kernel 300 : 15
  1x1 on 32x32 maps, 24 to 144 channels: forward 9.9 : 5.5, by the map 6.3 : 1.5; on 64x64, 16 to 96, by the kernel
    60 : 2.3
  3x3 to 64 channels or fewer, all rows of the kernel at once: 32x32 maps of 64 14 : 7.9, 8x8 of 64 4.0 : 2.6, 5x5 on
    27x27 from 192 to 64 86 : 52; but 32x32 of 16 3.8 : 4.9, and to 128 channels and more within a fifth of each other
  by the kernel, where maps have many pixels for their channels: 3x3 on 32x32 of 64 66 : 19, of 16 21 : 8.4, on 16x16
    of 128 21 : 14, 7x7 with stride 2 76 : 27, 11x11 with stride 4 122 : 51; but on 8x8 maps of 256, 16 images, 4.5 : 5
  grouped, 3x3 on 32x32 maps of 128 channels in 32 groups, 8 images: forward 42 : 7.1, by the map 42 : 6.1, by the
    kernel 2236 : 11; 5x5 on 27x27 from 96 to 256 in 2, 16 images: 124 : 37, 326 : 44, 502 : 71

docs/speed.md has what was no faster.
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
_PART_BYTES = 2**22  # of maps with their taps side by side; 2 MB were slower, 8 no faster
_BLOCK = 32  # channels of several groups that are convolved as one
_FEW, _FEWEST = 64, 16  # output channels, up to which XLA's own is slow; all channels, up to which it is another


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


def _conv(x, kernel, window, dot):
    """The convolution once more, of this module's own forms and XLA's the fastest for what it has become."""
    spatial = tuple(range(1, x.ndim - 1))
    maps, weights = (0, x.ndim - 1, *spatial), (x.ndim - 1, x.ndim - 2, *(i - 1 for i in spatial))
    return lax.conv_general_dilated(
        x, kernel, window.strides, window.padding, window.map_dilation, window.kernel_dilation,
        lax.ConvDimensionNumbers(maps, weights, maps), precision=dot.keywords['precision'])


def _dilated_first(x, kernel, window, dot):
    """Of a dilated map, which is dilated and padded before: XLA's own is slow where it does so itself."""
    done = {'padding': [(0, 0)] * len(window.padding), 'map_dilation': (1,) * len(window.padding)}
    return _conv(window.padded(x), kernel, window._replace(**done), dot)


def _rows_apart(x, kernel, window, dot):
    """A product for all rows of the kernel, as outputs side by side, which are then shifted and summed.

    XLA copies the pixels that each output meets: these are fewer for a kernel of one row, and each is used more often.
    """
    rows, inputs, outputs = kernel.shape[0], kernel.shape[-2], kernel.shape[-1]
    at_once = jnp.moveaxis(kernel, 0, -2).reshape(1, *kernel.shape[1:-2], inputs, rows * outputs)
    y = _conv(x, at_once, window, dot)
    starts = [row * window.kernel_dilation[0] for row in range(rows)]
    return functools.reduce(operator.add, (
        y[:, start:start + window.out[0], ..., row * outputs:(row + 1) * outputs] for row, start in enumerate(starts)))


def _depthwise(x, kernel, window, dot):
    """The sum over the kernel's taps of shifted maps, each channel times its own weight."""
    x, taps = window.padded(x), kernel.shape[:-2]
    return functools.reduce(operator.add, (
        _slice(x, _steps(tap, window.kernel_dilation), window.strides, window.out) * kernel[tap][0]
        for tap in _grid(taps)))


def _kernel_gradient(x, kernel, window, dot, add):
    """The gradient of a kernel, from maps (I, ..., N) and gradients (..., N, O), by `_gradient`."""
    total = _gradient(jnp.moveaxis(x, (0, -1), (-1, 0)), jnp.moveaxis(kernel, -2, 0), window, dot, add)
    return jnp.moveaxis(total.reshape(*window.out, -1, kernel.shape[-1]), -2, 0)


def _gradient(images, gradients, window, dot, add):
    """The gradient of a kernel, from maps (N, ..., I) and gradients (N, ..., O): `add` of some images, summed.

    A few images at a time stay in the cache: all at once take twice as long. Their pixels are in the order of the
    maps that the gradient is of, so that nothing is transposed.
    """
    count, most = len(images), _PART_BYTES * len(images) // (images.nbytes * window.out[-1])
    part = next(part for part in range(max(1, min(count, max(2, most))), 0, -1) if count % part == 0)
    if math.prod(window.out) == 1:
        part = count

    def of_part(index):
        # A slice of the whole: of maps cut into parts beforehand XLA would compute a copy, from what they come from.
        return add(*(lax.dynamic_slice_in_dim(each, index * part, part) for each in (images, gradients)), window, dot)
    zero = jnp.zeros(jax.eval_shape(of_part, 0).shape, images.dtype)
    return lax.fori_loop(0, count // part, lambda index, total: total + of_part(index), zero)


def _of_channels(images, gradient, window, dot):
    """(n, ..., C) twice -> (taps, C): the kernel is depthwise."""
    images = window.padded(images)
    return jnp.stack([
        (_slice(images, _steps(tap, window.strides), window.kernel_dilation, gradient.shape[1:-1]) * gradient).sum(
            range(images.ndim - 1)) for tap in _grid(window.out)])


def _of_all(images, gradient, window, dot):
    """(n, ..., I) and (n, ..., O) -> (rows of taps, taps of a row * I, O): of maps with a row's taps side by side."""
    images = window.padded(images)
    (*steps, step), (*gaps, gap), (*rows, taps) = window.strides, window.kernel_dilation, window.out
    (*_, width, outputs), none, each = gradient.shape, (0,) * len(rows), (1,) * len(rows)
    beside = jnp.concatenate([
        _slice(images, (*none, tap * step), (*each, gap), (*images.shape[1:-2], width))
        for tap in range(taps)], -1)
    of_pixels = ((0,), (0,)), ((), ())  # one axis of them: of several XLA would make a transposed copy first
    if max(*steps, *gaps, 1) == 1:
        # One product for all rows of taps: gradients stand side by side too, each as far down as its row is.
        zero = jnp.zeros((), gradient.dtype)
        moved = jnp.concatenate([
            lax.pad(gradient, zero, [(0, 0, 0), *((at, count - 1 - at, 0) for at, count in zip(row, rows, strict=True)),
                                     (0, 0, 0), (0, 0, 0)]) for row in _grid(rows)], -1)
        both = dot(beside.reshape(-1, beside.shape[-1]), moved.reshape(-1, moved.shape[-1]), of_pixels)
        return jnp.moveaxis(both.reshape(len(both), -1, outputs), 1, 0)

    def product(row):
        met = _slice(beside, (*_steps(row, steps), 0), (*gaps, 1), gradient.shape[1:-1])
        pair = met.reshape(-1, met.shape[-1]), gradient.reshape(-1, outputs)
        if met.shape[-1] < outputs:  # the first is transposed, so it is the narrower
            return dot(*pair, of_pixels)
        return dot(*pair[::-1], of_pixels).T
    return jnp.stack([product(row) for row in _grid(rows)])


def _blocks(groups, *widths):
    """Into how many blocks groups are joined, where one may have as many channels as `widths` says."""
    return groups // max(n for n in range(1, groups + 1) if groups % n == 0 and (n == 1 or n * max(widths) <= _BLOCK))


def _grouped(x, kernel, window, dot, groups):
    """A convolution for each block of groups, by a kernel that is 0 between them."""
    *taps, inputs, outputs = kernel.shape
    blocks = _blocks(groups, inputs, outputs // groups)
    joined = groups // blocks
    kernel = kernel.reshape(*taps, inputs, blocks, joined, -1)
    kernel = jnp.einsum('...ibmo,nm->b...nimo', kernel, jnp.eye(joined, dtype=kernel.dtype))
    kernel = kernel.reshape(blocks, *taps, joined * inputs, -1)
    x = jnp.moveaxis(x.reshape(*x.shape[:-1], blocks, -1), -2, 0)
    y = lax.map(lambda pair: _conv(*pair, window, dot), (x, kernel))
    return jnp.moveaxis(y, 0, -2).reshape(*y.shape[1:-1], outputs)


def _grouped_gradient(x, kernel, window, dot, groups):
    """The gradient of a grouped kernel, from maps (I, ..., N) and gradients (..., N, O): for each block of groups that
    of a kernel between all its channels, of which a part is taken."""
    inputs, outputs = len(x) // groups, kernel.shape[-1] // groups
    blocks = _blocks(groups, inputs, outputs)
    pair = [jnp.moveaxis(each.reshape(*each.shape[:-1], blocks, -1), -2, 0)
            for each in (jnp.moveaxis(x, (0, -1), (-1, 0)), jnp.moveaxis(kernel, -2, 0))]
    total = lax.map(lambda pair: _gradient(*pair, window, dot, _of_all), pair)
    total = total.reshape(blocks, math.prod(window.out), groups // blocks, inputs, groups // blocks, outputs)
    return jnp.einsum('btmimo->itbmo', total).reshape(inputs, *window.out, -1)


def form(x: tuple, kernel: tuple, window: Window, groups: int, batch_groups: int) -> Callable | None:
    """The form that is fastest for these shapes, (N, ..., I) and (..., I, O); None: XLA's own.

    Args:
      groups, batch_groups: that the features, or the images, are cut into; the latter is how JAX writes the gradient of
        a grouped kernel.
    """
    taps, places, dilated = kernel[:-2], math.prod(window.out), max(window.map_dilation) > 1
    if batch_groups > 1:
        if places > _MOST_TAPS:
            return None
        if batch_groups == x[0] == kernel[-1]:
            return partial(_kernel_gradient, add=_of_channels)
        whole = max(window.map_dilation) == 1 and isinstance(x[0], int)
        return partial(_grouped_gradient, groups=batch_groups) if whole else None
    if groups > 1:
        if groups == x[-1] == kernel[-1] and math.prod(taps) <= _MOST_TAPS:
            return _depthwise
        return partial(_grouped, groups=groups)
    if math.prod(taps) > 1:
        if places == 1 or _sums_many(x, kernel, window):
            return partial(_kernel_gradient, add=_of_all)
        few = kernel[-1] <= _FEW and max(x[-1], kernel[-1]) > _FEWEST and places > math.prod(taps)
        if few and taps[0] > 1 and window.strides[0] == 1 and not dilated:
            return _rows_apart
        if math.prod(taps) > _MOST_TAPS or not any(map(operator.gt, taps, x[1:-1])):
            return _dilated_first if dilated and kernel[-1] > _FEW else None
    if not dilated:
        return _taps
    return _spread_taps if max(window.strides) == 1 else None


def _sums_many(x, kernel, window):
    """Whether it is the gradient of a kernel that is small beside the maps, from (I, ..., N) and (..., N, O)."""
    taps, places = kernel[:-2], math.prod(window.out)
    return 1 < places < math.prod(taps) and not any(map(operator.gt, taps, x[1:-1])) and (
        math.prod(window.out[:-1]) <= _MOST_TAPS and max(window.map_dilation) == 1 and isinstance(x[0], int)
        and x[-1] * math.prod(taps) > 8 * max(x[0], kernel[-1]))


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
