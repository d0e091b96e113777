"""Models by shape where no numbers are needed; their layers by number."""

import collections
from functools import partial

import flax.linen as nn
import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from imagenet_jax import models
from imagenet_jax.errors import UserError
from imagenet_jax.models import resnet
from imagenet_jax.models.blocks import classify
from imagenet_jax.models.layers import ACTIVATIONS, DATA_AXIS, Layers, max_pool
from imagenet_jax.models.summary import multiply_adds, operations

pytestmark = pytest.mark.numerics

# Parameters for 1000 classes, as torchvision counts them; the CIFAR one for 10.
PARAMETERS = {'resnet18': 11_689_512, 'resnet34': 21_797_672, 'resnet50': 25_557_032, 'resnet101': 44_549_160,
              'resnet152': 60_192_808, 'resnet32_cifar': 464_154}


def shapes(model, size=32, **kwargs):
    """(variables, answer) of a model as shapes, by tracing alone."""
    images = jax.ShapeDtypeStruct((2, size, size, 3), jnp.float32)
    answer, variables = jax.eval_shape(partial(model.init_with_output, **kwargs), jax.random.key(0), images)
    return variables, answer


def count(variables):
    return sum(leaf.size for leaf in jax.tree.leaves(variables['params']))


def flat(tree):
    return flax.traverse_util.flatten_dict(tree, sep='/')


def traced(name, size, **options):
    model = models.create(name, **options)
    images = jax.ShapeDtypeStruct((1, size, size, 3), jnp.float32)
    variables = jax.eval_shape(model.init, jax.random.key(0), images)
    return list(operations(jax.make_jaxpr(model.apply)(variables, images).jaxpr))


# --- the registry


@pytest.mark.parametrize(('name', 'parameters'), PARAMETERS.items())
def test_parameter_count(name, parameters):
    assert count(shapes(models.create(name))[0]) == parameters


@pytest.mark.parametrize(('name', 'size', 'options', 'millions'), [
    ('resnet50', 224, {}, 4089), ('resnet50', 224, {'stride_in_1x1': True}, 3858), ('resnet32_cifar', 32, {}, 69)])
def test_multiply_adds(name, size, options, millions):
    assert round(multiply_adds(traced(name, size, **options)) / 1e6) == millions


def test_names_come_in_numeric_order():
    names = models.names()
    assert {*PARAMETERS, *(f'resnet{depth}_cifar' for depth in (8, 20, 32, 44, 56, 110))} <= set(names)
    assert len(set(names)) == len(names)
    in_order = [n for n in names if n in PARAMETERS]
    assert in_order == ['resnet18', 'resnet32_cifar', 'resnet34', 'resnet50', 'resnet101', 'resnet152']


@pytest.mark.parametrize(('name', 'options', 'message'), [
    ('resnet5', {}, r"unknown model\.name 'resnet5'; did you mean .*resnet50"),
    ('resnet20_cifr', {}, r'did you mean resnet20_cifar'),
    ('inception', {}, r"unknown model\.name 'inception'; (did you mean|known:) "),
    ('resnet50', {'num_clases': 3}, r"option model\.num_clases: .*'num_clases'; did you mean num_classes\?"),
    ('resnet50', {'shortcut': 'A'}, r"model\.shortcut='A' is read by model\.name=.*resnet18v2 .*, not by resnet50;"),
    ('resnet18', {'stride_in_1x1': True}, r'model\.stride_in_1x1=True is read by .*resnet50.*, not by resnet18;'),
    ('resnet20_cifar', {'depth': 4}, r"option model\.depth: nothing reads 'depth'"),
    ('resnet20_cifar', {'parent': 1}, r"option model\.parent: nothing reads 'parent'"),
    ('resnet20_cifar', {'dtype': 'bf16'}, r"model\.dtype 'bf16'; did you mean bfloat16\?"),
    ('resnet20_cifar', {'dtype': jnp.int32}, r"model\.dtype 'int32'"),
    ('resnet50', {'stride_in_1x1': 'no'}, r"model\.stride_in_1x1='no' must be True or False"),
    ('resnet50', {'remat': 1}, r'model\.remat=1 must be True or False'),
    ('resnet50', {'num_classes': 'ten'}, r"model\.num_classes='ten' must be a whole number"),
    ('resnet50', {'num_classes': True}, r'model\.num_classes=True must be a whole number'),
    ('resnet50', {'num_classes': -1}, r'model\.num_classes=-1 must not be negative'),
    ('alexnet_v1', {'groups': 2.0}, r'model\.groups=2\.0 must be a whole number'),
    ('mobilenet_v2', {'width': 'abc'}, r"model\.width='abc' must be a finite number"),
    ('mobilenet_v2', {'width': float('nan')}, r'model\.width=nan must be a finite number'),
    ('mobilenet_v2', {'dropout': '.x'}, r"model\.dropout='\.x' must be a finite number"),
    ('resnet20_cifar', {'dtype': object()}, r'model\.dtype .*; known: bfloat16'),
    ('resnet20_cifar', {'param_dtype': 'float31'}, r"model\.param_dtype 'float31'; did you mean .*float32"),
    ('resnet20_cifar', {'norm': 'batc'}, r"model\.norm 'batc'; did you mean batch\?"),
    ('resnet20_cifar', {'act': 'relu7'}, r"model\.act 'relu7'; did you mean .*relu"),
    ('resnet20_cifar', {'shortcut': 'C'}, r"model\.shortcut 'C'; known: A, B")])
def test_refused_by_create(name, options, message):
    with pytest.raises(UserError, match=message):
        models.create(name, **options)


def test_an_option_without_value_is_not_set():
    assert models.create('mobilenet_v2', width=None, act=None) == models.create('mobilenet_v2')


# --- what every model answers


@pytest.mark.parametrize(('name', 'size', 'pooled', 'stages'), [
    ('resnet18', 64, 512, {'layer1': (16, 64), 'layer2': (8, 128), 'layer3': (4, 256), 'layer4': (2, 512)}),
    ('resnet50', 64, 2048, {'layer1': (16, 256), 'layer2': (8, 512), 'layer3': (4, 1024), 'layer4': (2, 2048)}),
    ('resnet20_cifar', 32, 64, {'layer1': (32, 16), 'layer2': (16, 32), 'layer3': (8, 64)})])
def test_answers(name, size, pooled, stages):
    variables, logits = shapes(models.create(name, num_classes=7), size)
    assert logits.shape == (2, 7)
    without, features = shapes(models.create(name, num_classes=0), size)
    assert features.shape == (2, pooled)
    assert count(variables) - count(without) == 7 * pooled + 7
    _, (logits, maps) = shapes(models.create(name, num_classes=7), size, features=True)
    assert logits.shape == (2, 7)
    assert {stage: m.shape for stage, m in maps.items()} == {s: (2, n, n, c) for s, (n, c) in stages.items()}


@pytest.mark.parametrize('name', ['resnet18', 'resnet50', 'resnet20_cifar'])
@pytest.mark.parametrize('dtype', ['bfloat16', 'float16', 'float32'])
def test_dtypes(name, dtype):
    for classes in (5, 0):
        model = models.create(name, num_classes=classes, dtype=dtype)
        variables, (answer, maps) = shapes(model, features=True)
        assert answer.dtype == jnp.float32
        assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype('float32')}
        assert {m.dtype for m in maps.values()} == {jnp.dtype(dtype)}


def test_odd_sizes_pass():
    assert shapes(models.create('resnet20_cifar'), 29)[1].shape == (2, 10)
    assert shapes(models.create('resnet18'), 75)[1].shape == (2, 1000)


def test_pooled_features_are_a_mean_in_float32():
    maps = jnp.full((2, 64, 64, 3), 0.1, jnp.bfloat16)
    pooled = classify(maps, 0, Layers(dtype=jnp.bfloat16), 'fc')
    assert pooled.dtype == jnp.float32
    np.testing.assert_allclose(pooled, np.full((2, 3), maps[0, 0, 0, 0].astype(jnp.float32)), rtol=1e-6)


# --- options


def strides(name, size, **options):
    """Of each convolution: kernel side -> strides in the order they run."""
    return [(e.invars[1].aval.shape[0], e.params['window_strides'][0])
            for e in traced(name, size, **options) if e.primitive.name == 'conv_general_dilated']


def test_stride_in_1x1_moves_the_stride():
    # The stem and one downsampling shortcut a stage stride either way.
    assert strides('resnet50', 64).count((3, 2)) == 3
    assert strides('resnet50', 64).count((1, 2)) == 3
    v1 = strides('resnet50', 64, stride_in_1x1=True)
    assert v1.count((3, 2)) == 0 and v1.count((1, 2)) == 6
    assert count(shapes(models.create('resnet50', stride_in_1x1=True))[0]) == PARAMETERS['resnet50']


# A model of each family, its own activation, and how often another one is fixed by its paper: the blocks at ReLU.
@pytest.mark.parametrize(('name', 'own', 'fixed'), [
    *((name, 'relu', {}) for name in ('alexnet_bn', 'zfnet', 'vgg11', 'resnet20_cifar', 'resnet18v2', 'seresnet50',
                                      'resnest50d', 'oct_resnet50', 'regnety_002', 'ghostnet_100')),
    ('mobilenet_v1', 'relu6', {}), ('mobilenet_v2', 'relu6', {}), ('mobilenet_v3_small', 'hard_swish', {'relu': 5})])
def test_act_is_the_models_one_activation(monkeypatch, name, own, fixed):
    calls = collections.Counter()

    def counting(kind, function):
        return lambda x: calls.update([kind]) or function(x)

    def counted(**options):
        calls.clear()
        shapes(models.create(name, **options), 32 if name.endswith('_cifar') else 64)
        return dict(calls)

    for kind, function in ACTIVATIONS.items():
        monkeypatch.setitem(ACTIVATIONS, kind, counting(kind, function))
    default = counted()
    assert default.keys() == {own, *fixed} and fixed.items() <= default.items()
    assert counted(act='mish') == {'mish': default[own]} | fixed


def test_shortcut_b_projects():
    padded, _ = shapes(models.create('resnet20_cifar'))
    projected, _ = shapes(models.create('resnet20_cifar', shortcut='B'))
    added = flat(projected['params']).keys() - flat(padded['params']).keys()
    assert {name.rsplit('/', 2)[0] for name in added} == {'layer2/0/downsample', 'layer3/0/downsample'}
    assert count(projected) - count(padded) == 16 * 32 + 2 * 32 + 32 * 64 + 2 * 64


def test_shortcut_a_subsamples_and_pads_on_both_sides():
    x = jax.random.normal(jax.random.key(0), (1, 4, 4, 4))
    shortcut = models.resnet_cifar.PaddingShortcut(Layers())
    y = shortcut.apply({}, x, 8, 2)
    np.testing.assert_array_equal(y[..., 2:6], x[:, ::2, ::2])
    assert not y[..., :2].any() and not y[..., 6:].any()
    np.testing.assert_array_equal(shortcut.apply({}, x, 4, 1), x)


@pytest.mark.parametrize(('name', 'last', 'branches'), [('resnet18', 'bn2', 8), ('resnet50', 'bn3', 16)])
def test_zero_gamma_is_the_last_norm_of_each_branch(name, last, branches):
    model = models.create(name, zero_gamma=True, num_classes=1)
    scales = initial_scales(model)
    zero = {path for path, value in scales.items() if value == 0}
    assert zero == {path for path in scales if path.endswith(f'/{last}/scale')}
    assert len(zero) == branches
    assert set(scales.values()) == {0.0, 1.0}
    assert set(initial_scales(models.create(name, num_classes=1)).values()) == {1.0}


def initial_scales(model):
    """Norm scale -> its initial value; what draws the rest falls out of the compiled program."""
    def scales():
        params = model.init(jax.random.key(0), jnp.zeros((1, 32, 32, 3)))['params']
        return {path: value.mean() for path, value in flat(params).items() if path.endswith('/scale')}
    return {path: float(value) for path, value in jax.jit(scales)().items()}


# --- layers


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
