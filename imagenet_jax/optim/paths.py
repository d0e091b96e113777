"""Parameters by their paths: a run's patterns, and which are kernels."""

from collections.abc import Sequence
from fnmatch import fnmatchcase

import jax

from imagenet_jax.errors import UserError


def path_name(path) -> str:
    """Of a leaf of a tree: layer1/0/conv1/kernel."""
    return jax.tree_util.keystr(path, simple=True, separator='/')


def matches(path, pattern: str) -> bool:
    """Whether a leaf's path is of the pattern, one of the shell's kind whose `*` stands for anything, slashes too."""
    return fnmatchcase(path_name(path), pattern)


def matching(params, patterns: Sequence[str]):
    """A tree like `params`, True where a parameter's path, such as layer1/0/conv1/kernel, matches one of the patterns.
    """
    return jax.tree.map_with_path(lambda path, _: any(matches(path, p) for p in patterns), params)


def refuse_idle(params, patterns: Sequence[str], option: str) -> None:
    """Raises UserError where a pattern matches no parameter."""
    paths = [path for path, _ in jax.tree_util.tree_leaves_with_path(params)]
    names = [path_name(path) for path in paths]
    for pattern in patterns:
        if not any(matches(path, pattern) for path in paths):
            raise UserError(f'{option}: {pattern!r} matches no parameter; such paths there are: '
                            f'{", ".join(dict.fromkeys(name.split("/")[0] + "/*" for name in names))}, and in full '
                            f'{names[0]}')


def kernels(params):
    """A tree like `params`, True for kernels of convolutions and dense layers, False for biases and norm scales."""
    return jax.tree.map_with_path(lambda path, _: path[-1].key == 'kernel', params)


def others(params):
    """The opposite of `kernels`."""
    return jax.tree.map(lambda kernel: not kernel, kernels(params))
