"""AlexNet, ZFNet, VGG, ResNet v2, ResNeXt, wide and SE-ResNet: counts, options, starting values, and their layers."""

import re

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from fixtures_models import count, flat, shapes, strides

from imagenet_jax import models
from imagenet_jax.catalog import image_size
from imagenet_jax.errors import UserError
from imagenet_jax.models import plain, zfnet
from imagenet_jax.models.layers import Layers, SqueezeExcite, adaptive_mean_pool, local_response_norm, max_pool
from imagenet_jax.models.plain import Classifier
from imagenet_jax.models.summary import layers, operations, total

pytestmark = pytest.mark.numerics

# Parameters for 1000 classes (CIFAR: 10), and millions of multiply-adds at 224 pixels (CIFAR: 32).
MODELS = {
    'alexnet_v1': (60_965_224, 724), 'alexnet_bn': (60_974_792, 724), 'alexnet_v2': (61_838_248, 839),
    'alexnet': (61_100_840, 714), 'alexnet_cifar': (57_026_378, 187), 'alexnet_v1_cifar': (58_294_666, 276),
    'zfnet': (62_357_608, 1168), 'zfnet_bn': (62_358_984, 1168),
    'vgg11': (132_863_336, 7609), 'vgg13': (133_047_848, 11308), 'vgg16': (138_357_544, 15470),
    'vgg19': (143_667_240, 19632), 'vgg11_bn': (132_868_840, 7609), 'vgg13_bn': (133_053_736, 11308),
    'vgg16_bn': (138_365_992, 15470), 'vgg19_bn': (143_678_248, 19632),
    'resnet18d': (11_708_744, 2054), 'resnet34d': (21_816_904, 3903), 'resnet50d': (25_576_264, 4329),
    'resnet101d': (44_568_392, 8041), 'resnet152d': (60_212_040, 11753),
    'resnet18v2': (11_687_720, 1814), 'resnet34v2': (21_795_880, 3664), 'resnet50v2': (25_549_352, 4089),
    'resnet101v2': (44_541_480, 7801), 'resnet152v2': (60_185_128, 11514),
    'resnext50_32x4d': (25_028_904, 4230), 'resnext101_32x8d': (88_791_336, 16414),
    'wide_resnet50_2': (68_883_240, 11398),
    'seresnet18': (11_779_624, 1814), 'seresnet34': (21_960_416, 3664), 'seresnet50': (28_088_024, 4092),
    'seresnet101': (49_326_872, 7806),
}
PLAIN = [name for name in MODELS if name.startswith(('alexnet', 'zfnet', 'vgg'))]


@pytest.mark.parametrize(('name', 'parameters', 'millions'), [(name, *row) for name, row in MODELS.items()])
def test_parameters_and_multiply_adds(name, parameters, millions):
    counted, multiply_adds = total(layers(models.create(name), image_size(name)))
    assert (counted, round(multiply_adds / 1e6)) == (parameters, millions)


@pytest.mark.parametrize('name', PLAIN)
def test_answers(name, dtype='bfloat16'):
    model = models.create(name, num_classes=7, dtype=dtype)
    variables, (logits, maps) = shapes(model, 64, features=True)
    assert logits.shape == (2, 7) and logits.dtype == jnp.float32
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype('float32')}
    assert {m.dtype for m in maps.values()} == {jnp.dtype(dtype)}
    assert all(path.startswith('features.') for path in maps) and len(maps) == (5 if 'vgg' in name else 3)
    without, hidden = shapes(models.create(name, num_classes=0, dtype=dtype), 64)
    assert hidden.shape == (2, 4096) and hidden.dtype == jnp.float32
    assert count(variables) - count(without) == 7 * 4096 + 7


@pytest.mark.parametrize('name', ['resnet18v2', 'resnet50v2', 'resnext50_32x4d', 'wide_resnet50_2', 'seresnet18',
                                  'seresnet50'])
def test_residual_networks_answer(name):
    variables, (logits, maps) = shapes(models.create(name, num_classes=7, dtype='bfloat16'), 64, features=True)
    assert logits.shape == (2, 7) and logits.dtype == jnp.float32
    width = 512 if '18' in name or '34' in name else 2048
    expected = [(2, 16 // 2**i, 16 // 2**i, width // 8 * 2**i) for i in range(4)]
    assert [maps[path].shape for path in sorted(maps)] == expected
    assert {m.dtype for m in maps.values()} == {jnp.dtype('bfloat16')}
    without, pooled = shapes(models.create(name, num_classes=0, dtype='bfloat16'), 64)
    assert pooled.shape == (2, width) and pooled.dtype == jnp.float32
    assert count(variables) - count(without) == 7 * width + 7


@pytest.mark.parametrize('name', PLAIN)
def test_flattened_map(name):
    """The map before the named dense layer has the shape that `flattens` says: at 224 pixels nothing is averaged."""
    model = models.create(name, num_classes=2)
    (path, (c, h, w)), = model.flattens.items()
    variables, (_, maps) = shapes(model, image_size(name), features=True)
    assert flat(variables['params'])[path.replace('.', '/') + '/kernel'].shape == (c * h * w, 4096)
    last = max(maps, key=lambda path: int(re.sub(r'\D', '', path)))
    assert maps[last].shape == ((2, 2, 2, c) if image_size(name) == 32 else (2, h, w, c))


# --- options


def test_groups_of_the_towers():
    for name in ('alexnet_v1', 'alexnet_bn'):
        two, one = (flat(shapes(models.create(name, **o), 64)[0]['params']) for o in ({}, {'groups': 1}))
        wider = {path for path in two if two[path].shape != one[path].shape}
        indices = (4, 10, 12) if name == 'alexnet_v1' else (4, 11, 14)
        assert wider == {f'features/{i}/kernel' for i in indices}
        assert all(one[path].shape[2] == 2 * two[path].shape[2] for path in wider)


@pytest.mark.parametrize('name', ['alexnet', 'alexnet_bn', 'zfnet', 'vgg11'])
def test_dropout_is_drawn_twice_and_in_training_alone(name):
    def draws(train, **options):
        model, images = models.create(name, num_classes=3, **options), jax.ShapeDtypeStruct((2, 64, 64, 3), jnp.float32)
        variables = jax.eval_shape(model.init, jax.random.key(0), images)
        program = jax.make_jaxpr(lambda variables, images: model.apply(
            variables, images, train=train, rngs={'dropout': jax.random.key(0)}, mutable=['batch_stats']))
        names = [equation.primitive.name for equation in operations(program(variables, images).jaxpr)]
        return names.count('random_bits')
    assert (draws(True), draws(False), draws(True, dropout=0.0)) == (2, 0, 0)


@pytest.mark.parametrize('first', [True, False])
def test_dropout_of_hidden_layers(first):
    module = Classifier(0, Layers(train=True, dropout_rate=0.25), dropout_first=first, bias=1.0)
    x = jnp.ones((4, 8))
    variables = {'params': {str(i): {'kernel': jnp.zeros((n, 4096)), 'bias': jnp.ones(4096)}
                            for i, n in (((1, 8), (4, 4096)) if first else ((0, 8), (3, 4096)))}}
    y = module.apply(variables, x, rngs={'dropout': jax.random.key(0)})
    # Ahead of the hidden layers nothing of their own output is lost; after them a quarter is, the rest scaled up.
    assert set(np.unique(y)) == ({1.0} if first else {0.0, np.float32(1 / 0.75)})
    assert (y != 0).mean() == (1 if first else pytest.approx(0.75, abs=0.02))


@pytest.mark.parametrize(('name', 'option'), [
    ('alexnet', 'groups'), ('alexnet', 'batch_norm'), ('vgg16', 'zero_gamma'), ('resnet9_cifar', 'zero_gamma'),
    ('resnet50', 'groups'), ('resnext50_32x4d', 'group_width'), ('resnet50v2', 'block'), ('resnet50v2', 'zero_gamma')])
def test_what_defines_a_model_is_no_option(name, option):
    with pytest.raises(UserError, match=rf'model\.{option}.*(, not by {name}|: nothing reads)'):
        models.create(name, **{option: 1})


def test_average_pool_shortcut():
    plain, pooled = strides('resnet50v2', 64), strides('resnet50v2', 64, shortcut='avgpool')
    assert plain.count((1, 2)) == 3 and pooled.count((1, 2)) == 0
    assert plain.count((3, 2)) == pooled.count((3, 2)) == 3
    assert count(shapes(models.create('resnet50v2', shortcut='avgpool'), 64)[0]) == MODELS['resnet50v2'][0]
    with pytest.raises(UserError, match=r"model\.shortcut 'B'; known: conv, avgpool"):
        models.create('resnet50v2', shortcut='B')


def test_too_small_images_are_refused():
    with pytest.raises(UserError, match='images too small'):
        shapes(models.create('alexnet'), 32)


# --- starting values


def test_alexnet_starts_as_in_the_paper():
    model = models.create('alexnet_v1')

    def moments():  # the large dense layers are not answered, so they fall out of the program
        params = flat(model.init(jax.random.key(0), jnp.zeros((1, 64, 64, 3)))['params'])
        return ({path: params[path].std() for path in params if path.startswith('features/') and 'kernel' in path},
                {path: (params[path].min(), params[path].max()) for path in params if path.endswith('/bias')})
    deviations, biases = jax.jit(moments)()
    assert len(deviations) == 5 and all(v == pytest.approx(0.01, rel=0.02) for v in deviations.values())
    ones = {f'{path}/bias' for path in ('features/4', 'features/10', 'features/12', 'classifier/1', 'classifier/4')}
    assert {path for path, value in biases.items() if value == (1, 1)} == ones
    assert {path for path, value in biases.items() if value == (0, 0)} == set(biases) - ones and len(biases) == 8


# --- layers


def test_local_response_norm():
    x = 5 * jax.random.normal(jax.random.key(0), (2, 3, 3, 7))
    k, n, alpha, beta = 2.0, 5, 0.1, 0.75
    for j in range(7):
        near = x[..., max(0, j - 2):j + 3]
        expected = x[..., j] / (k + alpha * (near**2).sum(-1))**beta
        np.testing.assert_allclose(local_response_norm(x, k, n, alpha, beta)[..., j], expected, rtol=1e-5)
    large = jnp.full((1, 1, 1, 4), 1e4, jnp.float16)  # whose squares no float16 holds
    y = local_response_norm(large, k, n, 1e-4, beta)
    assert y.dtype == jnp.float16 and np.isfinite(np.asarray(y, np.float32)).all()


@pytest.mark.parametrize(('name', 'alpha', 'count'), [
    ('alexnet_v1', 1e-4, 2), ('alexnet_v1_cifar', 1e-4, 3), ('zfnet', 2e-5, 2)])
def test_local_response_norms_of_the_models(monkeypatch, name, alpha, count):
    model, seen = models.create(name, num_classes=2), []
    for module in plain, zfnet:
        monkeypatch.setattr(module, 'local_response_norm', lambda x, **settings: seen.append(settings) or x)
    images = jnp.zeros((1, image_size(name), image_size(name), 3))
    jax.eval_shape(lambda: model.init(jax.random.key(0), images))
    assert seen == [{'k': 2.0, 'n': 5, 'alpha': alpha, 'beta': 0.75}] * count


@pytest.mark.parametrize(('height', 'width', 'size'), [(13, 8, 6), (6, 6, 6), (2, 2, 7), (1, 9, 7), (14, 14, 7)])
def test_adaptive_mean_pool(height, width, size):
    x = np.asarray(jax.random.normal(jax.random.key(0), (2, height, width, 3)))
    y = adaptive_mean_pool(jnp.asarray(x), size)
    for i in range(size):
        for j in range(size):
            rows = slice(i * height // size, -(-(i + 1) * height // size))
            columns = slice(j * width // size, -(-(j + 1) * width // size))
            np.testing.assert_allclose(y[:, i, j], x[:, rows, columns].mean((1, 2)), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(('gate', 'function'), [
    (nn.sigmoid, lambda x: 1 / (1 + np.exp(-x))), (nn.hard_sigmoid, lambda x: np.clip(x + 3, 0, 6) / 6)])
def test_squeeze_excite(gate, function):
    x = np.asarray(jax.random.normal(jax.random.key(0), (2, 4, 4, 6)))
    module = SqueezeExcite(3, Layers(), gate=gate, names=('reduce', 'expand'))
    y, variables = module.init_with_output(jax.random.key(1), x)
    first, second = (variables['params'][name] for name in ('reduce', 'expand'))
    assert first['bias'].shape == (3,) and second['bias'].shape == (6,)
    hidden = np.maximum(x.mean((1, 2)) @ first['kernel'][0, 0], 0)
    expected = x * function(hidden @ second['kernel'][0, 0])[:, None, None]
    np.testing.assert_allclose(y, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize('size', [8, 9, 110])
def test_max_pool_counts_windows_partly_outside(size):
    x = jax.random.normal(jax.random.key(0), (1, size, size, 2)) - 10  # a padding of 0 would win
    y = max_pool(x, 3, 2, 0, ceil=True)
    assert y.shape[1] == -(-(size - 3) // 2) + 1
    np.testing.assert_array_equal(y[0, -1, -1], x[0, 2 * (y.shape[1] - 1):, 2 * (y.shape[1] - 1):].max((0, 1)))
