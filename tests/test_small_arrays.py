"""Arrays that go through a function as one: the same answers, by fewer operations."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from imagenet_jax import small_arrays

LARGE = (300, 300)


def tree():
    random = np.random.default_rng(0)
    drawn = {'a': (3,), 'b': (2, 3, 4), 'empty': (0,), 'large': LARGE, 'scalar': (), 'small': (256, 256)}
    drawn = {name: jnp.asarray(random.normal(size=shape), jnp.float32) for name, shape in drawn.items()}
    return drawn | {'half': jnp.ones((5,), jnp.float16), 'deeper': [jnp.full((2,), 7.0)]}


@pytest.mark.parametrize('function', [small_arrays.together, small_arrays._joined])
def test_each_comes_back_in_its_place(function):
    change = partial(jax.tree.map, lambda x: 2 * x + 1)
    once, expected = jax.jit(partial(function, change))(tree()), change(tree())
    assert jax.tree.structure(once) == jax.tree.structure(expected)
    jax.tree.map(np.testing.assert_array_equal, once, expected)
    assert [x.dtype for x in jax.tree.leaves(once)] == [x.dtype for x in jax.tree.leaves(expected)]


def test_small_ones_are_one():
    """As a GPU has them."""
    sizes = []

    def note(seen):
        sizes.extend((x.size, x.dtype.name) for x in jax.tree.leaves(seen))
        return seen
    small_arrays._joined(note, tree())
    small = 3 + 24 + 0 + 1 + 256**2 + 2
    assert sorted(sizes) == sorted([(small, 'float32'), (300 * 300, 'float32'), (5, 'float16')])


@pytest.mark.parametrize('without', [(), ('large',), ('a', 'b', 'empty', 'scalar', 'small', 'half', 'deeper')])
def test_the_norm_is_of_all(without):
    given = {name: leaf for name, leaf in tree().items() if name not in without}
    every = np.concatenate([np.ravel(x).astype(np.float64) for x in jax.tree.leaves(given)])
    assert float(small_arrays.norm(given)) == pytest.approx(np.linalg.norm(every), rel=1e-6)
