"""Steps that are not finite update nothing, and the scale of float16's loss."""

import jax.numpy as jnp
import numpy as np
import pytest
from fixtures_step import Run, Tiny, assert_trees_equal, batch, relative_difference

from imagenet_jax import step

pytestmark = pytest.mark.numerics


def assert_no_update(before, after):
    for name in ('params', 'batch_stats', 'opt_state', 'updates', 'ema', 'slow', 'watch', 'key'):
        assert_trees_equal(getattr(before, name), getattr(after, name))
    assert after.step == before.step + 1
    assert after.bad_steps == before.bad_steps + 1
    assert after.bad_in_a_row == before.bad_in_a_row + 1


@pytest.mark.parametrize('dtype', ['float32', 'bfloat16', 'float16'])
@pytest.mark.parametrize('accumulation', [1, 2])
def test_a_step_that_is_not_finite_updates_nothing(dtype, accumulation):
    """One bad image, on one of two devices, in one of its parts."""
    run = Run(Tiny(jnp.dtype(dtype)), devices=2, ema_decay=0.9, accumulation=accumulation)
    run.step(batch(seed=0))
    before = run.host()
    metrics = run.step(batch(seed=1, broken=True))
    assert not np.isfinite(metrics['loss'])
    assert (metrics['bad_steps'], metrics['bad_in_a_row']) == (1, 1)
    once = run.host()
    assert_no_update(before, once)
    assert before.updates == 1  # so that a count kept is not a count of 0
    run.step(batch(seed=2, broken=True))
    twice = run.host()
    assert_no_update(once, twice)
    metrics = run.step(batch(seed=3))
    after = run.host()
    assert np.isfinite(metrics['loss'])
    assert (after.step, after.bad_steps, after.bad_in_a_row, after.updates) == (4, 2, 0, 2)
    assert relative_difference(after.params, twice.params) > 0
    scales = [float(s.loss_scale) for s in (before, once, twice, after)]
    start = step.INITIAL_SCALE
    assert scales == ([start, start / 2, start / 4, start / 4] if dtype == 'float16' else [1.0] * 4)


def test_an_update_alone_is_not_finite():
    """Loss and gradients are finite, what the rate makes of them is not."""
    run = Run(Tiny(), ema_decay=0.9, rate=lambda updates: jnp.where(updates == 1, 1e38, 0.1) * 100)
    run.step(batch(seed=0))
    before = run.host()
    metrics = run.step(batch(seed=1))
    assert np.isfinite(metrics['loss']) and np.isfinite(metrics['grad_norm'])
    assert_no_update(before, run.host())


def test_gradients_alone_overflow_in_float16():
    """The loss is finite, its gradient times the loss scale is not."""
    run = Run(Tiny(jnp.dtype('float16')), ema_decay=0.9)
    run.step(batch(seed=0))
    run.set(loss_scale=jnp.float32(2.0**40))
    before = run.host()
    metrics = run.step(batch(seed=1))
    assert np.isfinite(metrics['loss']) and not np.isfinite(metrics['grad_norm'])
    assert metrics['loss_scale'] == 2.0**40
    assert_no_update(before, run.host())
    assert run.state.loss_scale == 2.0**39
    assert run.state.good_steps == 0


def test_loss_scale_grows_after_finite_steps_in_a_row(monkeypatch):
    monkeypatch.setattr(step, 'SCALE_INTERVAL', 3)
    run = Run(Tiny(jnp.dtype('float16')))
    run.set(loss_scale=jnp.float32(8.0))
    scales = []
    for broken in (0, 0, 0, 0, 0, 1, 0, 0, 0):  # the overflow starts the count again
        run.step(batch(broken=bool(broken)))
        scales.append(float(run.state.loss_scale))
    assert scales == [8, 8, 16, 16, 16, 8, 8, 8, 16]


def test_loss_scale_has_bounds(monkeypatch):
    monkeypatch.setattr(step, 'SCALE_INTERVAL', 1)
    monkeypatch.setattr(step, 'MAX_SCALE', 16.0)
    run = Run(Tiny(jnp.dtype('float16')))
    run.set(loss_scale=jnp.float32(8.0))
    scales = []
    for broken in (0, 0, 1, 1, 1, 1, 1):
        run.step(batch(broken=bool(broken)))
        scales.append(float(run.state.loss_scale))
    assert scales == [16, 16, 8, 4, 2, 1, 1]


def test_loss_scale_leaves_the_update_alone():
    runs = [Run(Tiny(jnp.dtype('float16'))) for _ in range(2)]
    runs[1].set(loss_scale=jnp.float32(256.0))
    runs[0].set(loss_scale=jnp.float32(1024.0))
    a, b = (run.step(batch()) for run in runs)
    assert (a.pop('loss_scale'), b.pop('loss_scale')) == (1024, 256)
    assert b == pytest.approx(a, rel=1e-3)
    assert relative_difference(runs[0].host().params, runs[1].host().params) < 1e-4
