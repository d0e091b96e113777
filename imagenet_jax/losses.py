"""Losses, one value an example."""

import jax
import jax.numpy as jnp
import optax


def cross_entropy(logits: jax.Array, labels: jax.Array, smoothing: float = 0.0) -> jax.Array:
    """Softmax cross-entropy against smoothed one-hot targets (arXiv 1512.00567).

    Args:
      logits: (N, K) float.
      labels: (N,) int, 0..K-1.
      smoothing: eps; a target is 1 - eps + eps/K, every other class eps/K.

    Returns:
      (N,) in nats, float32 or, of float64 logits, float64.
    """
    logits = logits.astype(jnp.promote_types(logits.dtype, jnp.float32))
    targets = optax.smooth_labels(jax.nn.one_hot(labels, logits.shape[-1], dtype=logits.dtype), smoothing)
    return optax.softmax_cross_entropy(logits, targets)
