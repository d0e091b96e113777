"""The learning rate by updates, and what evaluations make of it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from imagenet_jax.errors import UserError
from imagenet_jax.options import create
from imagenet_jax.schedules import SCHEDULES, Watch


def schedule(learning_rate, batch_size, steps, steps_per_epoch, name='cosine', **options):
    return create(SCHEDULES, {'name': name, **options}, 'config.schedule', learning_rate=learning_rate,
                  batch_size=batch_size, steps=steps, steps_per_epoch=steps_per_epoch)


def test_warmup_and_cosine():
    # 2 epochs of 10 steps up to the peak, 80 steps down.
    rate = schedule(0.4, 128, steps=100, steps_per_epoch=10, warmup_epochs=2)
    at = np.array([0, 1, 10, 19, 20, 40, 60, 99, 100])
    down = 0.2 * (1 + np.cos(np.pi * (at[4:] - 20) / 80))
    np.testing.assert_allclose([rate(t) for t in at], [0, 0.02, 0.2, 0.38, *down], rtol=1e-5, atol=1e-7)
    assert rate(20) == np.float32(0.4) and rate(60) == pytest.approx(0.2) and rate(100) == pytest.approx(0, abs=1e-7)


@pytest.mark.parametrize(('steps', 'warmup'), [(49, 9), (50, 10), (51, 50), (4, 0)])
def test_a_warmup_of_the_whole_run_is_shortened_to_a_fifth(steps, warmup, caplog):
    rate = schedule(0.4, 128, steps=steps, steps_per_epoch=10, warmup_epochs=5)
    rise = np.linspace(0, 0.4, warmup + 1) if warmup else [0.4]
    np.testing.assert_allclose([rate(t) for t in range(warmup + 1)], rise, rtol=1e-5)
    told = f'=5 is 50 steps, and the run has {steps}: it is shortened to a fifth of them, {warmup}'
    assert (told in caplog.text) == (steps <= 50)


def test_another_batch_is_told_with_its_rate(caplog):
    caplog.set_level('INFO', 'imagenet_jax')
    assert schedule(0.1, 64, 10, 10, warmup_epochs=0, base_batch_size=256).peak == 0.025
    assert 'learning rate 0.1 x 64/256 = 0.025' in caplog.text
    caplog.clear()
    assert schedule(0.1, 256, 10, 10, warmup_epochs=0, base_batch_size=256).peak == 0.1 and not caplog.text


@pytest.mark.parametrize(('name', 'options'), [
    ('cosine', {}), ('cosine', {'cycles': 2}), ('linear', {}), ('polynomial', {}), ('constant', {}), ('plateau', {}),
    ('step', {'every_epochs': 1}), ('multistep', {'milestones': (1, 2)}), ('exponential', {'factor': 0.9})])
def test_every_schedule_rises_in_a_fifth_of_a_short_run(name, options):
    rate = schedule(0.4, 128, 20, 10, name=name, warmup_epochs=5, **options)
    np.testing.assert_allclose([rate(t) for t in range(5)], [0, 0.1, 0.2, 0.3, 0.4], rtol=1e-5)
    assert np.isfinite([float(rate(t)) for t in range(21)]).all()


def test_no_warmup_begins_at_the_peak():
    rate = schedule(0.4, 128, steps=100, steps_per_epoch=10, warmup_epochs=0)
    np.testing.assert_allclose([rate(0), rate(50), rate(100)], [0.4, 0.2, 0], atol=1e-7)


def test_cosine_ends_at_the_floor():
    rate = schedule(0.4, 128, steps=100, steps_per_epoch=10, warmup_epochs=2, floor=0.1)
    np.testing.assert_allclose([rate(20), rate(60), rate(100)], [0.4, 0.25, 0.1], rtol=1e-5)


def rates_of_torch(name, **options):
    """Of torch.optim.lr_scheduler, from 0.4 on: the rate of each of 81 updates or epochs."""
    torch = pytest.importorskip('torch')
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.4)
    scheduler = getattr(torch.optim.lr_scheduler, name)(optimizer, **options)
    found = []
    for _ in range(81):
        found.append(optimizer.param_groups[0]['lr'])
        optimizer.step()  # without one before it, it warns
        scheduler.step()
    return found


# Of 80 updates, eight epochs, after the warm-up; exponential, which PyTorch steps by the epoch, of as many epochs.
@pytest.mark.parametrize(('options', 'theirs', 'per_epoch'), [
    ({'name': 'linear', 'floor': 0.1}, {'name': 'LinearLR', 'start_factor': 1.0, 'end_factor': 0.25, 'total_iters': 80},
     10),
    ({'name': 'polynomial', 'power': 0.5}, {'name': 'PolynomialLR', 'power': 0.5, 'total_iters': 80}, 10),
    ({'name': 'polynomial'}, {'name': 'PolynomialLR', 'power': 1.0, 'total_iters': 80}, 10),
    ({'name': 'exponential', 'factor': 0.9}, {'name': 'ExponentialLR', 'gamma': 0.9}, 1),
    ({'name': 'exponential', 'factor': 0.3}, {'name': 'ExponentialLR', 'gamma': 0.3**0.1}, 10),
    ({'name': 'step', 'every_epochs': 3.0, 'factor': 0.5}, {'name': 'StepLR', 'step_size': 30, 'gamma': 0.5}, 10),
    ({'name': 'cosine', 'floor': 0.1}, {'name': 'CosineAnnealingLR', 'T_max': 80, 'eta_min': 0.1}, 10),
    ({'name': 'cosine', 'cycles': 4, 'floor': 0.1}, {'name': 'CosineAnnealingWarmRestarts', 'T_0': 20, 'eta_min': 0.1},
     10)])
def test_as_in_pytorch(options, theirs, per_epoch):
    warmup = 0 if options['name'] == 'step' else 20
    rate = schedule(0.4, 128, steps=80 + warmup, steps_per_epoch=per_epoch, warmup_epochs=warmup / per_epoch, **options)
    last = 80 if 'cycles' in options else 81  # after the run we are at the floor, and they begin a cycle
    found = jax.vmap(rate)(jnp.arange(warmup, warmup + last))
    np.testing.assert_allclose(found, rates_of_torch(**theirs)[:last], rtol=2e-5, atol=1e-7)
    if warmup:
        np.testing.assert_allclose([rate(0), rate(5)], [0, 0.1], rtol=1e-6)


def test_square_root_is_polynomial_of_a_half():
    rate = schedule(0.4, 128, steps=100, steps_per_epoch=10, name='polynomial', power=0.5, warmup_epochs=2, floor=0.1)
    at = np.array([20, 40, 99, 100])
    expected = 0.1 + 0.3 * np.sqrt(1 - (at - 20) / 80)
    np.testing.assert_allclose([rate(t) for t in at], expected, rtol=1e-5)


def test_cosine_cycles_of_no_whole_number_of_updates():
    """10 updates in 3 cycles: of 3, 4 and 3, each a cosine that would reach the floor one update later."""
    rate = schedule(1.0, 128, steps=10, steps_per_epoch=10, warmup_epochs=0, cycles=3)
    expected = [0.5 * (1 + np.cos(np.pi * i / n)) for n in (3, 4, 3) for i in range(n)]
    np.testing.assert_allclose([rate(t) for t in range(11)], [*expected, 0], atol=1e-6)


def test_step_counts_from_the_start():
    """As milestones do, rounded alike, warm-up or not; by a factor of 0 the rate is 0 from then on."""
    options = {'steps': 100, 'steps_per_epoch': 12.3, 'warmup_epochs': 1.0}
    at = jnp.arange(100)
    by_step = schedule(0.4, 128, name='step', every_epochs=1.5, factor=0.5, **options)
    milestones = tuple(1.5 * k for k in range(1, 6))
    by_milestones = schedule(0.4, 128, name='multistep', milestones=milestones, factor=0.5, **options)
    np.testing.assert_allclose(jax.vmap(by_step)(at), jax.vmap(by_milestones)(at), rtol=1e-6)
    gone = schedule(0.4, 128, name='step', every_epochs=4.0, factor=0.0, **options)
    np.testing.assert_allclose([gone(12), gone(48), gone(49), gone(99)], [0.4, 0.4, 0, 0], rtol=1e-6)


def test_constant():
    rate = schedule(0.4, 128, steps=100, steps_per_epoch=10, name='constant', warmup_epochs=1)
    np.testing.assert_allclose([rate(0), rate(5), rate(10), rate(99)], [0, 0.2, 0.4, 0.4], rtol=1e-6)


def test_multistep():
    rate = schedule(0.4, 128, steps=100, steps_per_epoch=10, name='multistep', milestones=(3, 5.5, 8),
                          warmup_epochs=1)
    at = [0, 5, 10, 29, 30, 54, 55, 79, 80, 99]
    np.testing.assert_allclose([rate(t) for t in at], [0, 0.2, 0.4, 0.4, 4e-2, 4e-2, 4e-3, 4e-3, 4e-4, 4e-4], rtol=1e-5)
    np.testing.assert_allclose([jax.jit(rate)(t) for t in at], [rate(t) for t in at], rtol=1e-6)
    # Nearly no steps in an epoch: milestones on one step all count.
    short = schedule(1.0, 128, steps=4, steps_per_epoch=0.1, name='multistep', milestones=(10, 12), factor=0.5,
                           warmup_epochs=0)
    np.testing.assert_allclose([short(t) for t in range(3)], [1.0, 0.25, 0.25])


def test_part_of_an_epoch_warms_up_by_steps():
    rate = schedule(1.0, 128, steps=100, steps_per_epoch=12.5, warmup_epochs=0.8)
    np.testing.assert_allclose([rate(5), rate(10)], [0.5, 1.0])


def test_peak_scales_with_the_batch():
    options = {'steps': 100, 'steps_per_epoch': 10, 'warmup_epochs': 1}
    scaled = schedule(0.1, 1024, base_batch_size=256, floor=0.04, **options)
    np.testing.assert_allclose([scaled(5), scaled(10), scaled(100)], [0.2, 0.4, 0.04], rtol=1e-5)
    assert schedule(0.1, 1024, **options)(10) == np.float32(0.1)


@pytest.mark.parametrize(('options', 'message'), [
    ({'name': 'cosin'}, r"schedule\.name 'cosin'; did you mean cosine\?"),
    ({'milestones': (30,)}, r'milestones=\(30,\) is read by config\.schedule\.name=multistep, not by cosine'),
    ({'name': 'multistep'}, r'config\.schedule lacks milestones'),
    ({'name': 'multistep', 'milestones': ()}, r'milestones=\(\) must be epochs above 0, ascending'),
    ({'name': 'multistep', 'milestones': (30, 20)}, r'milestones=\(30, 20\) must be'),
    ({'name': 'multistep', 'milestones': (0, 20)}, r'milestones=\(0, 20\) must be'),
    ({'warmup_epochs': -1}, r'warmup_epochs=-1 must not be negative'),
    ({'floor': -0.1}, r'floor=-0\.1 must be in 0\.\.0\.1'),
    ({'floor': 5.0}, r'floor=5\.0 must be in 0\.\.0\.1, the peak'),
    ({'name': 'plateau', 'minimum': 1.0}, r'minimum=1\.0 must be in 0\.\.0\.1'),
    ({'name': 'plateau', 'threshold': 1.0}, r'threshold=1\.0 must be in \[0, 1\)'),
    ({'cycles': 0}, r'cycles=0 must be in 1\.\.50, the updates after the warm-up'),
    ({'cycles': 51}, r'cycles=51 must be in 1\.\.50'),
    ({'name': 'linear', 'floor': 1.0}, r'floor=1\.0 must be in 0\.\.0\.1'),
    ({'name': 'linear', 'cycles': 2}, r'cycles=2 is read by config\.schedule\.name=cosine, not by linear'),
    ({'name': 'polynomial', 'power': 0.0}, r'power=0\.0 must be above 0'),
    ({'name': 'exponential'}, r'config\.schedule lacks factor'),
    ({'name': 'exponential', 'factor': 0.0}, r'factor=0\.0 must be in \(0, 1\]'),
    ({'name': 'step', 'every_epochs': 0.0}, r'every_epochs=0\.0 must be above 0'),
    ({'name': 'step', 'every_epochs': 30.0, 'factor': 1.5}, r'factor=1\.5 must be in \[0, 1\]'),
    ({'base_batch_size': -1}, r'base_batch_size=-1 must not be negative'),
    ({'name': 'plateau', 'factor': 1.0}, r'factor=1\.0 must be between 0 and 1'),
    ({'name': 'plateau', 'patience': -1}, r'patience=-1 must not be negative')])
def test_refused_schedule(options, message):
    with pytest.raises(UserError, match=message):
        schedule(0.1, 8, steps=100, steps_per_epoch=10, **options)


# --- evaluations


def judged(rate, scores):
    watch, found = Watch.start(), []
    for score in scores:
        watch = rate.judge(watch, jnp.float32(score))
        found.append(watch)
    return found


def test_the_best_score_is_remembered_and_what_came_since_is_counted():
    found = judged(schedule(0.4, 128, steps=100, steps_per_epoch=10), [0.3, 0.5, 0.5, np.nan, 0.4, 0.6])
    np.testing.assert_allclose([watch.best for watch in found], [0.3, 0.5, 0.5, 0.5, 0.5, 0.6])
    assert [int(watch.stale) for watch in found] == [0, 0, 1, 2, 3, 0]
    assert {float(watch.rate_scale) for watch in found} == {1.0}


@pytest.mark.parametrize(('patience', 'cooldown', 'minimum'), [(0, 0, 0.0), (1, 0, 0.0), (2, 3, 0.0), (1, 1, 0.03)])
def test_plateau_is_pytorchs(patience, cooldown, minimum):
    torch = pytest.importorskip('torch')
    scores = np.random.default_rng(0).random(60).round(2) * 0.2 + np.linspace(0, 0.6, 60).round(1)
    rate = schedule(0.4, 128, steps=100, steps_per_epoch=10, name='plateau', factor=0.5, patience=patience,
                    cooldown=cooldown, minimum=minimum, warmup_epochs=0)
    reference = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.4)
    plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(reference, 'max', 0.5, patience, cooldown=cooldown,
                                                         min_lr=minimum, eps=0)
    expected = []
    for score in scores:
        plateau.step(score)
        expected.append(reference.param_groups[0]['lr'])
    np.testing.assert_allclose([rate(0) * watch.rate_scale for watch in judged(rate, scores)], expected, rtol=1e-5)
    assert len(set(expected)) > 2


def test_plateau_by_hand():
    rate = schedule(1.0, 128, steps=100, steps_per_epoch=10, name='plateau', patience=1, factor=0.1, cooldown=2)
    found = judged(rate, [0.5, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5, 0.9, 0.9])
    np.testing.assert_allclose([w.rate_scale for w in found], [1, 1, 0.1, 0.1, 0.1, 0.1, 0.01, 0.01, 0.01], rtol=1e-6)
    assert [int(w.stale) for w in found] == [0, 1, 2, 3, 4, 5, 6, 0, 1]  # a change of the rate begins nothing anew
