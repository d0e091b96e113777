"""Norms: those that `config.model.norm` may name, and AlexNet's local response normalisation."""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp

from imagenet_jax.models.layers.dtypes import at_least_float32

# Name of the mesh axis that the data is split over; synchronous BatchNorm averages over it.
DATA_AXIS = 'data'
# Collection of the norms that training leaves alone: {path of the norm: {'norm': ()}}.
FROZEN = 'frozen'


class BatchNorm(nn.BatchNorm):
    """Flax's; uses and keeps its running statistics in training too where the collection FROZEN has an entry for it."""
    train: bool = False

    def __call__(self, x):
        return super().__call__(x, use_running_average=not self.train or self.has_variable(FROZEN, 'norm'))


# 'batch': statistics of the device's own images; 'sync': of the global batch.
NORMS = {'batch': BatchNorm, 'sync': partial(BatchNorm, axis_name=DATA_AXIS)}


def local_response_norm(x: jax.Array, k: float, n: int, alpha: float, beta: float) -> jax.Array:
    """x / (k + alpha * sum of squares over n neighbouring channels)**beta; AlexNet's paper, section 3.3.

    At least in float32, whose range the squares need.

    PyTorch's LocalResponseNorm averages instead of summing: its alpha is n times this one.
    """
    wide = at_least_float32(x)
    squares = jnp.pad(wide * wide, ((0, 0), (0, 0), (0, 0), (n // 2, (n - 1) // 2)))
    total = sum(squares[..., i:i + x.shape[-1]] for i in range(n))
    return (wide * (k + alpha * total)**-beta).astype(x.dtype)
