"""float32 convolutions on a CPU: some as matrix products or as sums of shifted maps, where XLA's own are slow.

JAX lowers a convolution by a rule of its own for each platform; `register` puts one in the place of that for CPUs. What
is traced stays a convolution, and so do its gradients, which come here in turn. Programs for other devices are the same
as without, and so is the part for a GPU of one that is exported for both. Sums are in another order: results agree to
rounding.

What XLA's own took and what stands for it here, in ms on two cores (batches of 32 to 128, jaxlib 0.10.2):

  3x3 on 2x2 maps of 512 channels: forward 564 : 5.6, by the map 567 : 6.2, with stride 2 from 4x4 of 256, by the map
    118 : 4.7
  depthwise 3x3 on 32x32 maps of 144: forward 102 : 6.9, by the map 106 : 5.1, by the kernel 300 : 15
  3x3 with stride 2, by the map: from 16x16 maps of 32 channels to 16 9.0 : 4.7, from 16x16 of 128 to 64 15 : 10; on 64
    maps of 4x4 of 256, 3.1 : 2.7; 5x5 with stride 3, from 19x19 of 64 to 64, 16 : 7.9
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

import math
import operator
from collections.abc import Callable
from functools import partial

import numpy as np
from jax import lax
from jax._src.lax.convolution import _conv_general_dilated_lower  # JAX's own rule, which no public name gives
from jax.extend.core.primitives import conv_general_dilated_p
from jax.interpreters import mlir

from imagenet_jax.models.layers import cpu_forms

# A convolution as JAX registers it for CPUs.
plain = partial(_conv_general_dilated_lower, expand_complex_convolutions=True)
_MOST_TAPS = 49  # each is an operation of its own
_FEW, _FEWEST = 64, 16  # output channels, up to which XLA's own is slow; all channels, up to which it is another


def form(x: tuple, kernel: tuple, window: cpu_forms.Window, groups: int, batch_groups: int) -> Callable | None:
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
            return partial(cpu_forms.kernel_gradient, add=cpu_forms.of_channels)
        whole = max(window.map_dilation) == 1 and isinstance(x[0], int)
        return partial(cpu_forms.grouped_gradient, groups=batch_groups) if whole else None
    if groups > 1:
        if groups == x[-1] == kernel[-1] and math.prod(taps) <= _MOST_TAPS:
            return cpu_forms.depthwise
        return partial(cpu_forms.grouped, groups=groups)
    if math.prod(taps) > 1:
        if places == 1 or _sums_many(x, kernel, window):
            return partial(cpu_forms.kernel_gradient, add=cpu_forms.of_all)
        few = kernel[-1] <= _FEW and max(x[-1], kernel[-1]) > _FEWEST and places > math.prod(taps)
        if few and taps[0] > 1 and window.strides[0] == 1 and not dilated:
            return cpu_forms.rows_apart
        if math.prod(taps) > _MOST_TAPS or not any(map(operator.gt, taps, x[1:-1])):
            return cpu_forms.phases if dilated and max(*window.strides, *window.kernel_dilation) == 1 else None
    if not dilated:
        return cpu_forms.shifted_taps
    return cpu_forms.spread_taps if max(window.strides) == 1 else None


def _sums_many(x, kernel, window):
    """Whether it is the gradient of a kernel that is small beside the maps, from (I, ..., N) and (..., N, O)."""
    taps, places = kernel[:-2], math.prod(window.out)
    return 1 < places < math.prod(taps) and not any(map(operator.gt, taps, x[1:-1])) and (
        math.prod(window.out[:-1]) <= _MOST_TAPS and max(window.map_dilation) == 1 and isinstance(x[0], int)
        and x[-1] * math.prod(taps) > 8 * max(x[0], kernel[-1]))


def _lower(ctx, x, kernel, **options):
    """JAX's rule of lowering a convolution, for CPUs."""
    found = _chosen(*ctx.avals_in, *ctx.avals_out, options)
    return cpu_forms.lower(ctx, found, x, kernel) if found else plain(ctx, x, kernel, **options)


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
    window = cpu_forms.Window(tuple(map(tuple, options['padding'])), *(tuple(options[name]) for name in (
        'window_strides', 'lhs_dilation', 'rhs_dilation')), out[1:-1])
    chosen = form(shape, kernel_shape, window, options['feature_group_count'], options['batch_group_count'])
    dot = partial(lax.dot_general, precision=options['precision'])
    return chosen and (lambda x, kernel: chosen(
        x.transpose(order), kernel.transpose(kernel_order), window, dot).transpose(np.argsort(out_order)))


def register() -> None:
    """From here on this process lowers convolutions for CPUs so."""
    mlir.register_lowering(conv_general_dilated_p, _lower, platform='cpu')
