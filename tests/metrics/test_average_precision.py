"""Average precision by hand and by its definition."""

import subprocess
import sys

import numpy as np
import pytest
from fixtures_scores import drawn
from runs import ROOT

from imagenet_jax.metrics.average_precision import average_precision


def column(*values):
    return np.array(values, np.float32)[:, None]


@pytest.mark.parametrize(('labels', 'expected'), [
    ((1, 1, 0, 0), 1.0),
    ((0, 0, 1, 1), 1 / 2),             # precision 1/3 at recall 1/2, 2/4 at 1: the better one holds for both
    ((1, 0, 1, 0), 1 / 2 + 1 / 2 * 2 / 3),
    ((0, 1, 0, 0), 1 / 2),
    ((np.nan, 1, 0, np.nan), 1.0),     # as if they were not there
    ((0, 0, np.nan, 0), np.nan),
])
def test_average_precision_by_hand(labels, expected):
    found = average_precision(column(4, 3, 2, 1), column(*labels))
    np.testing.assert_allclose(found, [expected])


def test_equal_scores_are_retrieved_together():
    for labels in ((1, 0, 0, 0), (0, 0, 0, 1)):
        np.testing.assert_allclose(average_precision(column(0, 0, 0, 0), column(*labels)), [1 / 4])


def test_scores_that_are_not_finite_are_never_retrieved():
    np.testing.assert_allclose(average_precision(column(-np.inf, 2, np.nan, np.inf), column(1, 1, 1, 1)), [1 / 4])
    np.testing.assert_array_equal(average_precision(column(-np.inf, np.nan), column(1, 0)), [0])


def brute_force(scores, labels):
    """The definition, for every recall that there is."""
    kept = ~np.isnan(labels)
    scores, labels = scores[kept], labels[kept] == 1
    curve = []
    for threshold in np.unique(scores):
        taken = scores >= threshold
        curve.append((labels[taken].sum() / labels.sum(), labels[taken].mean()))
    area, before = 0.0, 0.0
    for recall in sorted({recall for recall, _ in curve}):
        area += (recall - before) * max(precision for r, precision in curve if r >= recall)
        before = recall
    return area


def test_average_precision_by_brute_force():
    scores, labels = drawn(40, 30)
    expected = [brute_force(*pair) for pair in zip(scores.T, labels.T, strict=True)]
    np.testing.assert_allclose(average_precision(scores, labels), expected)


def test_it_needs_nothing_of_what_shows_metrics():
    code = ('import sys, imagenet_jax.metrics.average_precision; '
            'print([name for name in ("clu", "jax", "matplotlib", "tqdm") if name in sys.modules])')
    done = subprocess.run([sys.executable, '-c', code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == '[]'
