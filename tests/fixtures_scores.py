"""Scores and labels of several classes an image."""

import numpy as np


def drawn(n, k, seed=0):
    """Scores with ties, labels with 1 less often than 0, some not counted."""
    rng = np.random.default_rng(seed)
    labels = (rng.random((n, k)) < 0.3).astype(np.float32)
    labels[rng.random((n, k)) < 0.1] = np.nan
    return rng.integers(-9, 10, (n, k)).astype(np.float32) / 3, labels
