"""Many small arrays as one: scales, biases and statistics are hundreds, and a GPU would start a kernel for each."""

import itertools
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

# Elements of the largest small array: by its memory's rate a GPU copies as many in less than the 1 us of a tiny kernel.
_SMALL = 65_536


def together(function: Callable[[Any], Any], tree: Any) -> Any:
    """function(tree), of a function that is elementwise and of a tree's arrays of any shapes; small ones as one array.

    What is computed of the answer then reads parts of one array. XLA joins what reads the same and has one shape: the
    updates of all scales, biases and statistics become a few kernels instead of two or three a layer. Small are float32
    arrays of up to 65,536 elements. On a CPU, where a kernel costs little and a copy much, they stay as they are.
    """
    return jax.lax.platform_dependent(tree, cuda=partial(_joined, function), default=function)


def _joined(function, tree):
    leaves, structure = jax.tree.flatten(tree)
    small = [i for i, leaf in enumerate(leaves) if leaf.size <= _SMALL and leaf.dtype == jnp.float32]
    if not small:
        return function(tree)
    # The others are flat as well: cuDNN orders a kernel's gradient otherwise than the state has it, and what is updated
    # in that order would be copied.
    others = {i: leaf.ravel() for i, leaf in enumerate(leaves) if i not in set(small)}
    joined, others = function((jnp.concatenate([leaves[i].ravel() for i in small]), others))
    # Behind a barrier, or XLA would see through it, and compute of each array by itself.
    joined, others = jax.lax.optimization_barrier((joined, others))
    ends = itertools.accumulate(leaves[i].size for i in small)
    parts = others | {i: joined[end - leaves[i].size:end] for i, end in zip(small, ends, strict=True)}
    return jax.tree.unflatten(structure, [parts[i].reshape(leaf.shape) for i, leaf in enumerate(leaves)])


def norm(tree: Any) -> jax.Array:
    """The square root of the sum of all squares of a tree's arrays."""
    # Rows of large ones first: such a sum is one kernel, and that of a whole array two.
    squares = [x * x if x.size <= _SMALL else jnp.sum(x * x, -1) for x in jax.tree.leaves(tree)]
    # Behind a barrier, or XLA sums each by itself, and then the sums.
    return jnp.sqrt(jnp.sum(jax.lax.optimization_barrier(jnp.concatenate([x.ravel() for x in squares]))))
