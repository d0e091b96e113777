"""The losses against numpy, in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from imagenet_jax import losses


def reference(logits, labels, smoothing):
    """Mean over classes of eps / K each, and the rest on the label."""
    logits = logits.astype(np.float64)
    shifted = logits - logits.max(1, keepdims=True)
    log_p = shifted - np.log(np.exp(shifted).sum(1, keepdims=True))
    of_label = log_p[np.arange(len(labels)), labels]
    return -((1 - smoothing) * of_label + smoothing * log_p.mean(1))


@pytest.mark.parametrize('smoothing', [0.0, 0.1, 0.9])
def test_agrees_with_numpy(smoothing):
    rng = np.random.default_rng(0)
    logits, labels = rng.normal(0, 3, (6, 7)).astype(np.float32), rng.integers(7, size=6)
    loss = losses.cross_entropy(jnp.asarray(logits), jnp.asarray(labels), smoothing)
    assert loss.shape == (6,)
    np.testing.assert_allclose(loss, reference(logits, labels, smoothing), rtol=1e-5)


def test_large_logits_do_not_overflow():
    loss = losses.cross_entropy(jnp.array([[1e4, -1e4], [1e4, -1e4]]), jnp.array([0, 1]))
    np.testing.assert_allclose(loss, [0.0, 2e4], rtol=1e-6)


@pytest.mark.parametrize('dtype', [jnp.bfloat16, jnp.float16])
def test_is_computed_in_float32(dtype):
    logits = jnp.array([[3.0, 1.0, -2.0]], dtype)  # exact in either
    loss = losses.cross_entropy(logits, jnp.array([1]))
    assert loss.dtype == jnp.float32
    np.testing.assert_allclose(loss, reference(np.array([[3.0, 1.0, -2.0]]), np.array([1]), 0.0), rtol=1e-6)


# --- several classes an image


def test_sigmoid_agrees_with_numpy_and_leaves_nan_out():
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 3, (6, 7)).astype(np.float32)
    labels = rng.integers(2, size=(6, 7)).astype(np.float32)
    labels[rng.random((6, 7)) < 0.3] = np.nan
    labels[5] = np.nan
    p = 1 / (1 + np.exp(-logits.astype(np.float64)))
    for smoothing in (0.0, 0.2):
        targets = np.where(labels == 1, 1 - smoothing / 2, smoothing / 2)
        each = np.where(np.isnan(labels), 0, -targets * np.log(p) - (1 - targets) * np.log1p(-p))
        expected = each.sum(1) / np.maximum((~np.isnan(labels)).sum(1), 1)
        loss = losses.sigmoid_cross_entropy(jnp.asarray(logits), jnp.asarray(labels), smoothing)
        assert loss.dtype == jnp.float32 and loss[5] == 0
        np.testing.assert_allclose(loss, expected, rtol=1e-5)


def test_sigmoid_gradient_is_zero_where_a_class_is_not_counted():
    labels = jnp.array([[1.0, jnp.nan, 0.0]])
    gradient = jax.grad(lambda logits: losses.sigmoid_cross_entropy(logits, labels).sum())(jnp.zeros((1, 3)))
    np.testing.assert_allclose(gradient, [[-0.25, 0.0, 0.25]])


def test_accuracy():
    logits = jnp.array([[3.0, -1.0, 2.0], [-1.0, 2.0, 0.5]])
    np.testing.assert_array_equal(losses.accuracy(logits, jnp.array([0, 2])), [1, 0])
    labels = jnp.array([[1.0, 0.0, 0.0], [1.0, 1.0, jnp.nan]])
    np.testing.assert_allclose(losses.accuracy(logits, labels), [2 / 3, 1 / 2])
