"""One update: one device against eight, parts against the whole."""

import math
import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from fixtures_step import (
    CLASSES,
    SIZE,
    Norm,
    Run,
    Tiny,
    assert_trees_close,
    assert_trees_equal,
    batch,
    preprocess,
    relative_difference,
)

from imagenet_jax.task import Softmax

pytestmark = pytest.mark.numerics


# --- devices


def test_eight_devices_train_as_one():
    runs = [Run(Tiny(norm='sync'), devices, rate=0.001) for devices in (1, 8)]
    start = runs[0].host()
    for seed in range(10):
        one, eight = (run.step(batch(seed=seed)) for run in runs)
        assert eight['grad_norm'] == pytest.approx(one['grad_norm'], rel=1e-3)  # not the sum over devices
        assert eight['loss'] == pytest.approx(one['loss'], rel=1e-4)
        assert eight['accuracy'] == one['accuracy']
    one, eight = (run.host() for run in runs)
    assert relative_difference(eight.params, one.params) < 1e-5
    assert relative_difference(eight.batch_stats, one.batch_stats) < 1e-5
    assert relative_difference(one.params, start.params) > 1e-4  # they went somewhere
    assert one.step == eight.step == 10


def test_batch_norm_is_of_each_device_and_sync_norm_of_all():
    """The running variance: the mean of the devices' own, against that of the whole batch."""
    data = batch()
    data['image'] //= np.arange(1, 17, dtype=np.uint8)[:, None, None, None]  # the devices' shares differ
    pixels = preprocess(data['image'])
    parts = {'sync': pixels[None], 'batch': pixels.reshape(8, 2, SIZE, SIZE, 3)}
    for norm, shares in parts.items():
        run = Run(Norm(norm), devices=8)
        run.step(data)
        np.testing.assert_allclose(run.state.batch_stats['bn1']['mean'], 0.1 * pixels.mean((0, 1, 2)), rtol=1e-4)
        np.testing.assert_allclose(run.state.batch_stats['bn1']['var'], 0.9 + 0.1 * shares.var((1, 2, 3)).mean(0),
                                   rtol=1e-5)


@pytest.mark.parametrize('dtype', ['bfloat16', 'float16'])
@pytest.mark.parametrize('accumulation', [1, 2])
def test_gradients_are_summed_over_devices_in_float32(dtype, accumulation):
    run = Run(Tiny(jnp.dtype(dtype)), devices=8, accumulation=accumulation)
    program = run.train_step.lower(run.state, batch()).as_text()
    short = {'bfloat16': 'bf16', 'float16': 'f16'}[dtype]
    assert re.search(rf'stablehlo\.convolution.*x{short}>', program)  # what is computed in it
    reduced = re.findall(r'"stablehlo\.all_reduce"\(.*?\}\) : \((.*?)\) -> ', program, re.DOTALL)
    assert len(reduced) == program.count('"stablehlo.all_reduce"(')
    # All gradients and statistics, the loss and the accuracy, and every one of them in float32.
    assert {re.split('[<x>]', kind)[-2] for kind in reduced} == {'f32'}
    expected = sum(leaf.size for leaf in jax.tree.leaves((run.state.params, run.state.batch_stats))) + 2
    assert sum(math.prod(map(int, re.findall(r'(\d+)x', kind))) for kind in reduced) == expected


def test_one_program_for_all_rates_and_lengths():
    """What the schedule says is an argument: a run of another length, or rate, finds the program compiled."""
    runs = [Run(Tiny(), rate=optax.linear_schedule(peak, 0.0, steps)) for peak, steps in ((0.5, 10), (0.1, 99))]
    one, other = (run.train_step.lower(run.state, batch()).as_text() for run in runs)
    assert one == other
    assert [run.step(batch())['learning_rate'] for run in runs] == pytest.approx([0.5, 0.1])
    assert [run.step(batch())['learning_rate'] for run in runs] == pytest.approx([0.45, 0.1 * 98 / 99])


def test_of_one_device_nothing_is_averaged():
    """XLA for a CPU would copy all gradients; and outside float16 none is divided by a scale."""
    programs = [run.train_step.lower(run.state, batch()).as_text() for run in (Run(Tiny()), Run(Tiny(), 8))]
    assert ['stablehlo.all_reduce' in program for program in programs] == [False, True]
    scaled, plain = Run(Tiny()), Run(Tiny())
    scaled.set(loss_scale=np.float32(3))
    for run in (scaled, plain):
        run.step(batch())
    assert_trees_equal(scaled.state.params, plain.state.params)


# --- one update


def by_hand(model, state, parts, smoothing=0.0):
    """Mean over parts of loss and gradients, statistics going from part to part; no train step involved."""
    stats, total = state.batch_stats, []

    def loss_fn(params, stats, part):
        logits, updated = model.apply({'params': params, 'batch_stats': stats}, preprocess(part['image']), train=True,
                                      mutable=['batch_stats'])
        log_p = jax.nn.log_softmax(logits)
        targets = (1 - smoothing) * jnp.eye(CLASSES)[part['label']] + smoothing / CLASSES
        return -(targets * log_p).sum(-1).mean(), updated.get('batch_stats', {})

    slopes = jax.jit(jax.value_and_grad(loss_fn, has_aux=True))
    for part in parts:
        (loss, stats), gradients = slopes(state.params, stats, part)
        total.append((loss, gradients))
    loss, gradients = jax.tree.map(lambda *x: sum(x) / len(x), *total)
    return loss, gradients, stats


@pytest.mark.parametrize(('accumulation', 'smoothing'), [(1, 0.1), (4, 0.0)])
def test_update_by_hand(accumulation, smoothing):
    """With plain descent at rate 1, the parameters move by the mean gradient of the parts."""
    model, data = Tiny(), batch()
    run = Run(model, rate=1.0, momentum=0.0, decay=0.0, accumulation=accumulation,
              task=Softmax(smoothing=smoothing))
    before = run.host()
    size = 16 // accumulation
    parts = [jax.tree.map(lambda x, i=i: x[i:i + size], data) for i in range(0, 16, size)]
    loss, gradients, stats = by_hand(model, before, parts, smoothing)
    metrics = run.step(data)
    moved = jax.tree.map(np.subtract, before.params, run.host().params)
    assert_trees_close(moved, gradients, rtol=1e-3, atol=1e-6)
    assert_trees_close(run.host().batch_stats, stats, rtol=1e-5, atol=1e-7)
    assert metrics['loss'] == pytest.approx(float(loss), rel=1e-5)
    assert metrics['grad_norm'] == pytest.approx(float(optax.tree.norm(gradients)), rel=1e-4)
    assert metrics['learning_rate'] == 1.0


@pytest.mark.parametrize('devices', [1, 2])
def test_accumulated_is_whole_where_no_norm_sees_the_parts(devices):
    whole, parts = (Run(Tiny(norm='none'), devices, accumulation=a) for a in (1, 4))
    for seed in range(3):
        a, b = whole.step(batch(seed=seed)), parts.step(batch(seed=seed))
        assert b == pytest.approx(a, rel=1e-4)
    assert whole.state.batch_stats == {}
    assert relative_difference(parts.host().params, whole.host().params) < 1e-6
    assert parts.host().updates == 3


def test_learns():
    """Each class lights its own quarter of the image's columns and colours."""
    run = Run(Tiny(), devices=2, rate=0.2)
    rng = np.random.default_rng(0)
    label = np.arange(16, dtype=np.int32) % CLASSES
    colours = np.array([[200, 0, 0], [0, 200, 0], [0, 0, 200], [200, 200, 0]], np.uint8)
    rows = []
    for _ in range(30):
        images = colours[label][:, None, None] + rng.integers(50, size=(16, SIZE, SIZE, 3), dtype=np.uint8)
        rows.append(run.step({'image': images, 'label': label}))
    assert rows[0]['loss'] > 1.0
    assert rows[-1]['loss'] < 0.3 * rows[0]['loss']
    assert rows[-1]['accuracy'] == 1.0


@pytest.mark.parametrize('dtype', ['float32', 'bfloat16', 'float16'])
def test_compiles_once(dtype):
    run = Run(Tiny(jnp.dtype(dtype)), devices=8, ema_decay=0.9)
    before = jax.tree.map(lambda x: (x.shape, x.dtype, x.weak_type, x.sharding), run.state)
    for seed in range(3):
        run.step(batch(seed=seed, broken=seed == 1))
    assert jax.tree.map(lambda x: (x.shape, x.dtype, x.weak_type, x.sharding), run.state) == before
    assert run.train_step.compiled._cache_size() == 1


def test_state_is_float32_and_made_from_the_seed():
    train_step = Run(Norm(dtype=jnp.dtype('bfloat16')), devices=8).train_step
    states = [train_step.init(seed, SIZE) for seed in (0, 0, 1)]
    floats = [x for x in jax.tree.leaves(states[0]) if jnp.issubdtype(x.dtype, jnp.floating)]
    assert {x.dtype for x in floats} == {jnp.dtype('float32')}
    assert all(len(x.sharding.device_set) == 8 and x.is_fully_replicated for x in jax.tree.leaves(states[0]))
    assert_trees_equal(states[0], states[1])
    assert relative_difference(states[0].params, states[2].params) > 0.1
    assert states[0].ema == {}


def test_loss_is_that_of_the_task():
    run, data = Run(Tiny(norm='none')), batch()
    logits = Tiny(norm='none').apply({'params': run.host().params}, preprocess(data['image']), train=True)
    metrics = run.step(data)
    loss = Softmax().loss(logits, jnp.eye(CLASSES)[data['label']]).mean()
    assert metrics['loss'] == pytest.approx(float(loss), rel=1e-5)
    assert metrics['accuracy'] == (np.argmax(logits, -1) == data['label']).mean()
