"""models: what there is, and how large."""

import argparse

import jax
import jax.numpy as jnp

from imagenet_jax import models


def main() -> None:
    """Prints a line a model: its name and its parameters."""
    argparse.ArgumentParser(prog='python -m imagenet_jax models', description=main.__doc__).parse_args()
    for name in models.names():
        print(f'{name:20} {parameters(name):>12,}')


def parameters(name: str, **options) -> int:
    """Parameters of a model, counted from shapes alone."""
    model = models.create(name, **options)
    shapes = jax.eval_shape(lambda: model.init(jax.random.key(0), jnp.zeros((1, 64, 64, 3)), train=False))
    return sum(leaf.size for leaf in jax.tree.leaves(shapes['params']))
