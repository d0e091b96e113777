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


def sigmoid_cross_entropy(logits: jax.Array, labels: jax.Array, smoothing: float = 0.0) -> jax.Array:
    """Cross-entropy of each class by itself, present or not; the mean over an example's counted classes.

    Args:
      logits: (N, K) float.
      labels: (N, K) float of 0 and 1; NaN where a class is not counted.
      smoothing: eps; a target is 1 - eps/2 for 1 and eps/2 for 0, as `cross_entropy` has it for two classes.

    Returns:
      (N,) float32, in nats a class; 0 where an example has no counted class.
    """
    # NaN is replaced before the loss, not masked after it: its gradient would be NaN all the same.
    targets = jnp.nan_to_num(labels) * (1 - smoothing) + smoothing / 2
    return _mean_of_counted(optax.sigmoid_binary_cross_entropy(logits.astype(jnp.float32), targets), labels)


def accuracy(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """Whether each example's largest logit is its label; for labels (N, K), its fraction of right signs.

    Args:
      logits: (N, K) float.
      labels: (N,) int, or (N, K) float as `sigmoid_cross_entropy` takes them; NaN is left out.

    Returns:
      (N,) float32.
    """
    if labels.ndim == 1:
        return (logits.argmax(-1) == labels).astype(jnp.float32)
    return _mean_of_counted((logits > 0) == (labels == 1), labels)


def _mean_of_counted(values, labels) -> jax.Array:
    counted = ~jnp.isnan(labels)
    return jnp.where(counted, values, 0).sum(-1, dtype=jnp.float32) / jnp.maximum(counted.sum(-1), 1)


# config.loss -> (logits, labels, smoothing) -> (N,) float32.
LOSSES = {'softmax': cross_entropy, 'sigmoid': sigmoid_cross_entropy}
