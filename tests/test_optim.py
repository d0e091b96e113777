"""SGD against a reference in PyTorch's form, written in numpy; the schedule's values."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from imagenet_jax import optim
from imagenet_jax.errors import UserError


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


def run(optimizer, params, gradients):
    state = optimizer.transform.init(params)
    for g in gradients:
        updates, state = optimizer.transform.update(g, state, params)
        params = optax.apply_updates(params, updates)
    return params, state


@pytest.mark.parametrize(('momentum', 'nesterov', 'decay'), [
    (0.9, True, 1e-2), (0.9, False, 1e-2), (0.9, True, 0.0), (0.0, True, 1e-2), (0.0, False, 0.0)])
def test_sgd_is_pytorchs(momentum, nesterov, decay):
    rng = np.random.default_rng(0)
    p = rng.normal(size=(3, 4)).astype(np.float32)
    gradients = rng.normal(size=(6, 3, 4)).astype(np.float32)
    # A rate that changes, so that a momentum buffer holding the rate would differ.
    rate = optim.schedule(0.3, 8, steps=6, steps_per_epoch=1, warmup_epochs=2)
    optimizer = optim.create(rate, momentum=momentum, nesterov=nesterov, weight_decay=decay)
    result, state = run(optimizer, {'kernel': jnp.asarray(p)}, [{'kernel': g} for g in gradients])
    expected = torch_sgd(p, gradients, [float(rate(t)) for t in range(6)], momentum, nesterov, decay)
    np.testing.assert_allclose(result['kernel'], expected, rtol=1e-5, atol=1e-6)
    assert optimizer.learning_rate(state) == rate(6)


@pytest.mark.parametrize(('everything', 'decayed'), [(True, 0.9), (False, 1.0)])
def test_decay_of_bias_and_norm(everything, decayed):
    params = {'conv1': {'kernel': jnp.ones((1, 1, 2, 2))}, 'bn1': {'scale': jnp.ones(2), 'bias': jnp.ones(2)},
              'layer1': {'0': {'fc': {'kernel': jnp.ones((2, 2)), 'bias': jnp.ones(2)}}}}
    optimizer = optim.create(optax.constant_schedule(1.0), momentum=0.0, weight_decay=0.1,
                             decay_bias_and_norm=everything)
    result, _ = run(optimizer, params, [jax.tree.map(jnp.zeros_like, params)])
    for leaf in result['conv1']['kernel'], result['layer1']['0']['fc']['kernel']:
        np.testing.assert_allclose(leaf, 0.9, rtol=1e-6)
    for leaf in result['bn1']['scale'], result['bn1']['bias'], result['layer1']['0']['fc']['bias']:
        np.testing.assert_allclose(leaf, decayed, rtol=1e-6)


def test_warmup_and_cosine():
    # 2 epochs of 10 steps up to the peak, 80 steps down.
    rate = optim.schedule(0.4, 128, steps=100, steps_per_epoch=10, warmup_epochs=2)
    at = np.array([0, 1, 10, 19, 20, 40, 60, 99, 100])
    down = 0.2 * (1 + np.cos(np.pi * (at[4:] - 20) / 80))
    np.testing.assert_allclose([rate(t) for t in at], [0, 0.02, 0.2, 0.38, *down], rtol=1e-5, atol=1e-7)
    assert rate(20) == np.float32(0.4) and rate(60) == pytest.approx(0.2) and rate(100) == pytest.approx(0, abs=1e-7)


def test_no_warmup_begins_at_the_peak():
    rate = optim.schedule(0.4, 128, steps=100, steps_per_epoch=10, warmup_epochs=0)
    np.testing.assert_allclose([rate(0), rate(50), rate(100)], [0.4, 0.2, 0], atol=1e-7)


def test_cosine_ends_at_the_floor():
    rate = optim.schedule(0.4, 128, steps=100, steps_per_epoch=10, warmup_epochs=2, floor=0.1)
    np.testing.assert_allclose([rate(20), rate(60), rate(100)], [0.4, 0.25, 0.1], rtol=1e-5)


def test_constant():
    rate = optim.schedule(0.4, 128, steps=100, steps_per_epoch=10, name='constant', warmup_epochs=1)
    np.testing.assert_allclose([rate(0), rate(5), rate(10), rate(99)], [0, 0.2, 0.4, 0.4], rtol=1e-6)


def test_multistep():
    rate = optim.schedule(0.4, 128, steps=100, steps_per_epoch=10, name='multistep', milestones=(3, 5.5, 8),
                          warmup_epochs=1)
    at = [0, 5, 10, 29, 30, 54, 55, 79, 80, 99]
    np.testing.assert_allclose([rate(t) for t in at], [0, 0.2, 0.4, 0.4, 4e-2, 4e-2, 4e-3, 4e-3, 4e-4, 4e-4], rtol=1e-5)
    np.testing.assert_allclose([jax.jit(rate)(t) for t in at], [rate(t) for t in at], rtol=1e-6)
    # Nearly no steps in an epoch: milestones on one step all count.
    short = optim.schedule(1.0, 128, steps=4, steps_per_epoch=0.1, name='multistep', milestones=(10, 12), factor=0.5,
                           warmup_epochs=0)
    np.testing.assert_allclose([short(t) for t in range(3)], [1.0, 0.25, 0.25])


def test_part_of_an_epoch_warms_up_by_steps():
    rate = optim.schedule(1.0, 128, steps=100, steps_per_epoch=12.5, warmup_epochs=0.8)
    np.testing.assert_allclose([rate(5), rate(10)], [0.5, 1.0])


def test_peak_scales_with_the_batch():
    options = {'steps': 100, 'steps_per_epoch': 10, 'warmup_epochs': 1}
    scaled = optim.schedule(0.1, 1024, base_batch_size=256, floor=0.04, **options)
    np.testing.assert_allclose([scaled(5), scaled(10), scaled(100)], [0.2, 0.4, 0.04], rtol=1e-5)
    assert optim.schedule(0.1, 1024, **options)(10) == np.float32(0.1)


def test_learning_rate_follows_updates_made():
    rate = optim.schedule(1.0, 8, steps=10, steps_per_epoch=1, warmup_epochs=4)
    optimizer = optim.create(rate)
    params = {'kernel': jnp.ones(1)}
    assert optimizer.learning_rate(optimizer.transform.init(params)) == 0.0
    _, state = run(optimizer, params, [params] * 3)
    assert optimizer.learning_rate(state) == np.float32(0.75)


@pytest.mark.parametrize(('options', 'message'), [
    ({'name': 'cosin'}, r"schedule\.name 'cosin'; did you mean cosine\?"),
    ({'name': 'multistep'}, r'milestones=\(\) must be epochs above 0, ascending'),
    ({'name': 'multistep', 'milestones': (30, 20)}, r'milestones=\(30, 20\) must be'),
    ({'name': 'multistep', 'milestones': (0, 20)}, r'milestones=\(0, 20\) must be'),
    ({'warmup_epochs': 10}, r'warmup_epochs=10 is 100 steps, and the run has only 100'),
    ({'warmup_epochs': -1}, r'warmup_epochs=-1 must not be negative')])
def test_refused_schedule(options, message):
    with pytest.raises(UserError, match=message):
        optim.schedule(0.1, 8, steps=100, steps_per_epoch=10, **options)


def test_refused_optimizer():
    with pytest.raises(UserError, match=r"optimizer\.name 'sdg'; did you mean sgd\?"):
        optim.create(optax.constant_schedule(0.1), name='sdg')
