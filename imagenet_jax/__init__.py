"""Convolutional image classifiers in JAX: train, evaluate, use.

Importing the package itself is cheap and starts no JAX backend; data workers rely on that.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from imagenet_jax.use.classifier import Classifier

__version__ = '0.2.0'


def load(source, *others, **options) -> 'Classifier':
    """A trained model, ready to use: see `imagenet_jax.use.classifier.load`."""
    from imagenet_jax.use import classifier  # here: what it needs takes seconds to import
    return classifier.load(source, *others, **options)
