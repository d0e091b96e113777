"""What hits, predictions and labels of each class come to."""

from typing import NamedTuple

import numpy as np


class Counts(NamedTuple):
    """int (K,): images of each class that were predicted so, all that were predicted so, all that are of it."""
    hits: np.ndarray
    predicted: np.ndarray
    labelled: np.ndarray

    def accuracy(self) -> np.ndarray:
        """float64 (K,): the fraction of a class's images that were predicted so, NaN where it has none."""
        return _fraction(self.hits, self.labelled)

    def macro_f1(self) -> float:
        """Mean over the classes of 2 hits / (predicted + labelled), as scikit-learn has it; a class that is neither
        predicted nor labelled is left out. NaN where that leaves none."""
        return mean(_fraction(2 * self.hits, self.predicted + self.labelled))


def mean(values: np.ndarray) -> float:
    """Of those that are numbers; NaN where none is."""
    return float(np.nanmean(values)) if np.isfinite(values).any() else float('nan')


def _fraction(part, whole) -> np.ndarray:
    return np.where(whole > 0, part / np.maximum(whole, 1), np.nan)


def most_confused(confusion: np.ndarray, most: int) -> list[tuple[int, int, int]]:
    """(label, predicted, images) of a confusion matrix, rows the label, most images first, of equals the lower numbers;
    fewer than `most` where fewer classes are mistaken for another."""
    wrong = np.array(confusion)
    np.fill_diagonal(wrong, 0)
    labels, predicted = np.nonzero(wrong)
    counts = wrong[labels, predicted]
    order = np.argsort(-counts, kind='stable')[:most]
    return [(int(labels[at]), int(predicted[at]), int(counts[at])) for at in order]
