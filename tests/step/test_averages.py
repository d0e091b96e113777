"""What the state keeps beside the weights: their average, slow weights, what evaluations gave."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from fixtures_step import Run, Tiny, assert_trees_close, assert_trees_equal, batch

from imagenet_jax.errors import UserError
from imagenet_jax.optim import Lookahead
from imagenet_jax.schedules import Plateau

pytestmark = pytest.mark.numerics


def test_ema_warms_up_and_counts_updates():
    run = Run(Tiny(), ema_decay=0.2)
    assert_trees_equal(run.host().ema, {'params': run.host().params, 'batch_stats': run.host().batch_stats})
    expected = run.host().ema
    # (1 + t) / (10 + t) is .1, 2/11, then above .2; the second batch is no update, and moves neither average nor t.
    for broken, decay in ((False, 0.1), (True, 1.0), (False, 2 / 11), (False, 0.2)):
        run.step(batch(seed=int(run.state.step), broken=broken))
        new = {'params': run.host().params, 'batch_stats': run.host().batch_stats}
        expected = jax.tree.map(lambda old, new, d=decay: d * old + (1 - d) * new, expected, new)
        assert_trees_close(run.host().ema, expected, rtol=1e-5, atol=1e-7)


def test_ema_warmup_goes_on_over_steps():
    run = Run(Tiny(), ema_decay=0.9999)
    expected = run.host().ema['params']
    for t in range(3):
        run.step(batch(seed=t))
        d = (1 + t) / (10 + t)
        expected = jax.tree.map(lambda old, new, d=d: d * old + (1 - d) * new, expected, run.host().params)
        assert_trees_close(run.host().ema['params'], expected, rtol=1e-5, atol=1e-7)


# --- the rate, and what evaluations make of it


def test_learning_rate_follows_updates_made():
    run = Run(Tiny(), rate=lambda updates: 0.1 / (1 + updates))
    rates = [run.step(batch(seed=i, broken=i == 1))['learning_rate'] for i in range(4)]
    np.testing.assert_allclose(rates, [0.1, 0.05, 0.05, 0.1 / 3], rtol=1e-6)


def test_rate_scale_multiplies_the_rate():
    runs = [Run(Tiny(), rate=0.1), Run(Tiny(), rate=0.2)]
    runs[1].set(watch=runs[1].state.watch._replace(rate_scale=jnp.float32(0.5)))
    a, b = (run.step(batch()) for run in runs)
    assert a == b and a['learning_rate'] == np.float32(0.1)
    assert_trees_equal(runs[0].host().params, runs[1].host().params)


def test_judging_changes_the_watch_alone_and_recompiles_nothing():
    run = Run(Tiny(), devices=2, rate=Plateau(learning_rate=0.1, batch_size=16, steps=9, steps_per_epoch=9,
                                              warmup_epochs=0, patience=0, factor=0.5))
    rates = []
    for score in (0.5, 0.4, 0.6):
        rates.append(run.step(batch())['learning_rate'])
        before = run.host()
        run.state = run.train_step.judge(run.state, score)
        assert_trees_equal(before.replace(watch=()), run.host().replace(watch=()))
    np.testing.assert_allclose(rates, [0.1, 0.1, 0.05], rtol=1e-6)
    assert run.state.watch.best == np.float32(0.6)
    assert run.train_step.compiled._cache_size() == run.train_step._judge._cache_size() == 1


# --- slow weights


def test_lookahead_by_hand():
    """Every second update the slow weights go half the way; a step that is not finite is no update."""
    plain, run = Run(Tiny(), rate=0.5), Run(Tiny(), rate=0.5, lookahead=Lookahead(steps=2, alpha=0.5))
    slow, updates = run.host().params, 0
    for i in range(6):
        plain.set(params=run.host().params, batch_stats=run.host().batch_stats, opt_state=run.host().opt_state)
        plain.step(batch(seed=i))
        if i == 2:
            run.step(batch(seed=i, broken=True))
            continue
        run.step(batch(seed=i))
        updates += 1
        expected = plain.host().params
        if updates % 2 == 0:
            slow = expected = jax.tree.map(lambda s, p: s + 0.5 * (p - s), slow, expected)
        assert_trees_close(run.host().params, expected, rtol=1e-5, atol=1e-6)
        assert_trees_close(run.host().slow, slow, rtol=1e-5, atol=1e-6)
    assert updates == run.state.updates == 5


def test_lookahead_refuses_a_way_that_is_never_gone():
    Lookahead(alpha=0.5), Lookahead(steps=5, alpha=0.8)
    with pytest.raises(UserError, match=r'config\.lookahead\.alpha=0\.8 is read where config\.lookahead\.steps'):
        Lookahead(alpha=0.8)
