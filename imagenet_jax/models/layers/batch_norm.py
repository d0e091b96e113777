"""BatchNorm by a batch's statistics (arXiv 1502.03167), with what follows it: a shortcut, an activation.

Training is bound by how often devices read and write activations, and half of that is BatchNorm's. So its gradient is
written here, and not derived. It keeps the input alone, or what a block answers, which is kept anyhow; computes anew
what an activation's gradient needs of it; takes its sums in one pass, and rounds once, at the end. Two norms whose
answers are added, a branch's and its shortcut's, are one.
"""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp

from imagenet_jax import runtime
from imagenet_jax.models.layers.activations import relu_of_sum
from imagenet_jax.models.layers.dtypes import at_least_float32

Activation = Callable[[jax.Array], jax.Array]

# Rows of a map (N * H * W) that XLA for GPUs sums in one step; of more it sums parts first.
_ONE_STEP = 4096
# Before jaxlib 0.11 XLA for CPUs sums by kernels of YNNPACK, which err little, but ahead of which it writes the map
# without its mean. Its own, which `runtime.configure_jax` asks for since, are given the product at once, the mean taken
# off or not, and round at each pixel: of maps far from 0 a sum would be less exact.
_WRITES_FIRST = runtime.JAXLIB < (0, 11)


def affine(x: jax.Array, mean: jax.Array, slope: jax.Array, bias: jax.Array) -> jax.Array:
    """(x - mean) * slope + bias by channel, at least float32."""
    return (at_least_float32(x) - mean) * slope + bias


def finish(x: jax.Array, shortcut: jax.Array | None, act: Activation | None, dtype: jnp.dtype) -> jax.Array:
    """What follows the norm: the shortcut's sum and the activation, of `dtype`."""
    # In dtype: XLA would keep the sum of one block in float32, beside the rounded one, for the sum of the next.
    if shortcut is None:
        return (act(x) if act else x).astype(dtype)
    x = x.astype(dtype) + shortcut
    return (relu_of_sum(x) if act else x).astype(dtype)


@partial(jax.custom_vjp, nondiff_argnums=(4, 5, 6, 7))
def batch_norm(maps: tuple[jax.Array, ...], shortcut: jax.Array | None, scales: tuple[jax.Array, ...],
               biases: tuple[jax.Array, ...], act: Activation | None, epsilon: float, axis_name: str | None,
               dtype: jnp.dtype) -> tuple[jax.Array, tuple[jax.Array, ...], tuple[jax.Array, ...]]:
    """A map normalised by its own mean and variance, or the sum of two that each are, and what follows.

    Gradients go through the maps alone: the statistics that are answered have none.

    Args:
      maps: one or two, (N, ..., C).
      shortcut: where there is one map, another of its shape that is added before the activation; or None.
      scales, biases: of each map, (C,).
      act: of any shape, elementwise; or None. ReLU where anything is added.
      epsilon: added to the variance.
      axis_name: of the mesh axis that statistics are averaged over; None: they are of this device's images.
      dtype: of the answer.

    Returns:
      The map, and the means and biased variances of `maps`, (C,) each, at least float32.
    """
    return _forward(maps, shortcut, scales, biases, act, epsilon, axis_name, dtype)[0]


def _forward(maps, shortcut, scales, biases, act, epsilon, axis_name, dtype):
    share = 1 / (maps[0].size // maps[0].shape[-1])
    wide = [at_least_float32(x) for x in maps]
    moments = [[total * share for total in _sums((x, x * x))] for x in wide]
    if axis_name:
        moments = jax.lax.pmean(moments, axis_name)
    means = tuple(mean for mean, _ in moments)
    variances = tuple(jnp.maximum(0.0, square - mean * mean) for mean, square in moments)
    deviations = tuple(jax.lax.rsqrt(var + epsilon) for var in variances)
    slopes = tuple(scale * deviation for scale, deviation in zip(scales, deviations, strict=True))
    x, *others = map(affine, maps, means, slopes, biases)
    shortcut = others[0].astype(dtype) if others else shortcut
    y = finish(x, shortcut, act, dtype)
    # Which numbers a ReLU let through shows in its answer, whatever was added: then the shortcut need not be kept.
    answer = None if shortcut is None else y
    return (y, means, variances), (maps, answer, scales, biases, means, deviations, slopes)


def _backward(act, epsilon, axis_name, dtype, saved, cotangents):
    maps, y, scales, biases, means, deviations, slopes = saved
    share = 1 / (maps[0].size // maps[0].shape[-1])
    # Behind a barrier nothing is kept from the forward pass for what is cheaper to compute anew.
    maps, y, g, means, deviations, slopes = jax.lax.optimization_barrier(
        (maps, y, cotangents[0], means, deviations, slopes))
    if y is not None:
        g = jnp.where(y > 0, g, jnp.zeros_like(g))

    def centered(maps):
        return [at_least_float32(x) - mean for x, mean in zip(maps, means, strict=True)]

    def before_act(maps, g):
        """The gradient of what the activation was given, at least float32."""
        g = at_least_float32(g)
        if y is not None or act is None:
            return g
        given = affine(maps[0], means[0], slopes[0], biases[0])
        if act in (jax.nn.relu, jax.nn.relu6):
            # A product: of a comparison XLA for GPUs makes a mask, and reckons that it is best written and read again.
            g = g * jnp.sign(jax.nn.relu(given))
            return g if act is jax.nn.relu else g * jnp.sign(jax.nn.relu(6 - given))
        return jax.vjp(act, given)[1](g)[0]

    wide = before_act(maps, g)
    sums = _gradient_sums(wide, maps, means, deviations)
    # A second barrier, or the gradient so far would be written by the first pass, in float32, and read by the second.
    maps, g, sums = jax.lax.optimization_barrier((maps, g, sums))
    d_bias, *d_scales = sums
    total, *products = jax.lax.pmean(sums, axis_name) if axis_name else sums
    # Vectors by channel are not multiplied by one another: XLA for GPUs would make a kernel of that.
    d_maps = tuple(
        ((before_act(maps, g) - (total + from_mean * deviation * product) * share) * slope).astype(x.dtype)
        for x, from_mean, deviation, product, slope in
        zip(maps, centered(maps), deviations, products, slopes, strict=True))
    return (d_maps, None if y is None or len(maps) == 2 else g,
            tuple(d.astype(scale.dtype) for d, scale in zip(d_scales, scales, strict=True)),
            tuple(d_bias.astype(bias.dtype) for bias in biases))


def _sums(maps):
    """By channel, of each of some maps (N, ..., C)."""
    return jax.lax.platform_dependent(maps, cuda=_sums_on_gpu, default=_plain_sums)


def _gradient_sums(g, maps, means, deviations):
    """By channel, of a gradient (N, ..., C), and of it times each of `maps` as that is when normalised."""
    return jax.lax.platform_dependent(g, maps, means, deviations, cuda=_gradient_sums_on_gpu,
                                      default=_gradient_sums_on_cpu)


def _plain_sums(maps):
    return tuple(jnp.sum(x, tuple(range(x.ndim - 1))) for x in maps)


def _gradient_sums_on_cpu(g, maps, means, deviations):
    if _WRITES_FIRST:  # so the mean is taken off the sum
        total, *others = _plain_sums((g, *(g * at_least_float32(x) for x in maps)))
        others = [other - mean * total for other, mean in zip(others, means, strict=True)]
    else:
        total, *others = _plain_sums((g, *(g * (at_least_float32(x) - mean) for x, mean in
                                           zip(maps, means, strict=True))))
    return total, *map(jax.lax.mul, others, deviations)


def _gradient_sums_on_gpu(g, maps, means, deviations):
    # Times the deviation here: of the sums that would be a kernel.
    return _sums_on_gpu((g, *(g * (at_least_float32(x) - mean) * deviation for x, mean, deviation in
                              zip(maps, means, deviations, strict=True))))


def _sums_on_gpu(maps):
    axes, zero = tuple(range(maps[0].ndim - 1)), jnp.zeros((), maps[0].dtype)
    if maps[0].size // maps[0].shape[-1] <= _ONE_STEP:
        # In one step XLA would first write what is summed, in float32.
        return tuple(jnp.sum(x, 0) for x in jax.lax.optimization_barrier([jnp.sum(x, axes[1:]) for x in maps]))
    if len(maps) == 2:  # else the second step would be a kernel for each; but three XLA would write first
        return tuple(jax.lax.reduce(maps, (zero, zero), lambda a, b: tuple(map(jax.lax.add, a, b)), axes))
    return _plain_sums(maps)


batch_norm.defvjp(_forward, _backward)
