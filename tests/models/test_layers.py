"""Layers by number, against formulas and Flax's own."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from fixtures_models import traced

from imagenet_jax.models import resnet
from imagenet_jax.models.blocks import classify
from imagenet_jax.models.layers import ACTIVATIONS, DATA_AXIS, Layers, blur, max_pool

pytestmark = pytest.mark.numerics


@pytest.mark.parametrize(('name', 'options'), [
    ('resnet18', {}), ('resnet50', {}), ('resnet50', {'stride_in_1x1': True}), ('resnet20_cifar', {'shortcut': 'B'})])
def test_every_window_is_padded_alike_on_both_sides(name, options):
    checked = 0
    for equation in traced(name, 64, **options):
        if equation.primitive.name == 'conv_general_dilated':
            half = equation.invars[1].aval.shape[0] // 2
            assert equation.params['padding'] == ((half, half),) * 2
            checked += 1
        elif equation.primitive.name == 'reduce_window_max':
            assert equation.params['padding'] == ((0, 0), (1, 1), (1, 1), (0, 0))
            checked += 1
    assert checked == {'resnet18': 21, 'resnet50': 54, 'resnet20_cifar': 21}[name]


@pytest.mark.parametrize(('kernel', 'stride'), [(3, 2), (7, 2), (1, 2), (3, 1)])
def test_convolution_is_symmetric(kernel, stride):
    """The first window begins kernel // 2 before the image, whatever its size; with 'SAME' an even size moves it."""
    x = jax.random.normal(jax.random.key(0), (1, 9, 9, 2))
    module = Layers().conv(3, kernel, stride, name='conv')
    y, variables = module.init_with_output(jax.random.key(1), x)
    assert list(variables['params']) == ['kernel']
    padded = np.pad(x, ((0, 0), (kernel // 2,) * 2, (kernel // 2,) * 2, (0, 0)))
    for i, j in ((0, 0), (1, 2), (y.shape[1] - 1, y.shape[2] - 1)):
        window = padded[:, i * stride:i * stride + kernel, j * stride:j * stride + kernel]
        np.testing.assert_allclose(y[:, i, j], np.einsum('nhwc,hwcd->nd', window, variables['params']['kernel']),
                                   rtol=1e-4, atol=1e-5)
    even = module.apply(variables, jnp.zeros((1, 8, 8, 2)).at[0, kernel - kernel // 2, 0].set(1.0))
    assert not even[0, 0, 0].any()  # one row past what the first window sees; with 'SAME' and stride 2 it sees it


@pytest.mark.parametrize(('kernel', 'features', 'groups', 'std'), [
    (7, 256, 1, (2 / (49 * 256))**0.5), (1, 512, 1, (2 / 512)**0.5), (3, 256, 256, (2 / 9)**0.5),
    (3, 256, 8, (2 / (9 * 32))**0.5)])
def test_he_init_by_fan_out(kernel, features, groups, std):
    module = Layers().conv(features, kernel, groups=groups, name='conv')
    values = np.asarray(module.init(jax.random.key(0), jnp.zeros((1, 8, 8, 256)))['params']['kernel'])
    assert values.shape == (kernel, kernel, 256 // groups, features)
    tolerance = 5 / (2 * values.size)**0.5  # five deviations of the estimate
    assert values.std() == pytest.approx(std, rel=tolerance)
    assert abs(values.mean()) < 5 * std / values.size**0.5
    assert np.abs(values).max() > 2.5 * std  # a normal, not one cut off at two deviations


def test_classifier_init():
    class Head(nn.Module):
        @nn.compact
        def __call__(self, x):
            return classify(x, 100, Layers(), 'fc')

    params = Head().init(jax.random.key(0), jnp.zeros((1, 2, 2, 512)))['params']['fc']
    assert params['kernel'].std() == pytest.approx(0.01, rel=0.02)
    assert abs(params['kernel'].mean()) < 5 * 0.01 / params['kernel'].size**0.5
    assert not params['bias'].any()


@pytest.mark.parametrize(('kind', 'formula'), [
    ('relu', lambda x: np.maximum(x, 0)), ('relu6', lambda x: np.clip(x, 0, 6)),
    ('swish', lambda x: x / (1 + np.exp(-x))), ('hard_swish', lambda x: x * np.clip(x + 3, 0, 6) / 6),
    ('mish', lambda x: x * np.tanh(np.log1p(np.exp(x))))])
def test_activations(kind, formula):
    x = np.linspace(-8, 8, 65, dtype=np.float32)
    np.testing.assert_allclose(Layers(act_kind=kind).act(x), formula(x.astype(float)), rtol=1e-5, atol=1e-6)
    assert Layers(act_kind=kind).act(jnp.zeros(1, jnp.bfloat16)).dtype == jnp.bfloat16


def test_activations_are_pytorchs():
    functions = pytest.importorskip('torch').nn.functional
    x = np.linspace(-8, 8, 65, dtype=np.float32)
    theirs = {'relu': 'relu', 'relu6': 'relu6', 'swish': 'silu', 'hard_swish': 'hardswish', 'mish': 'mish'}
    assert theirs.keys() == ACTIVATIONS.keys()
    for kind, name in theirs.items():
        expected = getattr(functions, name)(pytest.importorskip('torch').from_numpy(x)).numpy()
        np.testing.assert_allclose(Layers(act_kind=kind).act(x), expected, rtol=1e-5, atol=1e-6)


def test_batch_norm_is_pytorchs():
    x = 3 + 2 * jax.random.normal(jax.random.key(0), (4, 5, 5, 2))
    module = Layers(train=True).norm('bn')
    y, variables = module.init_with_output(jax.random.key(0), x)
    _, updated = module.apply(variables, x, mutable=['batch_stats'])
    mean, var = np.mean(x, (0, 1, 2)), np.var(x, (0, 1, 2))
    np.testing.assert_allclose(y, (x - mean) / np.sqrt(var + 1e-5), rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(updated['batch_stats']['mean'], 0.1 * mean, rtol=1e-4)
    np.testing.assert_allclose(updated['batch_stats']['var'], 0.9 + 0.1 * var, rtol=1e-4)
    tiny = jnp.full((1, 1, 1, 1), 1.0)
    stats = {'params': {'scale': jnp.ones(1), 'bias': jnp.zeros(1)},
             'batch_stats': {'mean': jnp.zeros(1), 'var': jnp.zeros(1)}}
    np.testing.assert_allclose(Layers().norm('bn').apply(stats, tiny), 1e-5**-0.5, rtol=1e-4)  # epsilon alone


# --- blur-pool


@pytest.mark.parametrize('size', [8, 9, 2])
def test_blur(size):
    """A depthwise convolution, strided, of the mirrored map; by its definition a pixel at a time."""
    x = np.asarray(np.random.default_rng(0).normal(size=(2, size, size + 3, 3)), np.float32)
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)), mode='reflect')
    kernel = np.outer([1, 2, 1], [1, 2, 1]) / 16
    y = np.asarray(blur(jnp.asarray(x), 2))
    assert y.shape == (2, -(-size // 2), -(-(size + 3) // 2), 3)
    for i in range(y.shape[1]):
        for j in range(y.shape[2]):
            window = padded[:, 2 * i:2 * i + 3, 2 * j:2 * j + 3]
            np.testing.assert_allclose(y[:, i, j], np.einsum('nhwc,hw->nc', window, kernel), rtol=1e-5, atol=1e-6)


def test_blur_of_one_pixel_and_its_dtype():
    x = jnp.full((1, 1, 1, 2), 3, jnp.bfloat16)
    assert blur(x, 2).dtype == jnp.bfloat16
    np.testing.assert_array_equal(blur(x, 2), x)


def test_antialiased_max_pool_is_dense_then_blurred():
    x = jnp.asarray(np.random.default_rng(0).normal(size=(1, 9, 9, 2)), jnp.float32)
    np.testing.assert_array_equal(Layers(antialias=True).max_pool(x, 3, 2, 1), blur(max_pool(x, 3, 1, 1), 2))


# --- max-pool


def flax_pool(x, window, stride, padding):
    return nn.max_pool(x, (window, window), (stride, stride), ((padding, padding),) * 2)


@pytest.mark.parametrize(('size', 'window', 'stride', 'padding'), [
    (8, 3, 2, 1), (9, 3, 2, 1), (8, 3, 2, 0), (7, 2, 2, 0), (8, 3, 1, 1), (9, 3, 3, 1)])
def test_max_pool_and_its_gradient(size, window, stride, padding):
    rng = np.random.default_rng(0)
    # Whole numbers from a short range: nearly every window has ties. None above 0: a padding of 0 would win or tie.
    x = jnp.asarray(rng.integers(-3, 1, (2, size, size, 3)), jnp.float32)
    y = flax_pool(x, window, stride, padding)
    np.testing.assert_array_equal(max_pool(x, window, stride, padding), y)
    g = jnp.asarray(rng.integers(1, 9, y.shape), jnp.float32)  # whole, so that sums are exact
    ours, theirs = (jax.vjp(lambda x, f=f: f(x, window, stride, padding), x)[1](g)[0] for f in (max_pool, flax_pool))
    np.testing.assert_array_equal(ours, theirs)


def test_max_pool_gradient_goes_to_the_first_of_equals():
    gradient = jax.grad(lambda x: max_pool(x, 2, 2, 0).sum())(jnp.zeros((1, 4, 4, 1)))
    np.testing.assert_array_equal(gradient[0, ..., 0], [[1, 0, 1, 0], [0] * 4, [1, 0, 1, 0], [0] * 4])


@pytest.mark.parametrize('dtype', ['bfloat16', 'float16'])
def test_max_pool_gradient_keeps_the_dtype(dtype):
    x = jnp.arange(16, dtype=dtype).reshape(1, 4, 4, 1)
    gradient = jax.grad(lambda x: max_pool(x, 3, 2, 1).astype(jnp.float32).sum())(x)
    assert gradient.dtype == x.dtype
    np.testing.assert_array_equal(np.asarray(gradient[0, ..., 0], np.float32),
                                  [[0] * 4, [0, 1, 0, 1], [0] * 4, [0, 1, 0, 1]])


def test_models_take_no_select_and_scatter():
    def program(pool):
        return jax.jit(jax.grad(lambda x: pool(x, 3, 2, 1).sum())).lower(jnp.zeros((1, 8, 8, 1))).as_text()
    assert 'select_and_scatter' in program(flax_pool)  # the name has not changed
    assert 'select_and_scatter' not in program(max_pool)
    model = resnet.ResNet(depths=(1,), num_classes=2)
    images = jnp.zeros((1, 16, 16, 3))
    variables = jax.eval_shape(model.init, jax.random.key(0), images)
    lowered = jax.jit(jax.grad(lambda v: model.apply(v, images).sum())).lower(variables)
    assert 'select_and_scatter' not in lowered.as_text()


def test_sync_norm_averages_over_the_data_axis():
    axes = {kind: Layers(train=True, norm_kind=kind).norm('bn').axis_name for kind in ('batch', 'sync')}
    assert axes == {'batch': None, 'sync': DATA_AXIS}
