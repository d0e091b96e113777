"""Taking batches of a small data set, and comparing them."""

import itertools

import numpy as np

from imagenet_jax.images.crops import Pad
from imagenet_jax.images.distort import Distort
from imagenet_jax.images.eval_view import EvalView
from imagenet_jax.images.train_view import TrainView
from imagenet_jax.input_pipeline import Workers, train_batches

AUGMENT, VIEW = TrainView(8, Pad(2), distort=Distort(color_jitter=0.4)), EvalView(8, 9)
ONE = Workers(threads=1)
COUNT = 11  # images of the small data set: no batch size here divides it


def take(batches, count=None):
    """The next batches as a list; the iterator is closed."""
    taken = list(itertools.islice(batches, count))
    batches.close()
    return taken


def train(source, count, batch=4, seed=0, start=0, workers=ONE):
    """So many batches of training."""
    return take(train_batches(source, AUGMENT, batch, seed, start, workers), count)


def assert_same(a, b):
    """Two lists of batches."""
    assert len(a) == len(b)
    for x, y in zip(a, b, strict=True):
        assert x.keys() == y.keys()
        for name in x:
            assert x[name].dtype == y[name].dtype
            np.testing.assert_array_equal(x[name], y[name])


def joined(batches, name):
    """One array of all batches."""
    return np.concatenate([batch[name] for batch in batches])
