"""Weights of PyTorch models come in and go out to the bit, and what does not fit is named."""

from typing import ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from fixtures_weights import assert_same, random_variables
from runs import ROOT

from imagenet_jax import models, weight_files, weights
from imagenet_jax.errors import UserError

CIFAR_WEIGHTS = ROOT.parent / 'shared' / 'data' / 'weights' / 'resnet20_cifar10.th'


@pytest.mark.parametrize('name', ['resnet18', 'resnet50', 'resnet20_cifar'])
def test_round_trip(name):
    model = models.create(name)
    variables = random_variables(model)
    state_dict = weights.to_torch(model, variables)
    assert_same(weights.from_torch(model, state_dict), variables)
    counters = {n: v for n, v in state_dict.items() if n.endswith('num_batches_tracked')}
    assert len(counters) == sum(n.endswith('running_var') for n in state_dict)
    assert all(v.dtype == np.int64 and v.shape == () and v == 0 for v in counters.values())
    assert all(v.dtype == np.float32 and v.flags.c_contiguous for n, v in state_dict.items() if n not in counters)
    assert_same(weights.to_torch(model, jax.tree.map(jnp.asarray, variables)), state_dict)


def test_names_and_axes(resnet20):
    _, variables, state_dict = resnet20
    kernel = variables['params']['layer2']['0']['conv1']['kernel']
    np.testing.assert_array_equal(state_dict['layer2.0.conv1.weight'], kernel.transpose(3, 2, 0, 1))
    np.testing.assert_array_equal(state_dict['linear.weight'], variables['params']['linear']['kernel'].T)
    norm = variables['batch_stats']['bn1']
    np.testing.assert_array_equal(state_dict['bn1.running_mean'], norm['mean'])
    np.testing.assert_array_equal(state_dict['bn1.running_var'], norm['var'])
    np.testing.assert_array_equal(state_dict['bn1.weight'], variables['params']['bn1']['scale'])


class Exceptional(nn.Module):
    """A flattened convolution, groups, a module under another name, an array of its own, no norm."""
    num_classes: int = 3
    flattens: ClassVar = {'classifier.1': (4, 6, 5)}
    renames: ClassVar = {'stem': 'features.0', 'gamma': 'layer_scale', 'dense.kernel': 'head.projection'}

    @nn.compact
    def __call__(self, images, train=False):
        x = nn.Conv(4, (5, 5), name='stem')(images[:, :6, :5])
        x = nn.Conv(4, (3, 3), feature_group_count=2, name='grouped')(x)
        x = x * self.param('gamma', nn.initializers.ones, (4,))
        x = nn.Dense(7, name='classifier.1')(x.reshape(x.shape[0], -1))
        return nn.Dense(self.num_classes, use_bias=False, name='dense')(x)


def test_exceptions():
    model = Exceptional()
    variables = random_variables(model)
    state_dict = weights.to_torch(model, variables)
    assert {name: value.shape for name, value in state_dict.items()} == {
        'features.0.weight': (4, 3, 5, 5), 'features.0.bias': (4,), 'grouped.weight': (4, 2, 3, 3),
        'grouped.bias': (4,), 'layer_scale': (4,), 'classifier.1.weight': (7, 120), 'classifier.1.bias': (7,),
        'head.projection': (3, 7)}
    assert_same(weights.from_torch(model, state_dict), variables)
    x = np.random.default_rng(1).normal(size=(2, 6, 5, 4)).astype(np.float32)
    ours = x.reshape(2, -1) @ variables['params']['classifier.1']['kernel']
    theirs = x.transpose(0, 3, 1, 2).reshape(2, -1) @ state_dict['classifier.1.weight'].T
    np.testing.assert_allclose(ours, theirs, rtol=1e-5)


class AnySize(Exceptional):
    """Shapes depend on the image: right for 32 pixels, not for 224."""
    flattens: ClassVar = {'dense': (2, 8, 8)}
    renames: ClassVar = {}

    @nn.compact
    def __call__(self, images, train=False):
        x = nn.Conv(2, (4, 4), (4, 4), name='stem')(images)
        return nn.Dense(self.num_classes, name='dense')(x.reshape(x.shape[0], -1))


def test_image_size_is_the_one_that_flattens_fits():
    model = AnySize()
    variables = random_variables(model)
    assert variables['params']['dense']['kernel'].shape == (128, 3)
    assert_same(weights.from_torch(model, weights.to_torch(model, variables)), variables)


@pytest.mark.parametrize('wrap', [
    lambda d: {'state_dict': d, 'epoch': 3, 'arch': 'resnet'}, lambda d: {'model': d}, lambda d: {'model_state': d},
    lambda d: {'net': d, 'acc': 91.0}, lambda d: {'state_dict': {'model': d}},
    lambda d: {f'module.{n}': v for n, v in d.items()}, lambda d: {f'_orig_mod.{n}': v for n, v in d.items()},
    lambda d: {'state_dict': {f'_orig_mod.module.{n}': v for n, v in d.items()}},
    lambda d: {n: v for n, v in d.items() if 'num_batches_tracked' not in n},
    lambda d: {'n_averaged': np.int64(5)} | {f'module.{n}': v for n, v in d.items()},
    lambda d: {'ema': {'module': d, 'decay': 0.999}, 'optimizer': {'state': {0: {'exp_avg': d['conv1.weight']}}}},
    lambda d: {'a': {'name of its own': {f'module.model.{n}': v for n, v in d.items()}}},
    lambda d: {f'net.{n}': v for n, v in d.items()} | {'criterion.weight': np.ones(3), 'n': 3},
    lambda d: {('head.' if n.startswith('linear') else 'backbone.') + n: v for n, v in d.items()}])
def test_forms_of_state_dict(resnet20, wrap):
    model, variables, state_dict = resnet20
    assert_same(weights.from_torch(model, wrap(state_dict)), variables)


KINDS = {'state_dict': 'state_dict_ema', 'model': 'model_ema', 'net': 'ema', 'weights': 'ema_state_dict',
         'params': 'modelEMA'}


@pytest.mark.parametrize('wrap', [
    *(lambda raw, ema, keys=keys: dict(zip(keys, (raw, ema), strict=True)) for keys in KINDS.items()),
    lambda raw, ema: {'model': raw, 'model_ema': {'n_averaged': 5} | {f'module.{n}': v for n, v in ema.items()}},
    lambda raw, ema: {'state_dict': {f'{start}.{n}': v for start, d in (('net', raw), ('ema_net', ema))
                                     for n, v in d.items()}}])
def test_raw_or_averaged_weights_by_choice(resnet20, wrap, caplog):
    caplog.set_level('INFO', 'imagenet_jax')
    model, variables, raw = resnet20
    file = wrap(raw, raw | {'linear.bias': np.full(10, 7, np.float32)})
    for ema, averaged in ((None, False), (False, False), (True, True)):
        caplog.clear()
        bias = weights.from_torch(model, file, ema)['params']['linear']['bias']
        np.testing.assert_array_equal(bias, 7 if averaged else variables['params']['linear']['bias'])
        assert f'the {"averaged" if averaged else "raw"} ones are taken' in caplog.text


def test_a_kind_of_weights_that_is_not_there_is_refused(resnet20):
    model, _, raw = resnet20
    for file, ema, message in (
            ({'model': raw}, True, 'holds no averaged weights; what it holds is raw: model'),
            ({'model_ema': raw}, False, 'holds no raw weights; what it holds is averaged: model_ema'),
            ({f'{start}.{n}': v for start in ('student', 'teacher') for n, v in raw.items()}, None,
             'several sets of weights, under student and teacher')):
        with pytest.raises(UserError, match=message):
            weights.from_torch(model, file, ema)


def test_weights_of_another_model_are_recognised(resnet20, caplog):
    caplog.set_level('INFO', 'imagenet_jax')
    other = {f'module.{n}': v for n, v in resnet20[2].items()}
    with pytest.raises(UserError, match=r'fit CifarResNet: its arrays look like resnet20_cifar\n  missing: layer1\.3'):
        weights.from_torch(models.create('resnet32_cifar'), other)
    assert 'taken off the names of the weights: module.' in caplog.text
    with pytest.raises(UserError, match='look like those of no registered model'):
        weights.from_torch(resnet20[0], {'a': np.ones(3), 'b': np.ones(4)})
    with pytest.raises(UserError, match='look like those of no registered model'):  # and not: several sets of weights
        weights.from_torch(resnet20[0], {f'body.{i}.bn1.{n}': np.ones(3) for i in range(9) for n in ('weight', 'bias')})


def test_tensors_and_other_dtypes(resnet20):
    torch = pytest.importorskip('torch')
    model, variables, state_dict = resnet20
    tensors = {name: torch.from_numpy(value) for name, value in state_dict.items()}
    assert_same(weights.from_torch(model, {n: torch.nn.Parameter(v.double()) for n, v in tensors.items()}), variables)
    rounded = weights.from_torch(model, {n: v.bfloat16() for n, v in tensors.items()})
    assert_same(rounded, jax.tree.map(lambda x: x.astype(jnp.bfloat16).astype(np.float32), variables))


def test_misfits_are_listed_all_at_once(resnet20):
    model, _, state_dict = resnet20
    changed = {n: v for n, v in state_dict.items() if not n.startswith('bn1.')}
    changed |= {'linear.weight': np.zeros((5, 64)), 'linear.bias': np.zeros(5), 'extra.weight': np.zeros((2, 3)),
                'extra.num_batches_tracked': np.zeros(()), 'epoch': 3}
    with pytest.raises(UserError) as caught:
        weights.from_torch(model, changed)
    assert str(caught.value).splitlines() == [
        'the state_dict does not fit CifarResNet: its head has 5 classes, the model 10',
        '  missing: bn1.bias (16,)', '  missing: bn1.running_mean (16,)', '  missing: bn1.running_var (16,)',
        '  missing: bn1.weight (16,)', '  unexpected: epoch ()', '  unexpected: extra.num_batches_tracked ()',
        '  unexpected: extra.weight (2, 3)', '  linear.bias: has shape (5,), the model (10,)',
        '  linear.weight: has shape (5, 64), the model (10, 64)']


def test_misfits_of_variables(resnet20):
    model, variables, _ = resnet20
    with pytest.raises(UserError, match=r'variables do not fit CifarResNet:\n  missing: batch_stats/bn1/mean \(16,'):
        weights.to_torch(model, {'params': variables['params']})


@pytest.mark.parametrize(('state_dict', 'message'), [
    ([1, 2], 'a state_dict is a dict of arrays by name; this is of type list'),
    ({'epoch': 3, 'optimizer': {}}, "holds no arrays; its keys are 'epoch', 'optimizer'")])
def test_no_state_dict(resnet20, state_dict, message):
    with pytest.raises(UserError, match=message):
        weights.from_torch(resnet20[0], state_dict)


def test_published_cifar_weights():
    pytest.importorskip('torch')
    if not CIFAR_WEIGHTS.exists():
        pytest.skip(f'no {CIFAR_WEIGHTS}')
    variables = weights.from_torch(models.create('resnet20_cifar'), weight_files.read(CIFAR_WEIGHTS))
    assert sum(leaf.size for leaf in jax.tree.leaves(variables['params'])) == 269_722
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(variables))
    assert all((leaf > 0).all() for leaf in jax.tree.leaves(
        jax.tree.map(lambda norm: norm['var'], variables['batch_stats'], is_leaf=lambda node: 'var' in node)))


@pytest.mark.parametrize('value', [np.nan, np.inf])
def test_weights_that_are_not_finite_are_named(resnet20, value):
    model, _, state_dict = resnet20
    spoiled = state_dict | {name: state_dict[name] * value for name in ('conv1.weight', 'bn1.running_var')}
    with pytest.raises(UserError, match=r'NaN or infinity, in\n  bn1\.running_var\n  conv1\.weight$'):
        weights.from_torch(model, spoiled)


@pytest.mark.parametrize('value', [[[1.0], [2.0, 3.0]], ['x'] * 16, np.ones(16, np.complex64)],
                         ids=['ragged', 'text', 'complex'])
def test_what_is_no_array_of_numbers_is_named(resnet20, value):
    model, _, state_dict = resnet20
    with pytest.raises(UserError, match=r'bn1\.bias'):
        weights.from_torch(model, state_dict | {'bn1.bias': value})
    with pytest.raises(UserError, match=r'unexpected: history'):
        weights.from_torch(model, state_dict | {'history': value})


def test_tensors_that_are_no_arrays_are_named(resnet20):
    torch = pytest.importorskip('torch')
    model, _, state_dict = resnet20
    for value in (torch.ones(16).to_sparse(), torch.ones(16, device='meta'), torch.ones(16, dtype=torch.complex64)):
        with pytest.raises(UserError, match=r'bn1\.bias of the state_dict is no dense array of real numbers'):
            weights.from_torch(model, state_dict | {'bn1.bias': value})
