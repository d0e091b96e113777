"""Forms of a float32 convolution that are faster on a CPU than XLA's: matrix products, sums of shifted maps.

Each is of maps (N, ..., I) and a kernel (..., I, O), or for the gradient of a kernel as JAX writes that (I, ..., N) and
(..., N, O); `dot` is lax.dot_general at a precision. Sums are in another order: results agree to rounding. cpu_convs.py
has which form is for which shape.
"""

import functools
import itertools
import math
import operator
import re
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.interpreters import mlir

from imagenet_jax import runtime


def _part_bytes() -> int:
    """Of maps with their taps side by side, as much as is best multiplied at once: twice a core's second cache.

    Where that has 2 MiB, half as much was slower and twice as much no faster; where it has 1, the other way round.
    """
    file = Path('/sys/devices/system/cpu/cpu0/cache/index2/size')  # as Linux says it, in KiB
    kib = re.match(r'(\d+)K', file.read_text()) if file.is_file() else None
    return 2**11 * (int(kib[1]) if kib else 1024)


_PART_BYTES = _part_bytes()
_BLOCK = 32  # channels of several groups that are convolved as one
_WIDE = 128  # outputs of which a product is as fast as of all rows' together
# Before jaxlib 0.11 XLA computes a product of this size on one core: those by row are computed beside each other.
_ONE_CORE = (96, 96) if runtime.JAXLIB < (0, 11) else None


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


def lower(ctx, form: Callable, *operands):
    """What a rule of lowering answers where a form stands for the operation."""
    # Without what shard_map notes of a type: which devices differ in a value is settled by now.
    bare = [jax.core.ShapedArray(aval.shape, aval.dtype) for aval in ctx.avals_in]
    return mlir.lower_fun(form, multiple_results=False)(ctx.replace(avals_in=bare), *operands)


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


def shifted_taps(x, kernel, window, dot):
    """The sum over the kernel's taps of a product of all pixels that a tap meets."""
    over_channels = ((x.ndim - 1,), (0,)), ((), ())
    x, taps = window.padded(x), kernel.shape[:-2]
    return functools.reduce(operator.add, (
        dot(_slice(x, _steps(tap, window.kernel_dilation), window.strides, window.out), kernel[tap], over_channels)
        for tap in _grid(taps)))


def spread_taps(x, kernel, window, dot):
    """`shifted_taps` of a dilated map, whose zeros are not multiplied: each product is spread and shifted after it."""
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


def phases(x, kernel, window, dot):
    """Of a dilated map a convolution for each place that an output has between its pixels, by the taps that meet one.

    Zeros are not multiplied then. What each gives is spread, and the sum of all has each output once.
    """
    def along(axis, place):
        """The taps, and their window over the map as it is: padding and outputs."""
        (low, _), gap, side = window.padding[axis], window.map_dilation[axis], x.shape[axis + 1]
        first, out = (low - place) % gap, len(range(place, window.out[axis], gap))
        taps, before = range(first, kernel.shape[axis], gap), (low - place - first) // gap
        return slice(first, None, gap), len(taps), (before, out + len(taps) - 1 - side - before), out

    zero, parts = jnp.zeros((), x.dtype), []
    for places in _grid(window.map_dilation):
        taps, counts, padding, out = zip(*itertools.starmap(along, enumerate(places)), strict=True)
        if 0 in (*counts, *out):
            continue
        y = _conv(x, kernel[taps], window._replace(padding=padding, map_dilation=(1,) * len(places), out=out), dot)
        edges = [(place, size - place - (gap * (n - 1) + 1), gap - 1) for place, size, gap, n in zip(
            places, window.out, window.map_dilation, out, strict=True)]
        parts.append(lax.pad(y, zero, [(0, 0, 0), *edges, (0, 0, 0)]))
    return functools.reduce(operator.add, parts)


def rows_apart(x, kernel, window, dot):
    """A product for all rows of the kernel, as outputs side by side, which are then shifted and summed.

    XLA copies the pixels that each output meets: these are fewer for a kernel of one row, and each is used more often.
    """
    rows, inputs, outputs = kernel.shape[0], kernel.shape[-2], kernel.shape[-1]
    at_once = jnp.moveaxis(kernel, 0, -2).reshape(1, *kernel.shape[1:-2], inputs, rows * outputs)
    y = _conv(x, at_once, window, dot)
    starts = [row * window.kernel_dilation[0] for row in range(rows)]
    return functools.reduce(operator.add, (
        y[:, start:start + window.out[0], ..., row * outputs:(row + 1) * outputs] for row, start in enumerate(starts)))


def depthwise(x, kernel, window, dot):
    """The sum over the kernel's taps of shifted maps, each channel times its own weight."""
    x, taps = window.padded(x), kernel.shape[:-2]
    return functools.reduce(operator.add, (
        _slice(x, _steps(tap, window.kernel_dilation), window.strides, window.out) * kernel[tap][0]
        for tap in _grid(taps)))


def kernel_gradient(x, kernel, window, dot, add):
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


def of_channels(images, gradient, window, dot):
    """(n, ..., C) twice -> (taps, C): the kernel is depthwise."""
    images = window.padded(images)
    return jnp.stack([
        (_slice(images, _steps(tap, window.strides), window.kernel_dilation, gradient.shape[1:-1]) * gradient).sum(
            range(images.ndim - 1)) for tap in _grid(window.out)])


def _side_by_side(maps):
    """(..., C) each -> (..., maps * C)."""
    # Stacked: what jnp.concatenate makes of channels takes up to a twentieth of the whole longer.
    stacked = jnp.stack(maps, -2)
    return stacked.reshape(*stacked.shape[:-2], -1)


def of_all(images, gradient, window, dot):
    """(n, ..., I) and (n, ..., O) -> (rows of taps, taps of a row * I, O): of maps with a row's taps side by side."""
    # Behind a barrier: XLA would pad anew for each copy, pixel by pixel.
    images = lax.optimization_barrier(window.padded(images))
    (*steps, step), (*gaps, gap), (*rows, taps) = window.strides, window.kernel_dilation, window.out
    (*_, width, outputs), none, each = gradient.shape, (0,) * len(rows), (1,) * len(rows)
    beside = _side_by_side([
        _slice(images, (*none, tap * step), (*each, gap), (*images.shape[1:-2], width)) for tap in range(taps)])
    of_pixels = ((0,), (0,)), ((), ())  # one axis of them: of several XLA would make a transposed copy first
    # With the padding of maps rows are multiplied for which there is no gradient: how many more.
    more = math.prod(images.shape[1:-2]) / math.prod(gradient.shape[1:-2])
    by_row = (outputs >= _WIDE and more > 1.1) or (beside.shape[-1], outputs * math.prod(rows)) == _ONE_CORE
    if max(*steps, *gaps, 1) == 1 and not by_row:
        # One product for all rows of taps: gradients stand side by side too, each as far down as its row is.
        edges = [(count - 1, count - 1, 0) for count in rows]
        around = lax.optimization_barrier(lax.pad(
            gradient, jnp.zeros((), gradient.dtype), [(0, 0, 0), *edges, (0, 0, 0), (0, 0, 0)]))
        moved = _side_by_side([
            _slice(around, (*(count - 1 - at for at, count in zip(row, rows, strict=True)), 0), (*each, 1),
                   (*images.shape[1:-2], width)) for row in _grid(rows)])
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


def grouped(x, kernel, window, dot, groups):
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


def grouped_gradient(x, kernel, window, dot, groups):
    """The gradient of a grouped kernel, from maps (I, ..., N) and gradients (..., N, O): for each block of groups that
    of a kernel between all its channels, of which a part is taken."""
    inputs, outputs = len(x) // groups, kernel.shape[-1] // groups
    blocks = _blocks(groups, inputs, outputs)
    pair = [jnp.moveaxis(each.reshape(*each.shape[:-1], blocks, -1), -2, 0)
            for each in (jnp.moveaxis(x, (0, -1), (-1, 0)), jnp.moveaxis(kernel, -2, 0))]
    total = lax.map(lambda pair: _gradient(*pair, window, dot, of_all), pair)
    total = total.reshape(blocks, math.prod(window.out), groups // blocks, inputs, groups // blocks, outputs)
    return jnp.einsum('btmimo->itbmo', total).reshape(inputs, *window.out, -1)
