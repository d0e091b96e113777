"""The norms that config.model.norm may name beside BatchNorm, each against another's or a plain reference."""

import collections
import functools
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from fixtures_blocks import KINDS
from fixtures_models import flat, shapes

from imagenet_jax import models, weights
from imagenet_jax.errors import UserError
from imagenet_jax.models.layers import ACTIVATIONS, FROZEN, Layers, choice

pytestmark = pytest.mark.numerics


class NormAct(nn.Module):
    """What a block makes of a norm and an activation, or of a norm alone."""
    layers: Layers
    act: bool = True

    @nn.compact
    def __call__(self, x):
        return self.layers.norm_act(x, 'bn') if self.act else self.layers.norm('bn')(x)


def maps(*shape, seed=0):
    """Of another mean and deviation in each channel."""
    random = np.random.default_rng(seed)
    shape = shape or (4, 5, 6, 64)
    return (random.normal(size=shape) * random.uniform(0.5, 2, shape[-1]) + random.normal(size=shape[-1])
            ).astype(np.float32)


def filled(shapes):
    """Variables of these shapes, at no start's values."""
    return jax.tree.map(lambda s: (1 + np.cos(np.arange(s.size) * 1.7).reshape(s.shape) / 2).astype(s.dtype), shapes)


def applied(kind, x, train, act=False, variables=None, **more):
    """(answer, variables, updated statistics) of a norm of that kind whose parameters are no start's."""
    module = NormAct(Layers(train, norm_kind=kind, **more), act)
    variables = variables or filled(jax.eval_shape(NormAct(Layers(norm_kind=kind), act).init, jax.random.key(0), x))
    y, updated = jax.jit(partial(module.apply, mutable=['batch_stats']))(variables, x)
    return np.asarray(y, np.float32), variables, updated.get('batch_stats', {}).get('bn', {})


def torch_tensors(variables):
    """A norm's parameters and statistics by name, as tensors."""
    torch = pytest.importorskip('torch')
    return {path.split('/')[-1]: torch.from_numpy(np.array(value)) for path, value in flat(variables).items()}


def nchw(x):
    return pytest.importorskip('torch').from_numpy(np.ascontiguousarray(np.moveaxis(x, -1, 1)))


def nhwc(x):
    return np.moveaxis(x.detach().numpy(), 1, -1)


# --- group


@pytest.mark.parametrize(('shape', 'groups'), [
    ((4, 5, 6, 64), 32), ((4, 5, 6, 24), 8), ((4, 3, 3, 40), 8), ((4, 3, 3, 16), 16), ((4, 4096), 32),
    ((4, 1, 1, 256), 32), ((4, 1, 1, 32), 1)])
def test_group_norm_is_pytorchs(shape, groups):
    """By the greatest common divisor of 32 and the channels; a group of one number alone would leave nothing."""
    torch = pytest.importorskip('torch')
    x = maps(*shape)
    for train in (True, False):
        y, variables, statistics = applied('group', x, train)
        theirs = torch_tensors(variables)
        expected = torch.nn.functional.group_norm(nchw(x), groups, theirs['scale'], theirs['bias'], 1e-5)
        np.testing.assert_allclose(y, nhwc(expected), rtol=1e-4, atol=1e-5)
        assert statistics == {}


# --- switchable


def switchable(x, params, running=None):
    """Plainly, by the paper's equations 3 to 5, in float64."""
    x = x.astype(np.float64)
    sets = {'instance': (1, 2), 'layer': (1, 2, 3), 'batch': (0, 1, 2)}
    means, variances = ([f(x, axis=axes, keepdims=True) for axes in sets.values()] for f in (np.mean, np.var))
    batch = means[2].ravel(), variances[2].ravel()
    if running:
        means[2], variances[2] = running['mean'], running['var']

    def mixed(name, values):
        weights = np.exp(np.asarray(params[name], np.float64))
        return sum(w * v for w, v in zip(weights / weights.sum(), values, strict=True))

    mean, var = mixed('mean_weight', means), mixed('var_weight', variances)
    return (x - mean) / np.sqrt(var + 1e-5) * params['scale'] + params['bias'], batch


def test_switchable_norm():
    x = maps()
    y, variables, updated = applied('switchable', x, train=True)
    params, before = variables['params']['bn'], variables['batch_stats']['bn']
    assert params['mean_weight'].shape == params['var_weight'].shape == (3,)
    assert np.ptp(params['mean_weight']) > 0.1 and not np.array_equal(params['mean_weight'] * 0 + 1,
                                                                      params['var_weight'])
    expected, (mean, var) = switchable(x, params)
    np.testing.assert_allclose(y, expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(updated['mean'], 0.9 * before['mean'] + 0.1 * mean, rtol=1e-5)
    np.testing.assert_allclose(updated['var'], 0.9 * before['var'] + 0.1 * var, rtol=1e-5)
    y, _, same = applied('switchable', x, train=False, variables=variables)
    np.testing.assert_allclose(y, switchable(x, params, before)[0], rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(same['mean'], before['mean'])


def test_switchable_norm_starts_undecided():
    params = jax.jit(NormAct(Layers(norm_kind='switchable')).init)(jax.random.key(0), maps())['params']['bn']
    assert all(np.array_equal(params[name], [1, 1, 1]) for name in ('mean_weight', 'var_weight'))


# --- EvoNorm


@pytest.mark.parametrize('act', [True, False])
def test_evonorm_is_timms(act):
    """Answers and gradients; of the running variance timm keeps the unbiased one, n/(n-1) times the batch's."""
    torch = pytest.importorskip('torch')
    pytest.importorskip('torch_reference').torchvision_models()
    layer = pytest.importorskip('timm.layers').EvoNorm2dB0(64, apply_act=act, eps=1e-5).train()
    x, count = maps(), 4 * 5 * 6
    y, variables, updated = applied('evonorm_b0', x, train=True, act=act)
    ours = torch_tensors(variables)
    assert ours.keys() == ({'scale', 'bias', 'v', 'var'} if act else {'scale', 'bias'})
    names = {'scale': 'weight', 'var': 'running_var'}
    layer.load_state_dict({'running_var': torch.ones(64), **{names.get(k, k): v for k, v in ours.items()}})
    inputs = nchw(x).requires_grad_()
    theirs = layer(inputs)
    np.testing.assert_allclose(y, nhwc(theirs), rtol=1e-4, atol=1e-5)
    theirs.sin().sum().backward()
    module = NormAct(Layers(train=True, norm_kind='evonorm_b0'), act)
    gradient = jax.jit(jax.grad(lambda x: jnp.sin(module.apply(variables, x, mutable=['batch_stats'])[0]).sum()))(x)
    np.testing.assert_allclose(gradient, nhwc(inputs.grad), rtol=1e-3, atol=1e-4)
    if act:
        before = np.asarray(ours['var'])
        moved = (layer.running_var.numpy() - 0.9 * before) * (count - 1) / count
        np.testing.assert_allclose(updated['var'], 0.9 * before + moved, rtol=1e-4)
        layer.load_state_dict({names.get(k, k): v for k, v in ours.items()})
    y, *_ = applied('evonorm_b0', x, train=False, act=act, variables=variables)
    np.testing.assert_allclose(y, nhwc(layer.eval()(nchw(x))), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(('name', 'left'), [('resnet18', 8), ('resnet18v2', 0)])
def test_evonorm_is_the_activation_after_a_norm(monkeypatch, name, left):
    """What is left follows no norm: the sums of blocks."""
    calls = collections.Counter()
    def counted(x):
        calls.update(['relu'])
        return jax.nn.relu(x)
    monkeypatch.setitem(ACTIVATIONS, 'relu', counted)
    monkeypatch.setattr(choice, 'relu_of_sum', counted)
    variables, _ = shapes(models.create(name, norm='evonorm_b0'), 64)
    assert calls['relu'] == left
    kept = {path.rpartition('/')[0] for path in flat(variables['batch_stats'])}
    assert kept == {path.removesuffix('/v') for path in flat(variables['params']) if path.endswith('/v')} != set()


def test_evonorm_refuses_an_activation():
    with pytest.raises(UserError, match=r'model\.act=swish cannot be with model\.norm=evonorm_b0'):
        models.create('resnet18', norm='evonorm_b0', act='swish')


# --- frozen


def test_frozen_norm_is_torchvisions():
    pytest.importorskip('torch_reference').torchvision_models()
    layer = pytest.importorskip('torchvision.ops').FrozenBatchNorm2d(64)
    x = maps()
    answers = []
    for train in (True, False):
        y, variables, statistics = applied('frozen', x, train)
        assert flat(statistics).keys() == {'mean', 'var'}
        jax.tree.map(np.testing.assert_array_equal, statistics, variables['batch_stats']['bn'])
        answers.append(y)
    names = {'scale': 'weight', 'mean': 'running_mean', 'var': 'running_var'}
    layer.load_state_dict({names.get(k, k): v for k, v in torch_tensors(variables).items()})
    for y in answers:
        np.testing.assert_allclose(y, nhwc(layer(nchw(x))), rtol=1e-4, atol=1e-5)
    module = NormAct(Layers(train=True, norm_kind='frozen'))
    gradient = jax.jit(jax.grad(lambda variables: module.apply(variables, x).sum()))(variables)['params']
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(gradient))
    # The variables of BatchNorm, so that weights and runs of one start the other.
    assert flat(variables).keys() == flat(applied('batch', x, train=True)[1]).keys()


def test_frozen_norm_refuses_scales_of_0():
    with pytest.raises(UserError, match=r'model\.zero_gamma=True .* model\.norm=frozen'):
        models.create('resnet18', norm='frozen', zero_gamma=True)


@pytest.mark.parametrize('kind', ['switchable', 'evonorm_b0'])
def test_norms_that_config_freeze_names_use_running_statistics(kind):
    x = maps()
    evaluated, variables, _ = applied(kind, x, train=False, act=True)
    frozen, _, updated = applied(kind, x, train=True, act=True, variables={**variables, FROZEN: {'bn': {'norm': ()}}})
    np.testing.assert_array_equal(frozen, evaluated)
    jax.tree.map(np.testing.assert_array_equal, updated, variables['batch_stats']['bn'])


# --- all of them


@pytest.mark.parametrize(('kind', 'dtype'), [
    ('group', 'bfloat16'), ('switchable', 'bfloat16'), ('switchable', 'float16'), ('evonorm_b0', 'bfloat16'),
    ('evonorm_b0', 'float16'), ('frozen', 'bfloat16')])
def test_half_precision(kind, dtype):
    """Statistics of values so large that their squares leave float16; answers as exact as their dtype."""
    x = jnp.asarray(maps() * 100 + 1000, dtype)
    exact, variables, updated = applied(kind, np.asarray(x, np.float32), train=True, act=True)
    module = NormAct(Layers(True, jnp.dtype(dtype), norm_kind=kind))
    y, also = jax.jit(partial(module.apply, mutable=['batch_stats']))(variables, x)
    assert y.dtype == dtype
    np.testing.assert_allclose(np.asarray(y, np.float32), exact, rtol=0.01, atol=0.01 * np.abs(exact).max())
    for name, value in updated.items():
        assert also['batch_stats']['bn'][name].dtype == jnp.float32
        np.testing.assert_allclose(also['batch_stats']['bn'][name], value, rtol=1e-4)


@functools.cache
def block(kind, norm):
    """(answer, variables) of a block of that kind in training, as shapes."""
    x = jax.ShapeDtypeStruct((2, 6, 6, 8), jnp.float32)
    x = (x, jax.ShapeDtypeStruct((2, 3, 3, 8), jnp.float32)) if 'octave' in kind else x
    module = KINDS[kind](layers=Layers(train=True, norm_kind=norm, drop_block_rate=0.1))
    return jax.eval_shape(module.init_with_output, {'params': jax.random.key(0), 'drop_block': jax.random.key(1)}, x)


@pytest.mark.parametrize('norm', ['switchable', 'evonorm_b0'])
@pytest.mark.parametrize('kind', KINDS)
def test_every_block_takes_it(kind, norm):
    """And has no other variables than with BatchNorm, but those of the norm's own."""
    (y, variables), (expected, batch) = block(kind, norm), block(kind, 'batch')
    assert y == expected
    paths, own = flat(variables['params']).keys(), {'mean_weight', 'var_weight', 'v'}
    assert {path for path in paths if path.split('/')[-1] not in own} == flat(batch['params']).keys() < paths


@pytest.mark.parametrize('norm', ['switchable', 'evonorm_b0'])
def test_weights_go_out_and_come_back(norm):
    model = models.create('resnet8_cifar', norm=norm)
    variables = filled(shapes(model)[0])
    again = weights.from_torch(model, weights.to_torch(model, variables))
    jax.tree.map(np.testing.assert_array_equal, again, variables)


def test_weights_of_batch_norm():
    """Fit the frozen one, and are refused by norms that have other arrays."""
    model = models.create('resnet8_cifar')
    theirs = weights.to_torch(model, filled(shapes(model)[0]))
    weights.from_torch(model.clone(norm='frozen'), theirs)
    with pytest.raises(UserError, match=r'unexpected: bn1\.running_mean'):
        weights.from_torch(model.clone(norm='group'), theirs)
