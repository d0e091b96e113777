"""Models by shape where no numbers are needed; their layers by number."""

import collections
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from fixtures_models import count, flat, initial_scales, shapes, strides, traced

from imagenet_jax import models
from imagenet_jax.errors import UserError
from imagenet_jax.models import resnet_v2
from imagenet_jax.models.blocks import classify
from imagenet_jax.models.layers import ACTIVATIONS, NORMS, Layers, batch_norm, choice
from imagenet_jax.models.layers.activations import relu_of_sum
from imagenet_jax.models.summary import multiply_adds

pytestmark = pytest.mark.numerics

# Parameters for 1000 classes, as torchvision counts them; the CIFAR one for 10.
PARAMETERS = {'resnet18': 11_689_512, 'resnet34': 21_797_672, 'resnet50': 25_557_032, 'resnet101': 44_549_160,
              'resnet152': 60_192_808, 'resnet32_cifar': 464_154}


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
    ('resnet50', {'shortcut': 'A'}, r"unknown model\.shortcut 'A'; known: conv, avgpool"),
    ('resnet50', {'stem': 'wide'}, r"unknown model\.stem 'wide'; known: conv, deep"),
    ('resnest50', {'shortcut': 'A'}, r"model\.shortcut='A' is read by model\.name=.*resnet18 .*, not by resnest50"),
    ('resnet18', {'stride_in_1x1': True}, r'model\.stride_in_1x1=True is read by .*resnet50.*, not by resnet18'),
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


def test_stride_in_1x1_moves_the_stride():
    # The stem and one downsampling shortcut a stage stride either way.
    assert strides('resnet50', 64).count((3, 2)) == 3
    assert strides('resnet50', 64).count((1, 2)) == 3
    v1 = strides('resnet50', 64, stride_in_1x1=True)
    assert v1.count((3, 2)) == 0 and v1.count((1, 2)) == 6
    assert count(shapes(models.create('resnet50', stride_in_1x1=True))[0]) == PARAMETERS['resnet50']


# A model of each kind that there is, and which of them take a switch.
V1 = {'resnet18', 'resnet50', 'resnext50_32x4d', 'wide_resnet50_2'}
KINDS = V1 | {'alexnet', 'alexnet_bn', 'zfnet', 'zfnet_bn', 'vgg11', 'vgg11_bn', 'resnet18d', 'seresnet50',
              'resnet18v2', 'resnet20_cifar', 'resnest50d', 'oct_resnet50', 'regnetx_002', 'regnety_002',
              'mobilenet_v1', 'mobilenet_v2', 'mobilenet_v3_small', 'ghostnet_100'}
WITHOUT_NORMS = {'alexnet', 'zfnet', 'vgg11'}
TAKEN = [
    *(('act', act, KINDS) for act in ACTIVATIONS), ('norm', 'batch', KINDS),
    *(('norm', norm, KINDS - WITHOUT_NORMS) for norm in NORMS if norm != 'batch'),
    *((drop, 0.1, KINDS - WITHOUT_NORMS - {'alexnet_bn', 'zfnet_bn', 'vgg11_bn', 'mobilenet_v1'})
      for drop in ('drop_path', 'drop_block')),
    ('antialias', True, V1 | {'resnet18d', 'seresnet50'}),
    ('squeeze_excite', True, V1 | {'resnet18d', 'resnet18v2', 'resnet20_cifar'}),
    ('stem', 'deep', V1 | {'seresnet50'}), ('shortcut', 'avgpool', V1 | {'seresnet50', 'resnet18v2'})]


@pytest.mark.parametrize(('option', 'value', 'takers'), TAKEN, ids=lambda x: str(x) if not isinstance(x, set) else '')
def test_who_takes_a_switch(option, value, takers):
    for name in KINDS:
        if name in takers:
            assert getattr(models.create(name, **{option: value}), option) == value
        else:
            with pytest.raises(UserError, match=rf'model\.{option}=.*( is read by .*, not by {name}|has no norms'
                                                rf')|unknown model\.{option} '):
                models.create(name, **{option: value})


def test_antialias_leaves_one_stride():
    """The stem's; each 3x3, 1x1 and the max-pool is dense, in the paper's form of the bottleneck too."""
    for options in ({}, {'stride_in_1x1': True}):
        assert [stride for _, stride in strides('resnet50', 64, antialias=True, **options)] == [2] + [1] * 52
    model = models.create('resnet50')
    variables, (_, maps) = shapes(model, 75, features=True)
    same, (_, blurred) = shapes(model.clone(antialias=True), 75, features=True)
    assert (same, blurred) == (variables, maps)


@pytest.mark.parametrize(('name', 'of'), [('resnet18d', 'resnet18'), ('resnet50d', 'resnet50')])
def test_resnet_d_is_a_stem_and_a_shortcut(name, of):
    assert shapes(models.create(name)) == shapes(models.create(of, stem='deep', shortcut='avgpool'))


# --- squeeze and excitation where a switch adds it


@pytest.mark.parametrize('block', [partial(resnet_v2.Basic, 8, 1), partial(resnet_v2.Bottleneck, 2, 1)])
def test_gate_of_pre_activation_blocks(block):
    """It is the branch that is gated: with weights of 0, by the sigmoid of the gate's bias."""
    x = np.sin(np.arange(2.0 * 4 * 4 * 8)).reshape(2, 4, 4, 8).astype(np.float32)
    plain, gated = (block(Layers(), shortcut='conv', se_ratio=ratio) for ratio in (0, 2))
    variables = jax.tree.map(lambda s: np.cos(np.arange(s.size)).reshape(s.shape).astype(s.dtype) + 2,
                             jax.eval_shape(gated.init, jax.random.key(0), x))
    variables['params']['se']['fc2']['kernel'] *= 0
    gate = 1 / (1 + np.exp(-variables['params']['se']['fc2']['bias']))
    y, without = (jax.jit(module.apply)(variables, x) for module in (gated, plain))
    np.testing.assert_allclose(y - x, (without - x) * gate, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize(('name', 'blocks'), [('resnet20_cifar', 9), ('resnet18v2', 8)])
def test_squeeze_excite_adds_one_to_each_block(name, blocks):
    plain, gated = (flat(shapes(models.create(name, squeeze_excite=on))[0]['params']) for on in (False, True))
    added = {path: leaf for path, leaf in gated.items() if path not in plain}
    assert len(added) == 4 * blocks and all('/se/' in path for path in added)
    for path, leaf in added.items():
        if path.endswith('fc1/kernel'):
            assert leaf.shape[-1] == max(8, leaf.shape[-2] // 16)


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
    for module in batch_norm, choice:
        monkeypatch.setattr(module, 'relu_of_sum', counting('relu', relu_of_sum))
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
