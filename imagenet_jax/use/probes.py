"""How well features tell classes apart: k nearest neighbours, and a linear probe. Needs no JAX."""

import logging
import warnings
from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

import numpy as np

from imagenet_jax import class_names
from imagenet_jax.errors import UserError
from imagenet_jax.use.feature_table import Features

log = logging.getLogger(__name__)

K = 20
# Strengths that are tried where none is given.
REGULARIZATION = (1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0)
# Of the vote's weights, as DINO has it (arXiv 2104.14294).
_TEMPERATURE = 0.07
# Similarities that are held at once, 4 bytes each and twice as many more to sort them.
_AT_ONCE = 1 << 26
_MOST_ROWS = 4096
# Of each class one image of so many is held out to choose the strength by.
_HELD = 5
_MOST_ITERATIONS = 1000


class Labelled(Protocol):
    """Features, or a source of images."""
    labels: np.ndarray
    class_names: tuple[str, ...]
    multi_label: bool

    def __len__(self) -> int: ...


def check(train: Labelled, test: Labelled, k: int = 1) -> np.ndarray:
    """Whether they can be probed; of sources it can be known before the features are made.

    Returns:
      The labels of `test` in the numbering of `train`, matched by class name: int (N,).

    Raises:
      UserError: images of several classes, classes that `train` lacks, names on one side alone, fewer than k images or
        two classes to train on.
    """
    if train.multi_label or test.multi_label:
        raise UserError('k-NN and linear probe are for images of one class each, and these may have several')
    if k > len(train):
        raise UserError(f'{k} neighbours are more than the {len(train)} images to train on: give a smaller --k')
    if len(np.unique(train.labels)) < 2:
        raise UserError('the images to train on are all of one class, and there is nothing to tell apart')
    labels = _numbered_alike(train, test)
    if len(strangers := np.setdiff1d(labels, train.labels)):
        named = [train.class_names[i] if train.class_names else str(i) for i in strangers]
        raise UserError(f'{len(strangers)} classes of the images to measure on have no image to train on, the first: '
                        f'{class_names.first(named)}')
    return labels


def _numbered_alike(train: Labelled, test: Labelled) -> np.ndarray:
    if bool(train.class_names) != bool(test.class_names):
        raise UserError('either the images to train on or those to measure on have no class names, so that there is no '
                        'telling which class is which')
    if not train.class_names:
        return test.labels
    for each in (train, test):
        if each.labels.max() >= len(each.class_names):
            raise UserError(f'there are labels up to {each.labels.max()}, and {len(each.class_names)} classes have '
                            'names')
    return np.array(class_names.match(test.class_names, train.class_names, 'the split to train on'))[test.labels]


def knn(train: Features, test: Features, k: int = K, shown: Callable[[Iterable], Iterable] = iter) -> dict[str, float]:
    """Top-1 in 0..1 of the vote of the k nearest by cosine similarity.

    Args:
      train, test: features of one model.
      k: neighbours.
      shown: is given the parts of the work, such as a progress bar.

    Returns:
      knn_top1: each neighbour counts the same; knn_weighted_top1: each counts exp(similarity / 0.07), as in DINO (arXiv
      2104.14294). Of equal votes the first class has it.

    Raises:
      UserError: as `check`, or features that differ in length or origin.
    """
    labels = check(train, test, k)
    _refuse_misfit(train, test)
    known = _unit(train.values)
    candidates, voted = np.unique(train.labels, return_inverse=True)
    rows, right = max(1, min(_MOST_ROWS, _AT_ONCE // len(train))), np.zeros(2, int)
    for start in shown(range(0, len(test), rows)):
        part = slice(start, start + rows)
        similarity = _unit(test.values[part]) @ known.T
        nearest = np.argpartition(-similarity, k - 1, axis=1)[:, :k]
        weights = np.exp(np.take_along_axis(similarity, nearest, 1) / _TEMPERATURE)
        for kind, counts in enumerate((np.ones_like(weights), weights)):
            votes = np.zeros((len(nearest), len(candidates)))
            np.add.at(votes, (np.arange(len(nearest))[:, None], voted[nearest]), counts)
            right[kind] += (candidates[votes.argmax(1)] == labels[part]).sum()
    return dict(zip(('knn_top1', 'knn_weighted_top1'), (right / len(test)).tolist(), strict=True))


def linear_probe(train: Features, test: Features, regularization: Sequence[float] = REGULARIZATION,
                 shown: Callable[[Iterable], Iterable] = iter) -> dict[str, float]:
    """Top-1 in 0..1 of a logistic regression on the features, each standardised by its mean and deviation in `train`.

    Args:
      train, test: features of one model.
      regularization: strengths s > 0 of the penalty: mean cross-entropy + s / 2 * squared weights. Of several the one
        that is best on a fifth of each class, held out of `train`, is taken, and fitted to all of it (as arXiv
        1805.08974 chooses it).
      shown: is given the strengths to try, such as a progress bar.

    Returns:
      linear_probe_top1, and the regularization that was taken.

    Raises:
      UserError: as `check`, features that differ in length or origin, or too few images to hold some out.
    """
    labels = check(train, test)
    _refuse_misfit(train, test)
    taken = regularization[0]
    if len(regularization) > 1:
        held = _held_out(train.labels)
        parts = [part[where] for where in (~held, held) for part in (train.values, train.labels)]
        scores = [_score(*parts, strength) for strength in shown(regularization)]
        taken = regularization[int(np.argmax(scores))]
    return {'linear_probe_top1': _score(train.values, train.labels, test.values, labels, taken),
            'regularization': taken}


def _score(values, labels, test_values, test_labels, strength: float) -> float:
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    # Its C weighs the sum of the losses against the penalty.
    regression = LogisticRegression(C=1 / (strength * len(values)), max_iter=_MOST_ITERATIONS)
    probe = make_pipeline(StandardScaler(), regression)
    with warnings.catch_warnings():
        warnings.simplefilter('ignore', ConvergenceWarning)  # it is said below, in one line
        probe.fit(values, labels)
    if regression.n_iter_.max() >= _MOST_ITERATIONS:
        log.warning('the linear probe of regularization %g is not fitted to the end after %d iterations', strength,
                    _MOST_ITERATIONS)
    return float(probe.score(test_values, test_labels))


def _held_out(labels: np.ndarray) -> np.ndarray:
    """bool (N,): every fifth image of each class, in a drawn order that is always the same."""
    order = np.random.default_rng(0).permutation(len(labels))
    held = np.zeros(len(labels), bool)
    for label in np.unique(labels):
        held[order[labels[order] == label][_HELD - 1::_HELD]] = True
    if not held.any():
        raise UserError(f'no class has {_HELD} images to train on, of which one is held out to choose the '
                        'regularization by: give one strength, such as --regularization 0.01')
    return held


def _refuse_misfit(train: Features, test: Features) -> None:
    if train.origin and test.origin and train.origin != test.origin:
        raise UserError('the features to train on and those to measure on are not of one model, stage and view: '
                        f'{train.origin}; {test.origin}')
    if train.values.shape[1] != test.values.shape[1]:
        raise UserError(f'the features to train on are {train.values.shape[1]} an image, and those to measure on '
                        f'{test.values.shape[1]}')


def _unit(values: np.ndarray) -> np.ndarray:
    """Rows of length 1; zeros stay."""
    return values / np.maximum(np.linalg.norm(values, axis=1, keepdims=True), np.finfo(np.float32).tiny)
