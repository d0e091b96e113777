"""Weights without training, and their comparison."""

import jax
import jax.numpy as jnp
import numpy as np


def random_variables(model, size=32, seed=0):
    """Variables with no two values alike, and statistics as a trained model has."""
    random = np.random.default_rng(seed)
    shapes = jax.eval_shape(lambda: model.init(jax.random.key(0), jnp.zeros((1, size, size, 3)), train=False))
    variables = jax.tree.map(lambda leaf: random.uniform(0.1, 1, leaf.shape).astype(np.float32), shapes)
    return {'params': {}, 'batch_stats': {}, **variables}


def assert_same(a, b):
    """Two trees of arrays, to the bit."""
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        assert x.dtype == y.dtype and x.shape == y.shape
        np.testing.assert_array_equal(x, y)
