"""SGD against a reference in PyTorch's form, written in numpy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from imagenet_jax.errors import UserError
from imagenet_jax.optim import OPTIMIZERS, SGD
from imagenet_jax.options import create


def torch_sgd(p, gradients, rates, momentum, nesterov, decay):
    """torch.optim.SGD as its documentation writes it: the rate multiplies last, the first buffer is the gradient."""
    buffer, p = None, p.astype(np.float64)
    for g, rate in zip(gradients, rates, strict=True):
        g = g + decay * p
        if momentum:
            buffer = g if buffer is None else momentum * buffer + g
            g = g + momentum * buffer if nesterov else buffer
        p = p - rate * g
    return p


def run(optimizer, params, gradients, rates):
    state = optimizer.init(params)
    for g, rate in zip(gradients, rates, strict=True):
        direction, state = optimizer.direction(g, state, params)
        params = jax.tree.map(lambda p, d, rate=rate: p - rate * d, params, direction)
    return params, state


@pytest.mark.parametrize(('momentum', 'nesterov', 'decay'), [
    (0.9, True, 1e-2), (0.9, False, 1e-2), (0.9, True, 0.0), (0.0, True, 1e-2), (0.0, False, 0.0)])
def test_sgd_is_pytorchs(momentum, nesterov, decay):
    rng = np.random.default_rng(0)
    p = rng.normal(size=(3, 4)).astype(np.float32)
    gradients = rng.normal(size=(6, 3, 4)).astype(np.float32)
    rates = [0.0, 0.15, 0.3, 0.2, 0.1, 0.05]  # that change, so that a momentum buffer holding the rate would differ
    optimizer = SGD(momentum=momentum, nesterov=nesterov, weight_decay=decay)
    result, _ = run(optimizer, {'kernel': jnp.asarray(p)}, [{'kernel': g} for g in gradients], rates)
    expected = torch_sgd(p, gradients, rates, momentum, nesterov, decay)
    np.testing.assert_allclose(result['kernel'], expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(('everything', 'decayed'), [(True, 0.9), (False, 1.0)])
def test_decay_of_bias_and_norm(everything, decayed):
    params = {'conv1': {'kernel': jnp.ones((1, 1, 2, 2))}, 'bn1': {'scale': jnp.ones(2), 'bias': jnp.ones(2)},
              'layer1': {'0': {'fc': {'kernel': jnp.ones((2, 2)), 'bias': jnp.ones(2)}}}}
    optimizer = SGD(momentum=0.0, weight_decay=0.1, decay_bias_and_norm=everything)
    result, _ = run(optimizer, params, [jax.tree.map(jnp.zeros_like, params)], [1.0])
    for leaf in result['conv1']['kernel'], result['layer1']['0']['fc']['kernel']:
        np.testing.assert_allclose(leaf, 0.9, rtol=1e-6)
    for leaf in result['bn1']['scale'], result['bn1']['bias'], result['layer1']['0']['fc']['bias']:
        np.testing.assert_allclose(leaf, decayed, rtol=1e-6)


def test_parts_of_the_state_have_names():
    """A part that comes or goes moves no other: a run goes on with other decay, factors or frozen parameters."""
    params = {'kernel': jnp.ones(1)}
    plain = SGD().init(params)
    for options in ({'weight_decay': 0.0}, {'freeze': ('x',)}, {'rate_factors': (('kernel', 2.0),)},
                    {'decay_bias_and_norm': False}):
        assert jax.tree.structure(SGD(**options).init(params)) == jax.tree.structure(plain)
        _, after = SGD(**options).direction(params, plain, params)
        assert jax.tree.structure(after) == jax.tree.structure(plain)
    assert [jax.tree_util.keystr(path, simple=True, separator='/')
            for path, _ in jax.tree_util.tree_leaves_with_path(plain)] == ['momentum/trace/kernel']
    assert SGD(momentum=0.0).init(params) == {}


@pytest.mark.parametrize(('options', 'message'), [
    ({'name': 'sdg'}, r"optimizer\.name 'sdg'; did you mean sgd\?"),
    ({'momentum': 1.5}, r'optimizer\.momentum=1\.5 must be in \[0, 1\)'),
    ({'weight_decay': -1.0}, r'optimizer\.weight_decay=-1\.0 must not be negative'),
    ({'nesterov': 1}, r'optimizer\.nesterov=1 must be True or False'),
    ({'momentun': 0.9}, 'did you mean momentum')])
def test_refused_optimizer(options, message):
    with pytest.raises(UserError, match=message):
        create(OPTIMIZERS, {'name': 'sgd', **options}, 'config.optimizer')
