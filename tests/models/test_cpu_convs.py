"""Convolutions as a CPU computes them, against XLA's own: outputs, both gradients, which form is for which shape."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from fixtures_models import by_xla
from jax import export
from jax.extend.core.primitives import conv_general_dilated_p
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from imagenet_jax.models.layers import cpu_convs

pytestmark = pytest.mark.numerics


def draw(*shape):
    return jnp.asarray(np.random.default_rng(sum(shape)).standard_normal(shape), jnp.float32)


def conv(stride=1, padding=1, dilation=1, groups=1):
    def apply(x, kernel):
        return jax.lax.conv_general_dilated(
            x, kernel, (stride, stride), ((padding, padding),) * 2, rhs_dilation=(dilation, dilation),
            feature_group_count=groups, dimension_numbers=('NHWC', 'HWIO', 'NHWC'))
    return apply


def with_gradients(apply):
    def both(x, kernel, g):
        y, pull = jax.vjp(apply, x, kernel)
        return y, *pull(g)
    return both


@pytest.fixture
def forms(monkeypatch):
    """Names of the forms that are chosen, as they are; None is XLA's own."""
    names, form = [], cpu_convs.form

    def noted(*args):
        found = form(*args)
        names.append(getattr(getattr(found, 'func', found), '__name__', None))
        return found
    monkeypatch.setattr(cpu_convs, 'form', noted)
    return names


TAPS, SPREAD, ROWS, KERNEL, DEPTHWISE = 'shifted_taps', 'spread_taps', 'rows_apart', 'kernel_gradient', 'depthwise'
PHASES, GROUPED, GROUPED_KERNEL = 'phases', 'grouped', 'grouped_gradient'


@pytest.mark.parametrize(('shape', 'kernel', 'options', 'chosen'), [
    # Forward, gradient by the kernel, by the map; after ROWS its convolution of one row, after PHASES those it is of.
    ((4, 2, 2, 8), (3, 3, 8, 6), {}, [TAPS, None, TAPS]),
    ((4, 1, 1, 8), (3, 3, 8, 6), {}, [KERNEL, TAPS, KERNEL]),
    ((4, 3, 2, 8), (3, 3, 8, 6), {}, [TAPS, None, TAPS]),
    ((4, 4, 4, 8), (3, 3, 8, 6), {'stride': 2}, [None, KERNEL, SPREAD]),
    ((4, 3, 5, 8), (3, 3, 8, 6), {'stride': 2, 'dilation': 2, 'padding': 2}, [None, KERNEL, SPREAD]),
    ((4, 5, 4, 8), (1, 1, 8, 6), {'padding': 0}, [TAPS, KERNEL, TAPS]),
    ((4, 7, 6, 8), (1, 1, 8, 6), {'stride': 2, 'padding': 0}, [TAPS, KERNEL, SPREAD]),
    ((4, 6, 5, 8), (1, 1, 8, 6), {'stride': 2}, [TAPS, KERNEL, SPREAD]),
    ((2, 1, 1, 8), (1, 1, 8, 6), {'padding': 0}, [TAPS, TAPS, TAPS]),
    ((4, 9, 7, 8), (3, 3, 1, 8), {'groups': 8}, [DEPTHWISE, KERNEL, DEPTHWISE]),
    ((3, 9, 8, 8), (5, 5, 1, 8), {'groups': 8, 'stride': 2, 'padding': 2}, [DEPTHWISE, KERNEL, DEPTHWISE]),
    ((4, 9, 8, 8), (3, 3, 1, 8), {'groups': 8, 'dilation': 2, 'padding': 2}, [DEPTHWISE, KERNEL, DEPTHWISE]),
    ((6, 12, 12, 16), (3, 3, 16, 8), {}, [None, KERNEL, None]),
    ((5, 12, 11, 16), (3, 3, 16, 8), {'stride': 2}, [None, KERNEL, PHASES, TAPS, None, None, None]),
    ((3, 9, 11, 6), (2, 3, 6, 8), {'stride': 3}, [None, None, PHASES, *4 * [TAPS]]),
    ((3, 14, 13, 6), (3, 1, 6, 8), {'stride': 2, 'padding': 0}, [None, KERNEL, PHASES, None, TAPS]),
    ((3, 12, 11, 70), (3, 3, 70, 8), {'stride': 2}, [None, None, PHASES, TAPS, None, None, None]),
    ((70, 16, 16, 32), (3, 3, 32, 4), {}, [ROWS, None, KERNEL, ROWS, None]),  # in several parts
    ((7, 9, 12, 20), (3, 5, 20, 24), {'dilation': 2, 'padding': 2}, [ROWS, None, KERNEL, ROWS, None]),
    ((3, 46, 50, 3), (11, 7, 3, 20), {'stride': 4, 'padding': 4},
     [None, KERNEL, PHASES, *3 * [TAPS], *9 * [ROWS], *6 * [None]]),
    # By the kernel a product for each row: of many outputs on small maps, and, before jaxlib 0.11, of 96 x 96.
    ((30, 7, 7, 20), (3, 3, 20, 128), {}, [None, ROWS, None, KERNEL]),
    ((30, 7, 6, 32), (3, 3, 32, 32), {}, [ROWS, None, KERNEL, ROWS]),
    ((2, 6, 6, 96), (3, 3, 96, 96), {}, [None, None, None]),  # a gradient by the kernel from few pixels
    # Grouped, and what each block of groups is, where the same was not there before.
    ((4, 9, 8, 8), (3, 3, 2, 8), {'groups': 4}, [GROUPED, None, GROUPED_KERNEL, GROUPED]),
    ((4, 9, 8, 8), (3, 3, 1, 16), {'groups': 8}, [GROUPED, None, GROUPED_KERNEL, GROUPED, None]),
    ((3, 9, 10, 128), (3, 3, 4, 128), {'groups': 32}, [GROUPED, ROWS, None, GROUPED_KERNEL, GROUPED]),
    ((5, 9, 10, 26), (3, 3, 2, 39), {'groups': 13, 'stride': 2},
     [GROUPED, None, GROUPED_KERNEL, GROUPED, PHASES, TAPS, None, None, None]),
    ((3, 7, 6, 80), (5, 3, 40, 160), {'groups': 2, 'dilation': 2, 'padding': 4},
     [GROUPED, None, GROUPED_KERNEL, GROUPED, ROWS, None]),
    ((4, 6, 5, 24), (1, 1, 8, 12), {'groups': 3, 'stride': 2, 'padding': 0},
     [GROUPED, TAPS, GROUPED_KERNEL, GROUPED, SPREAD]),
    ((4, 1, 1, 24), (3, 3, 8, 12), {'groups': 3}, [GROUPED, KERNEL, GROUPED_KERNEL, GROUPED, KERNEL])])
def test_it_agrees_with_xla(shape, kernel, options, chosen, forms):
    function, args = with_gradients(conv(**options)), [draw(*shape), draw(*kernel)]
    args.append(draw(*jax.eval_shape(conv(**options), *args).shape))
    expected = by_xla(conv_general_dilated_p, cpu_convs, function, *args)
    assert not forms
    found = jax.jit(function)(*args)
    assert sorted(map(str, forms)) == sorted(map(str, chosen))
    for ours, its in zip(found, expected, strict=True):
        np.testing.assert_allclose(ours, its, rtol=1e-5, atol=2e-6 * np.abs(its).max())


@pytest.mark.parametrize('dtype', [jnp.bfloat16, jnp.float16])
def test_other_dtypes_are_xlas(dtype, forms):
    jax.jit(conv()).lower(jnp.zeros((4, 2, 2, 8), dtype), jnp.zeros((3, 3, 8, 6), dtype))
    assert not forms


def test_the_gpus_program_is_the_same(forms):
    """One for both platforms runs here, with a batch of any size, and has the GPU's convolution beside."""
    function, kernel = jax.jit(conv()), draw(3, 3, 8, 6)
    x = jax.ShapeDtypeStruct((export.symbolic_shape('n')[0], 2, 2, 8), jnp.float32)
    alone = export.export(function, platforms=('cuda',))(x, kernel)
    assert not forms and alone.mlir_module().count('stablehlo.convolution') == 1
    both = export.deserialize(export.export(function, platforms=('cpu', 'cuda'))(x, kernel).serialize())
    assert forms == [TAPS] and both.mlir_module().count('stablehlo.convolution') == 1
    images = draw(5, 2, 2, 8)
    np.testing.assert_array_equal(both.call(images, kernel), function(images, kernel))


@pytest.mark.parametrize(('kernel', 'groups'), [((3, 3, 1, 16), 16), ((3, 3, 16, 16), 1), ((1, 1, 16, 16), 1)])
def test_on_many_devices_and_recomputed(kernel, groups):
    """Gradients inside shard_map, of a rematerialised block, are the sums of those of each device."""
    mesh = Mesh(jax.devices()[:2], 'data')
    apply, images, kernel = conv(groups=groups), draw(4, 12, 12, 16), draw(*kernel)

    def gradient(kernel, images):
        return jax.grad(lambda kernel: jnp.square(jax.checkpoint(apply)(images, kernel)).sum())(kernel)
    split = jax.jit(jax.shard_map(gradient, mesh=mesh, in_specs=(P(), P('data')), out_specs=P()))
    np.testing.assert_allclose(split(kernel, images), jax.jit(gradient)(kernel, images), rtol=1e-4, atol=1e-3)


def test_vmap_jvp_and_second_order():
    """What is traced is JAX's convolution: all its transformations hold."""
    apply, images, kernel = conv(groups=8), draw(3, 2, 5, 5, 8), draw(3, 3, 1, 8)
    each = jax.jit(jax.vmap(apply, (0, None)))(images, kernel)
    np.testing.assert_allclose(each[1], apply(images[1], kernel), rtol=1e-5, atol=1e-5)
    y, moved = jax.jvp(lambda k: apply(images[0], k), (kernel,), (kernel,))
    np.testing.assert_allclose(moved, y, rtol=1e-5, atol=1e-5)  # it is linear
    curvature = jax.jvp(jax.grad(lambda k: 0.5 * jnp.square(apply(images[0], k)).sum()), (kernel,), (kernel,))
    np.testing.assert_allclose(*curvature, rtol=1e-4, atol=1e-4)
