"""BatchNorm by a batch's statistics (arXiv 1502.03167), with what follows it: a shortcut, an activation.

Training is bound by how often devices read and write activations, and half of that is BatchNorm's. So its gradient is
written here, and not derived. It keeps the input alone, or what a block answers, which is kept anyhow; computes anew
what an activation's gradient needs of it; takes both of its sums in one pass, and rounds once, at the end.
"""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp

from imagenet_jax.models.layers.dtypes import at_least_float32

Activation = Callable[[jax.Array], jax.Array]


def affine(x: jax.Array, mean: jax.Array, slope: jax.Array, bias: jax.Array) -> jax.Array:
    """(x - mean) * slope + bias by channel, at least float32."""
    return (at_least_float32(x) - mean) * slope + bias


def finish(x: jax.Array, shortcut: jax.Array | None, act: Activation | None, dtype: jnp.dtype) -> jax.Array:
    """What follows the norm: the shortcut's sum and the activation, of `dtype`."""
    # In dtype: XLA would keep the sum of one block in float32, beside the rounded one, for the sum of the next.
    x = x if shortcut is None else x.astype(dtype) + shortcut
    return (act(x) if act else x).astype(dtype)


@partial(jax.custom_vjp, nondiff_argnums=(4, 5, 6, 7))
def batch_norm(x: jax.Array, shortcut: jax.Array | None, scale: jax.Array, bias: jax.Array, act: Activation | None,
               epsilon: float, axis_name: str | None, dtype: jnp.dtype) -> tuple[jax.Array, jax.Array, jax.Array]:
    """A map normalised by its own mean and variance, and what follows.

    Gradients go through the map alone: the statistics that are answered have none.

    Args:
      x: (N, ..., C).
      shortcut: a map of x's shape that is added before the activation, which has to be ReLU then; or None.
      scale, bias: (C,).
      act: of any shape, elementwise; or None.
      epsilon: added to the variance.
      axis_name: of the mesh axis that statistics are averaged over; None: they are of this device's images.
      dtype: of the answer.

    Returns:
      The map, and the mean and biased variance of x, (C,) each, at least float32.
    """
    return _forward(x, shortcut, scale, bias, act, epsilon, axis_name, dtype)[0]


def _forward(x, shortcut, scale, bias, act, epsilon, axis_name, dtype):
    wide, axes = at_least_float32(x), tuple(range(x.ndim - 1))
    mean, square = jnp.mean(wide, axes), jnp.mean(wide * wide, axes)
    if axis_name:
        mean, square = jax.lax.pmean((mean, square), axis_name)
    var = jnp.maximum(0.0, square - mean * mean)
    deviation = jax.lax.rsqrt(var + epsilon)
    y = finish(affine(x, mean, scale * deviation, bias), shortcut, act, dtype)
    # Which numbers a ReLU let through shows in its answer, whatever was added: then the shortcut need not be kept.
    answer = None if shortcut is None else y
    return (y, mean, var), (x, answer, scale, bias, mean, deviation)


def _backward(act, epsilon, axis_name, dtype, saved, cotangents):
    x, y, scale, bias, mean, deviation = saved
    count, slope = x.size // x.shape[-1], scale * deviation
    # Behind a barrier nothing is kept from the forward pass for what is cheaper to compute anew.
    x, y, g, mean, slope = jax.lax.optimization_barrier((x, y, cotangents[0], mean, slope))
    if y is not None:
        g = jnp.where(y > 0, g, jnp.zeros_like(g))

    def before_act(x, g):
        """The gradient of what the activation was given, at least float32."""
        g = at_least_float32(g)
        if y is not None or act is None:
            return g
        given = affine(x, mean, slope, bias)
        if act is jax.nn.relu:
            # A product: of a comparison XLA for GPUs makes a mask, and reckons that it is best written and read again.
            return g * jnp.sign(jax.nn.relu(given))
        return jax.vjp(act, given)[1](g)[0]

    wide, axes = before_act(x, g), tuple(range(x.ndim - 1))
    sums = jnp.sum(wide, axes), jnp.sum(wide * (at_least_float32(x) - mean), axes)
    # A second barrier, or the gradient so far would be written by the first pass, in float32, and read by the second.
    x, g, (total, product) = jax.lax.optimization_barrier((x, g, sums))
    d_bias, d_scale = total, product * deviation
    if axis_name:
        total, product = jax.lax.pmean((total, product), axis_name)
    dx = slope * (before_act(x, g) - total / count - (at_least_float32(x) - mean) * (product * deviation**2 / count))
    return (dx.astype(x.dtype), None if y is None else g, d_scale.astype(scale.dtype), d_bias.astype(bias.dtype))


batch_norm.defvjp(_forward, _backward)
