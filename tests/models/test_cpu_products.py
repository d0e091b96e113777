"""Products of few rows as a CPU computes them, against XLA's own, and which are computed so."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from fixtures_models import by_xla
from jax import export
from jax.extend.core.primitives import dot_general_p
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from imagenet_jax.models.layers import cpu_products

pytestmark = pytest.mark.numerics


def draw(*shape, dtype=jnp.float32):
    return jnp.asarray(np.random.default_rng(sum(shape)).standard_normal(shape), dtype)


def by_input(matrix, g):
    """The gradient of a dense layer by its input."""
    return jax.vjp(lambda x: x @ matrix, g[:, :1] * matrix[:, 0])[1](g)[0]


def turned(function, *args, platform='cpu'):
    """Whether its product is of the matrix by the few rows, in the program for a platform."""
    return 'optimization_barrier' in jax.jit(function).trace(*args).lower(lowering_platforms=(platform,)).as_text()


@pytest.mark.parametrize(('rows', 'inputs', 'outputs', 'of_matrix'), [
    (1, 300, 7, True), (4, 64, 10, True), (4, 63, 10, False), (8, 64, 200, False)])
def test_it_agrees_with_xla(rows, inputs, outputs, of_matrix):
    matrix, g = draw(inputs, outputs), draw(rows, outputs)
    assert turned(by_input, matrix, g) == of_matrix
    expected = by_xla(dot_general_p, cpu_products, by_input, matrix, g)
    np.testing.assert_allclose(jax.jit(by_input)(matrix, g), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(('function', 'shapes', 'dtype'), [
    (by_input, ((128, 10), (2, 10)), jnp.bfloat16),
    (lambda matrix, x: x @ matrix, ((128, 10), (2, 128)), jnp.float32),
    (lambda matrix, x: jnp.einsum('bio,bno->bni', matrix, x), ((3, 128, 10), (3, 2, 10)), jnp.float32),
    (lambda matrix, x: jnp.einsum('io,ano->ani', matrix, x), ((128, 10), (1, 2, 10)), jnp.float32),
    (lambda matrix, x: jnp.einsum('io,o->i', matrix, x), ((128, 10), (10,)), jnp.float32)])
def test_others_are_xlas(function, shapes, dtype):
    args = [draw(*shape, dtype=dtype) for shape in shapes]
    assert not turned(function, *args)
    expected = by_xla(dot_general_p, cpu_products, function, *args)
    np.testing.assert_array_equal(jax.jit(function)(*args), expected)


def test_the_gpus_program_is_the_same():
    assert not turned(by_input, draw(128, 10), draw(2, 10), platform='cuda')


def test_a_batch_of_any_size_is_xlas():
    rows = jax.ShapeDtypeStruct((export.symbolic_shape('n')[0], 10), jnp.float32)
    matrix, g = draw(128, 10), draw(2, 10)
    exported = export.export(jax.jit(lambda g: by_input(matrix, g)), platforms=('cpu',))(rows)
    np.testing.assert_allclose(exported.call(g), by_input(matrix, g), rtol=1e-5, atol=1e-5)


def test_on_many_devices_and_derived_again():
    mesh, matrix, g = Mesh(jax.devices()[:2], 'data'), draw(128, 10), draw(4, 10)

    def squares(matrix, g):
        return jnp.square(by_input(matrix, g)).sum()
    split = jax.shard_map(jax.grad(squares), mesh=mesh, in_specs=(P(), P('data')), out_specs=P())
    np.testing.assert_allclose(jax.jit(split)(matrix, g), jax.jit(jax.grad(squares))(matrix, g), rtol=1e-4, atol=1e-4)
