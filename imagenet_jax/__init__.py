"""Convolutional image classifiers in JAX: train, evaluate, use.

Importing the package itself is cheap and starts no JAX backend; data workers rely on that.
"""

__version__ = '0.2.0'
