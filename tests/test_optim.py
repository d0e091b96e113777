"""Every optimizer against PyTorch's or timm's, in float64, where nothing but a mistake tells them apart."""

import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from fixtures_step import SIZE, Run, Tiny, assert_trees_close, assert_trees_equal, batch
from test_options import small

from imagenet_jax.experiment import Experiment
from imagenet_jax.optim import OPTIMIZERS, SGD, Lookahead, path_name
from imagenet_jax.options import create

# Few different ones, each of which every operation is compiled for.
SHAPES = {'conv1': {'kernel': (3, 3, 2, 4)}, 'bn1': {'scale': (4,), 'bias': (4,)},
          'layer1': {'0': {'fc': {'kernel': (4, 4), 'bias': (4,)}}}}
KERNELS = {'conv1/kernel', 'layer1/0/fc/kernel'}
# That change, so that a momentum buffer holding the rate would differ.
RATES = (0.0, 0.15, 0.3, 0.1)


def drawn(seed, scale=1.0):
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda shape: scale * rng.normal(size=shape), SHAPES, is_leaf=lambda x: isinstance(x, tuple))


PARAMS, GRADIENTS = drawn(0), [drawn(1 + i, 3.0) for i in range(len(RATES))]


def named(tree):
    return {path_name(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}


def optimizer_of(name, given=types.MappingProxyType({}), **options):
    return create(OPTIMIZERS, {'name': name, **options}, 'config.optimizer', **given)


def run(optimizer, params, gradients, rates):
    state = optimizer.init(params)
    for g, rate in zip(gradients, rates, strict=True):
        direction, state = optimizer.direction(g, state, params)
        params = jax.tree.map(lambda p, d, rate=rate: p - rate * d, params, direction)
    return params, state


def updated(optimizer, gradients=GRADIENTS, rates=RATES):
    """PARAMS after an update by each of the gradients, float64."""
    with jax.enable_x64(True):
        params, _ = run(optimizer, jax.tree.map(jnp.asarray, PARAMS), gradients[:len(rates)], rates)
        return jax.tree.map(np.asarray, params)


@pytest.fixture(scope='module')
def torch_optim():
    """PyTorch's optimizers, and timm's where it has none of that name."""
    from torch_reference import torch, torchvision_models
    torchvision_models()
    timm = pytest.importorskip('timm.optim')
    return types.SimpleNamespace(**{**vars(timm), **vars(torch.optim)})


def updated_by_torch(make, rates=RATES, clip=None):
    """As `updated`, by the torch optimizers that `make` answers for (kernels, other parameters).

    `clip` is called with all parameters before each update.
    """
    from torch_reference import torch

    def tensor(array):
        return torch.from_numpy((np.moveaxis(array, (-1, -2), (0, 1)) if array.ndim > 1 else array).copy())

    leaves = [torch.nn.Parameter(tensor(p)) for p in jax.tree.leaves(PARAMS)]
    optimizers = make(*([p for p in leaves if (p.ndim > 1) is kernel] for kernel in (True, False)))
    for g, rate in zip(GRADIENTS, rates, strict=False):
        for p, gradient in zip(leaves, jax.tree.leaves(g), strict=True):
            p.grad = tensor(gradient)
        if clip:
            clip(leaves)
        for optimizer in optimizers:
            for group in optimizer.param_groups:
                group['lr'] = rate
            optimizer.step()
    arrays = [p.detach().numpy() for p in leaves]
    return jax.tree.unflatten(jax.tree.structure(PARAMS),
                              [np.moveaxis(p, (0, 1), (-1, -2)) if p.ndim > 1 else p for p in arrays])


def assert_same(a, b):
    assert_trees_close(a, b, rtol=1e-10)


# --- against PyTorch and timm

# Our name and options, weight_decay=.01 added; theirs, for kernels and for all other parameters.
SAME = [
    ('sgd', {}, lambda o, k, r: [o.SGD([*k, *r], momentum=0.9, nesterov=True, weight_decay=0.01)]),
    ('sgd', {'nesterov': False}, lambda o, k, r: [o.SGD([*k, *r], momentum=0.9, weight_decay=0.01)]),
    ('sgd', {'momentum': 0.0, 'decay_bias_and_norm': False},
     lambda o, k, r: [o.SGD(k, weight_decay=0.01), o.SGD(r)]),
    ('adam', {}, lambda o, k, r: [o.Adam([*k, *r], weight_decay=0.01)]),
    ('adam', {'beta1': 0.5, 'beta2': 0.7, 'epsilon': 0.1},
     lambda o, k, r: [o.Adam([*k, *r], betas=(0.5, 0.7), eps=0.1, weight_decay=0.01)]),
    ('adamw', {}, lambda o, k, r: [o.AdamW([*k, *r], weight_decay=0.01)]),
    ('adamw', {'decay_bias_and_norm': False}, lambda o, k, r: [o.AdamW(k, weight_decay=0.01), o.Adam(r)]),
    ('rmsprop', {'rho': 0.8, 'epsilon': 0.2},
     lambda o, k, r: [o.RMSpropTF([*k, *r], alpha=0.8, momentum=0.9, eps=0.2, weight_decay=0.01,
                                  lr_in_momentum=False)]),
    ('rmsprop', {'momentum': 0.0}, lambda o, k, r: [o.RMSpropTF([*k, *r], eps=1e-3, weight_decay=0.01)]),
    ('lars', {'trust_coefficient': 0.02},
     lambda o, k, r: [o.Lars(k, momentum=0.9, weight_decay=0.01, trust_coeff=0.02, eps=0),
                      o.SGD(r, momentum=0.9, weight_decay=0.01)]),
    ('lars', {'nesterov': True, 'decay_bias_and_norm': False},
     lambda o, k, r: [o.Lars([{'params': k, 'weight_decay': 0.01}, {'params': r}], momentum=0.9, nesterov=True,
                             eps=0)]),
    ('lamb', {}, lambda o, k, r: [o.Lamb([*k, *r], weight_decay=0.01, max_grad_norm=None)]),
    ('lamb', {'clip_norm': 1.0}, lambda o, k, r: [o.Lamb([*k, *r], weight_decay=0.01)]),
    ('lamb', {'weight_decay': 0.0},
     lambda o, k, r: [o.Lamb([*k, *r], weight_decay=0, max_grad_norm=None, always_adapt=True)]),
    ('lamb', {'decay_bias_and_norm': False, 'beta1': 0.5, 'beta2': 0.7, 'epsilon': 0.1},
     lambda o, k, r: [o.Lamb([{'params': k, 'weight_decay': 0.01}, {'params': r, 'weight_decay': 0}], betas=(0.5, 0.7),
                             eps=0.1, max_grad_norm=None)])]


@pytest.mark.parametrize(('name', 'options', 'make'), SAME,
                         ids=['-'.join([name, *map(str, options.values())]) for name, options, _ in SAME])
def test_as_in_pytorch_or_timm(name, options, make, torch_optim):
    """Updates at rates that change: every parameter, and none where it began."""
    params = updated(optimizer_of(name, **{'weight_decay': 0.01, **options}))
    assert_same(params, updated_by_torch(lambda *groups: make(torch_optim, *groups)))
    assert all(np.abs(a - b).max() > 1e-3 for a, b in zip(*map(jax.tree.leaves, (params, PARAMS)), strict=True))


def test_rmsprop_is_tensorflows_while_the_rate_stays(torch_optim):
    rates = (0.1,) * 4
    expected = updated_by_torch(lambda k, r: [torch_optim.RMSpropTF([*k, *r], momentum=0.9, eps=1e-3)], rates)
    assert_same(updated(optimizer_of('rmsprop', weight_decay=0.0), rates=rates), expected)


@pytest.mark.parametrize('most', [0.5, 40.0])
def test_clip_norm_is_pytorchs(most, torch_optim):
    """Of all parameters together; the second norm is met by some of the gradients alone."""
    from torch_reference import torch
    expected = updated_by_torch(lambda k, r: [torch_optim.SGD([*k, *r])],
                                clip=lambda leaves: torch.nn.utils.clip_grad_norm_(leaves, most))
    params = updated(SGD(momentum=0.0, weight_decay=0.0, clip_norm=most))
    assert_trees_close(params, expected, rtol=1e-5)  # theirs adds 1e-6 to the norm


def test_clip_adaptive_is_timms(torch_optim):
    """By output channel of HWIO and IO, biases and scales as a whole; some units are clipped and some are not."""
    from timm.utils import adaptive_clip_grad
    expected = updated_by_torch(lambda k, r: [torch_optim.SGD([*k, *r])],
                                clip=lambda leaves: adaptive_clip_grad(leaves, 3.0))
    params = updated(SGD(momentum=0.0, weight_decay=0.0, clip_adaptive=3.0))
    assert_same(params, expected)
    plain = updated(SGD(momentum=0.0, weight_decay=0.0))
    moved = np.isclose(params['conv1']['kernel'], plain['conv1']['kernel']).all((0, 1, 2))
    assert moved.any() and not moved.all()


def test_clip_adaptive_leaves_the_classifier_alone():
    """Which the experiment tells, by what depends on the number of classes."""
    config = small()
    config.model.name, config.optimizer.clip_adaptive = 'resnet8_cifar', 0.01
    assert set(Experiment(config).train_step.optimizer.head) == {'linear/kernel', 'linear/bias'}
    clipped = SGD(momentum=0.0, clip_adaptive=1e-3, head=('layer1/0/fc/kernel', 'layer1/0/fc/bias'))
    direction, plain = (named(optimizer.direction(GRADIENTS[0], {}, PARAMS)[0])
                        for optimizer in (clipped, SGD(momentum=0.0)))
    same = {name for name, leaf in direction.items() if np.array_equal(leaf, plain[name])}
    assert same == {'layer1/0/fc/kernel', 'layer1/0/fc/bias'}


# --- what single options do


@pytest.mark.parametrize(('everything', 'decayed'), [(True, 0.9), (False, 1.0)])
def test_decay_of_bias_and_norm(everything, decayed):
    params = jax.tree.map(jnp.ones_like, PARAMS)
    optimizer = SGD(momentum=0.0, weight_decay=0.1, decay_bias_and_norm=everything)
    result, _ = run(optimizer, params, [jax.tree.map(jnp.zeros_like, params)], [1.0])
    for name, leaf in named(result).items():
        np.testing.assert_allclose(leaf, 0.9 if name in KERNELS else decayed, rtol=1e-6)


def without_mean(tree):
    """A convolution's kernel less the mean of each output channel, all else as it was."""
    kernel = tree['conv1']['kernel']
    return tree | {'conv1': {'kernel': kernel - kernel.mean((0, 1, 2), keepdims=True)}}


@pytest.mark.parametrize('name', OPTIMIZERS)
def test_centralize(name):
    """Convolution kernels alone; coupled decay too, decoupled not; before the moments."""
    def step(gradient, **options):
        return jax.tree.map(np.subtract, updated(optimizer_of(name, **options), [gradient], (0.1,)), PARAMS)

    centralized = step(GRADIENTS[0], centralize=True, weight_decay=0.01)
    if name in ('sgd', 'lars'):
        expected = without_mean(step(GRADIENTS[0], weight_decay=0.01))
    elif name in ('adamw', 'lamb'):
        expected = step(without_mean(GRADIENTS[0]), weight_decay=0.01)
    else:
        decayed = jax.tree.map(lambda g, p: g + 0.01 * p, GRADIENTS[0], PARAMS)
        expected = step(without_mean(decayed), weight_decay=0.0)
    assert_trees_close(centralized, expected, rtol=1e-7, atol=1e-12)


EVERYTHING = {'weight_decay': 0.01, 'centralize': True, 'clip_norm': 5.0, 'clip_adaptive': 2.0}


@pytest.mark.parametrize('name', OPTIMIZERS)
def test_frozen_parameters_stay_to_the_bit(name):
    freeze = ('bn1/*', 'layer1/0/fc/kernel')
    optimizer = optimizer_of(name, {'freeze': freeze}, **EVERYTHING)
    still = optimizer.frozen(PARAMS)
    gradients = [jax.tree.map(lambda x, frozen: x * (not frozen), g, still) for g in GRADIENTS]
    params = updated(optimizer, gradients)
    same = jax.tree.map(np.array_equal, params, PARAMS)
    assert same == still


@pytest.mark.parametrize('name', OPTIMIZERS)
def test_rate_factors_multiply_the_step(name):
    """Whatever else there is, of the parameters named alone."""
    one, three = (jax.tree.map(np.subtract, updated(optimizer_of(name, **EVERYTHING, **factors), rates=(0.1,)), PARAMS)
                  for factors in ({}, {'rate_factors': (('conv1/*', 3.0),)}))
    expected = one | {'conv1': {'kernel': 3 * one['conv1']['kernel']}}
    assert_trees_close(three, expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize('name', ['lars', 'lamb'])
def test_a_kernel_of_zeros_leaves_zero(name):
    """Its norm would hold it there; and where its gradient is 0 too nothing is divided by 0."""
    params = {'conv1': {'kernel': jnp.zeros((3, 3, 2, 4))}, 'fc': {'kernel': jnp.zeros((4, 4))}}
    gradients = {'conv1': {'kernel': jnp.ones((3, 3, 2, 4))}, 'fc': {'kernel': jnp.zeros((4, 4))}}
    after, _ = run(optimizer_of(name), params, [gradients], [0.1])
    np.testing.assert_allclose(after['conv1']['kernel'], -0.1, rtol=1e-4)
    np.testing.assert_array_equal(after['fc']['kernel'], 0)


# --- the state

MOMENTS = {'moments/count', 'moments/mu', 'moments/nu'}
ARRAYS = {'sgd': {'momentum/trace'}, 'lars': {'momentum/trace'}, 'rmsprop': {'momentum/trace', 'squares/nu'},
          'adam': MOMENTS, 'adamw': MOMENTS, 'lamb': MOMENTS}


@pytest.mark.parametrize('name', OPTIMIZERS)
def test_parts_of_the_state_have_names(name):
    """A part that comes or goes moves no other: a run goes on with other decay, clipping, factors, frozen parameters.
    """
    params = {'kernel': jnp.ones(1)}
    plain = optimizer_of(name).init(params)
    assert {path.removesuffix('/kernel') for path in named(plain)} == ARRAYS[name]
    for given, options in (({}, {'weight_decay': 0.0}), ({'freeze': ('x',)}, {}),
                           ({}, {'rate_factors': (('kernel', 2.0),), 'decay_bias_and_norm': False}),
                           ({'head': ('x',)}, {'centralize': True, 'clip_norm': 1.0, 'clip_adaptive': 0.1})):
        optimizer = optimizer_of(name, given, **options)
        assert jax.tree.structure(optimizer.init(params)) == jax.tree.structure(plain)
        _, after = optimizer.direction(params, plain, params)
        assert jax.tree.structure(after) == jax.tree.structure(plain)
        assert jax.tree.map(jnp.shape, after) == jax.tree.map(jnp.shape, plain)
    if 'momentum/trace' in ARRAYS[name]:
        without = optimizer_of(name, momentum=0.0).init(params)
        assert {path.removesuffix('/kernel') for path in named(without)} == ARRAYS[name] - {'momentum/trace'}


def test_clipped_in_a_step():
    """In float16 the norm is that of the gradients, whatever the loss scale; with frozen parameters, an average and
    slow weights."""
    optimizer = SGD(momentum=0.0, weight_decay=0.0, clip_norm=0.01, freeze=('Dense_0/bias',))
    run = Run(Tiny(jnp.dtype('float16')), rate=1.0, ema_decay=0.9, lookahead=Lookahead(steps=2), optimizer=optimizer)
    for scale in (2.0**10, 2.0**6):
        run.state = run.train_step.init(0, SIZE)
        run.set(loss_scale=jnp.float32(scale))
        start = run.host()
        assert run.step(batch(seed=0))['grad_norm'] > 0.01
        after = run.host()
        moved = jax.tree.map(np.subtract, start.params, after.params)
        assert np.sqrt(sum((leaf**2).sum() for leaf in jax.tree.leaves(moved))) == pytest.approx(0.01, rel=1e-3)
        np.testing.assert_array_equal(after.params['Dense_0']['bias'], start.params['Dense_0']['bias'])
        run.step(batch(seed=1))
        assert_trees_equal(run.host().params, run.host().slow)
        assert run.state.updates == 2
