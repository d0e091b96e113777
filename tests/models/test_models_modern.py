"""RegNet, ResNeSt, MobileNets, GhostNet and the octave ResNet: sizes, answers, options, and their layers."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from fixtures_blocks import filled
from fixtures_models import count, flat, initial_scales, shapes, traced
from flax.traverse_util import unflatten_dict

from imagenet_jax import models
from imagenet_jax.errors import UserError
from imagenet_jax.models import mobilenet_v3, octresnet, regnet, resnet_v2
from imagenet_jax.models.layers import BatchNorm, Layers, divisible, halve
from imagenet_jax.models.summary import layers, multiply_adds, operations, total

pytestmark = pytest.mark.numerics

# Parameters for 1000 classes, and millions of multiply-adds at 224 pixels.
SIZES = {
    'regnetx_040': (22_118_248, 3964), 'regnety_040': (20_646_656, 3973), 'regnety_064': (30_583_252, 6355),
    'resnest50': (27_464_008, 4091), 'resnest50d': (27_483_240, 5371), 'oct_resnet50': (25_557_032, 3521),
    'oct_resnet50v2': (25_549_352, 3521),
    'mobilenet_v1': (4_231_976, 569), 'mobilenet_v2': (3_504_872, 301), 'mobilenet_v3_large': (5_483_032, 217),
    'mobilenet_v3_small': (2_542_856, 57), 'ghostnet_100': (5_182_508, 141), 'ghostnet_130': (7_358_820, 227)}
STAGES = {
    'regnetx_002': ('s1', 's2', 's3', 's4'), 'regnety_002': ('s1', 's2', 's3', 's4'),
    'resnest50': ('layer1', 'layer2', 'layer3', 'layer4'), 'resnest50d': ('layer1', 'layer2', 'layer3', 'layer4'),
    'oct_resnet50': ('layer1.high', 'layer1.low', 'layer2.high', 'layer2.low', 'layer3.high', 'layer3.low', 'layer4'),
    'mobilenet_v1': tuple(f'blocks.{i}' for i in range(5)),
    'mobilenet_v2': tuple(f'features.{i}' for i in (1, 3, 6, 13, 17, 18)),
    'mobilenet_v3_large': tuple(f'features.{i}' for i in (1, 3, 6, 12, 15, 16)),
    'mobilenet_v3_small': tuple(f'features.{i}' for i in (1, 3, 8, 11, 12)),
    'ghostnet_100': tuple(f'blocks.{i}' for i in range(10))}


# --- sizes


@pytest.mark.parametrize(('name', 'parameters', 'millions'), [(name, *sizes) for name, sizes in SIZES.items()])
def test_size(name, parameters, millions):
    counted, multiply_adds = total(layers(models.create(name), 224))
    assert (counted, round(multiply_adds / 1e6)) == (parameters, millions)


@pytest.mark.parametrize(('name', 'depths', 'widths', 'groups'), [
    ('regnetx_040', (2, 5, 14, 2), (80, 240, 560, 1360), (40,) * 4),
    ('regnety_040', (2, 6, 12, 2), (128, 192, 512, 1088), (64,) * 4),
    ('regnety_064', (2, 7, 14, 2), (144, 288, 576, 1296), (72,) * 4),
    ('regnetx_002', (1, 1, 4, 7), (24, 56, 152, 368), (8,) * 4),
    ('regnetx_080', (2, 5, 15, 1), (80, 240, 720, 1920), (80, 120, 120, 120)),  # no group wider than its stage
    ('regnetx_320', (2, 7, 13, 1), (336, 672, 1344, 2520), (168,) * 4),
    ('regnety_320', (2, 5, 12, 1), (232, 696, 1392, 3712), (232,) * 4)])
def test_regnet_stages_are_the_papers(name, depths, widths, groups):
    model = models.create(name)
    sizes = regnet.stage_sizes(model.depth, model.w0, model.wa, model.wm, model.group_width)
    assert sizes == list(zip(depths, widths, groups, strict=True))


def test_every_regnet_has_four_stages_of_whole_groups():
    names = [name for name in models.names() if name.startswith('regnet')]
    assert len(names) == 24
    for name in names:
        model = models.create(name)
        sizes = regnet.stage_sizes(model.depth, model.w0, model.wa, model.wm, model.group_width)
        assert len(sizes) == 4 and sum(depth for depth, _, _ in sizes) == model.depth
        assert all(width % group == 0 for _, width, group in sizes)


# Parameters that the authors name: in millions, for widths of their tables.
@pytest.mark.parametrize(('name', 'width', 'millions'), [
    ('mobilenet_v1', 0.75, 2.6), ('mobilenet_v1', 0.5, 1.3), ('mobilenet_v1', 0.25, 0.5), ('mobilenet_v2', 1.4, 6.1)])
def test_width(name, width, millions):
    parameters = count(shapes(models.create(name, width=width), 64)[0])
    assert parameters / 1e6 == pytest.approx(millions, abs=0.051)


def test_divisible():
    assert [divisible(w) for w in (3, 8, 11, 12, 19, 45, 100)] == [8, 8, 16, 16, 24, 48, 104]
    assert divisible(16 * 1.3, 4) == 20


# --- what every model answers


@pytest.mark.parametrize('name', STAGES)
def test_answers(name):
    model = models.create(name, num_classes=7, dtype='bfloat16')
    variables, (logits, maps) = shapes(model, 75, features=True)
    assert set(maps) == set(STAGES[name])
    assert {m.dtype for m in maps.values()} == {jnp.dtype('bfloat16')}
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype('float32')}
    assert (logits.shape, logits.dtype) == ((2, 7), jnp.float32)
    without, pooled = shapes(models.create(name, num_classes=0, dtype='bfloat16'), 75)
    assert pooled.dtype == jnp.float32
    assert count(variables) - count(without) == 7 * pooled.shape[1] + 7


@pytest.mark.parametrize(('name', 'default'), [
    ('mobilenet_v3_small', 0.2), ('resnet8_cifar', 0.0), *(pytest.param(*case, marks=pytest.mark.slow) for case in (
        ('mobilenet_v2', 0.2), ('ghostnet_100', 0.2), ('resnet18v2', 0.0), ('regnetx_002', 0.0)))])
def test_dropout(name, default):
    def rates(train, **options):
        model = models.create(name, **options)
        images = jnp.zeros((2, 32, 32, 3))
        variables = jax.eval_shape(model.init, jax.random.key(0), images)
        call = jax.make_jaxpr(lambda v: model.apply(v, images, train=train, mutable=['batch_stats'],
                                                    rngs={'dropout': jax.random.key(1)}))
        return str(call(variables)).count('random_bits')

    assert (rates(train=True), rates(train=True, dropout=0.1)) == (1 if default else 0, 1)
    assert rates(train=False, dropout=0.1) == rates(train=True, dropout=0.0) == 0
    assert models.create(name).dropout == default


@pytest.mark.parametrize(('name', 'branches'), [('mobilenet_v2', 10), ('mobilenet_v3_small', 6), ('regnety_002', 13)])
def test_zero_gamma_is_for_branches_that_are_added(name, branches):
    scales = initial_scales(models.create(name, zero_gamma=True, num_classes=1))
    assert list(scales.values()).count(0.0) == branches


@pytest.mark.parametrize(('name', 'options', 'message'), [
    ('mobilenet_v2', {'dropout': 1.0}, r'model\.dropout=1\.0 must be in \[0, 1\)'),
    ('mobilenet_v2', {'dropout': -0.1}, r'model\.dropout=-0\.1 must be in'),
    ('oct_resnet50', {'alpha': 1.0}, r'model\.alpha=1\.0 must be in'),
    ('mobilenet_v1', {'width': 0.0}, r'model\.width=0\.0 must be above 0'),
    ('mobilenet_v3_large', {'width': 0.5}, r'model\.width=0\.5 is read by .*mobilenet_v1.*, not by mobilenet_v3')])
def test_refused(name, options, message):
    with pytest.raises(UserError, match=message):
        models.create(name, **options)


def test_mobilenet_v3_norms():
    model = mobilenet_v3.MobileNetV3(rows=((3, 16, 16, False, False, 1),), hidden=1, num_classes=0)
    images = jax.random.normal(jax.random.key(0), (2, 8, 8, 3))
    variables = jax.jit(model.init)(jax.random.key(1), images)
    call = jax.jit(lambda v: model.apply(v, images, train=True, mutable=['batch_stats']))
    kernel = variables['params']['features']['0']['0']['kernel']
    x = Layers().conv(16, 3, 2, name='conv').apply({'params': {'kernel': kernel}}, images)
    mean = call(variables)[1]['batch_stats']['features']['0']['1']['mean']
    np.testing.assert_allclose(mean, 0.01 * x.mean((0, 1, 2)), rtol=1e-3, atol=1e-6)


def test_every_norm_of_mobilenet_v3():
    seen = set()

    def note(call, args, kwargs, context):
        if isinstance(context.module, BatchNorm):
            seen.add((context.module.momentum, context.module.epsilon))
        return call(*args, **kwargs)

    with nn.intercept_methods(note):
        model = models.create('mobilenet_v3_small')
        jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 64, 64, 3)))
    assert seen == {(0.99, 1e-3)}


# --- octave convolution, which has no reference


@pytest.mark.parametrize(('kernel', 'stride'), [(1, 1), (3, 1), (3, 2)])
def test_octave_convolution_is_the_papers_equation(kernel, stride):
    conv = octresnet.OctaveConv(8, kernel, 0.25, Layers(), stride)
    rng = np.random.default_rng(0)
    high, low = (rng.normal(size=shape).astype(np.float32) for shape in ((1, 8, 12, 5), (1, 4, 6, 3)))
    (y_high, y_low), variables = jax.jit(conv.init_with_output)(jax.random.key(2), (high, low))

    def halved(x):
        return x.reshape(1, x.shape[1] // 2, 2, -1, 2, x.shape[3]).mean((2, 4))

    def path(name, x):
        rows, columns = x.shape[1:3]
        x = np.pad(x, ((0, 0), (kernel // 2,) * 2, (kernel // 2,) * 2, (0, 0)))
        return sum(x[:, i:i + rows, j:j + columns] @ np.asarray(variables['params'][name]['kernel'][i, j])
                   for i, j in np.ndindex(kernel, kernel))

    if stride == 2:
        high, low = halved(high), halved(low)
    assert (y_high.shape[-1], y_low.shape[-1]) == (6, 2)
    np.testing.assert_allclose(y_high, path('h2h', high) + np.kron(path('l2h', low), np.ones((1, 2, 2, 1))), rtol=1e-3,
                               atol=1e-5)
    np.testing.assert_allclose(y_low, path('l2l', low) + path('h2l', halved(high)), rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize('alpha', [0.125, 0.25, 0.5])
def test_octave_convolution_is_cheaper_not_smaller(alpha):
    """It saves three quarters of what has an end at low resolution (the paper's table 1: 82, 67 and 44% are left)."""
    conv = octresnet.OctaveConv(64, 3, alpha, Layers())
    low = int(64 * alpha)
    pair = jnp.zeros((1, 8, 8, 64 - low)), jnp.zeros((1, 4, 4, low))
    variables = jax.eval_shape(lambda: conv.init(jax.random.key(0), pair))
    assert count(variables) == 9 * 64 * 64
    cost = multiply_adds(operations(jax.make_jaxpr(lambda v: conv.apply(v, pair))(variables).jaxpr))
    assert cost / (64 * 9 * 64 * 64) == pytest.approx(1 - 3 / 4 * alpha * (2 - alpha))


@pytest.mark.parametrize('alpha', [0.0, 0.5])
def test_octave_resnet_has_resnets_parameters(alpha):
    assert count(shapes(models.create('oct_resnet50', alpha=alpha), 64)[0]) == 25_557_032


def test_octave_v2_block_without_low_maps_is_resnet_v2s():
    x = jnp.sin(jnp.arange(2 * 5 * 5 * 6.0)).reshape(2, 5, 5, 6)
    octave = octresnet.OctaveBottleneckV2(4, 1, Layers(), alpha=0.0)
    plain = resnet_v2.Bottleneck(4, 1, Layers(), shortcut='conv')
    variables = filled(jax.eval_shape(octave.init, jax.random.key(0), (x, None)))
    named = {path.replace('downsample/h2h', 'downsample/conv').replace('/h2h', '').replace('_h/', '/'): leaf
             for path, leaf in flat(variables).items()}
    y, low = jax.jit(octave.apply)(variables, (x, None))
    assert low is None
    np.testing.assert_allclose(y, jax.jit(plain.apply)(unflatten_dict(named, sep='/'), x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize('name', ['oct_resnet50', 'oct_resnet50v2'])
def test_octave_stages(name):
    _, (_, maps) = shapes(models.create(name), 75, features=True)
    sizes = {stage: m.shape[1:] for stage, m in maps.items()}
    assert sizes == {'layer1.high': (19, 19, 224), 'layer1.low': (10, 10, 32), 'layer2.high': (10, 10, 448),
                     'layer2.low': (5, 5, 64), 'layer3.high': (5, 5, 896), 'layer3.low': (3, 3, 128),
                     'layer4': (3, 3, 2048)}


def test_halve():
    x = jnp.arange(15.0).reshape(1, 3, 5, 1)
    np.testing.assert_allclose(halve(x)[0, ..., 0], [[3, 5, 6.5], [10.5, 12.5, 14]])


# --- ResNeSt


def test_resnest50_has_the_plain_stem_and_strides():
    strided = [(e.invars[1].aval.shape[0], e.params['feature_group_count']) for e in traced('resnest50', 64)
               if e.primitive.name == 'conv_general_dilated' and e.params['window_strides'] == (2, 2)]
    assert sorted(strided) == [(1, 1)] * 3 + [(3, 2)] * 3 + [(7, 1)]
    assert not any(e.primitive.name == 'reduce_window_sum' for e in traced('resnest50', 64))
