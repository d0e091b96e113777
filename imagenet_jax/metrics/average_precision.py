"""How well scores put what has a class before what has not."""

import math

import numpy as np


def average_precision(scores: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Area under each class's interpolated precision-recall curve, as PASCAL VOC measures it from 2010 on.

    Interpolated: the precision at a recall is the best at that recall or a higher one. Equal scores are retrieved
    together, so that their order in the file does not matter.

    Args:
      scores: (N, K) float, the higher the surer; what is not finite is never retrieved.
      labels: (N, K) of 0 and 1; NaN ("difficult") is left out, as if the image were not there.

    Returns:
      (K,) float64, NaN where a class has no 1.
    """
    return np.array([_average_precision(*columns) for columns in zip(scores.T, labels.T, strict=True)])


def _average_precision(scores, labels) -> float:
    positives = np.count_nonzero(labels == 1)
    if not positives:
        return math.nan
    counted = np.isfinite(scores) & ~np.isnan(labels)
    order = np.argsort(-scores[counted])
    scores, hits = scores[counted][order], labels[counted][order] == 1
    last = np.flatnonzero(np.diff(scores, append=-np.inf))  # of each run of equal scores
    found = hits.cumsum()[last]
    precision = np.maximum.accumulate((found / (last + 1))[::-1])[::-1]
    return float(np.sum(precision * np.diff(found, prepend=0)) / positives)
