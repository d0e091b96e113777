"""How far a model's confidence is from how often it is right."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

BINS = 15


class Calibration(NamedTuple):
    """Images by the probability of the class predicted, in `BINS` bins of equal width (arXiv 1706.04599).

    Bin m of M, from 1, has those in ((m - 1)/M, m/M]; the first has 0 too: of an image without an answer, which is
    unreadable or not finite and counts as wrong.

    Attributes:
      images, right: int (M,): how many, and of these how many were predicted right.
      confidence: float (M,): their probabilities added up.
    """
    images: np.ndarray
    right: np.ndarray
    confidence: np.ndarray

    @property
    def error(self) -> float:
        """Expected calibration error, in 0..1: |accuracy - mean confidence| of each bin, weighted by its images."""
        gaps = np.abs(np.asarray(self.right, np.float64) - self.confidence)
        return float(gaps.sum() / np.sum(self.images))


def binned(confidence: jax.Array, right: jax.Array, mask: jax.Array) -> Calibration:
    """Of a batch, on the device: float (N,), bool (N,), and bool (N,), False for what counts as nothing."""
    place = jnp.clip(jnp.ceil(confidence * BINS).astype(jnp.int32) - 1, 0, BINS - 1)

    def add(values):
        return jnp.zeros(BINS, values.dtype).at[place].add(values)
    return Calibration(add(mask.astype(jnp.int32)), add((mask & right).astype(jnp.int32)),
                       add(jnp.where(mask, confidence, 0)))
