"""The train step: one device against eight, parts against the whole, and steps that are not finite."""

import re

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from imagenet_jax import optim, step
from imagenet_jax.models.layers import FLOAT32, Layers
from imagenet_jax.schedules import Plateau
from imagenet_jax.task import Softmax

pytestmark = pytest.mark.numerics

CLASSES, SIZE = 4, 8


def waves(key, shape, dtype):
    """Initial values without random bits, whose program takes longer to compile than the train step."""
    del key
    return jnp.cos(jnp.arange(np.prod(shape), dtype=dtype) * 1.7).reshape(shape) / 3


class Tiny(nn.Module):
    """A convolution, a norm ('none': a bias), dropout and a classifier."""
    dtype: jnp.dtype = FLOAT32
    norm: str = 'batch'
    dropout: float = 0.0

    @nn.compact
    def __call__(self, images, train=False):
        layers = Layers(train, self.dtype, norm_kind='batch' if self.norm == 'none' else self.norm)
        x = nn.Conv(8, (3, 3), (2, 2), use_bias=self.norm == 'none', kernel_init=waves, dtype=self.dtype)(images)
        x = layers.act(x if self.norm == 'none' else layers.norm('bn1')(x))
        x = layers.dropout(self.dropout)(x.mean((1, 2)))
        return nn.Dense(CLASSES, kernel_init=waves, dtype=self.dtype)(x).astype(jnp.float32)


class Norm(nn.Module):
    """A norm of the images themselves, and a classifier."""
    norm: str = 'batch'
    dtype: jnp.dtype = FLOAT32

    @nn.compact
    def __call__(self, images, train=False):
        norm = Layers(train, self.dtype, norm_kind=self.norm).norm('bn1')
        return nn.Dense(CLASSES, dtype=self.dtype)(norm(images).mean((1, 2))).astype(jnp.float32)


def preprocess(images):
    """A pixel of 255 is infinite, so that a batch can be made to overflow."""
    return jnp.where(images == 255, jnp.inf, images / 128.0 - 1)


def batch(n=16, seed=0, broken=False):
    rng = np.random.default_rng(seed)
    images = rng.integers(255, size=(n, SIZE, SIZE, 3), dtype=np.uint8)
    images[0, 0, 0] = 255 if broken else 0
    return {'image': images, 'label': rng.integers(CLASSES, size=n, dtype=np.int32)}


class Run:
    """A model with its step and state on the first `devices` devices."""

    def __init__(self, model, devices=1, rate=0.1, momentum=0.9, decay=1e-4, task=Softmax(), **options):
        self.mesh = step.make_mesh(jax.devices()[:devices])
        self.train_step = step.TrainStep(
            model=model, optimizer=optim.SGD(momentum=momentum, weight_decay=decay), task=task, normalize=preprocess,
            schedule=rate if callable(rate) else optax.constant_schedule(rate), mesh=self.mesh, **options)
        self.state = self.train_step.init(0, SIZE)

    def step(self, batch):
        """The metrics, as floats."""
        self.state, metrics = self.train_step(self.state, self.on_devices(batch))
        return {name: float(value) for name, value in metrics.items()}

    def on_devices(self, batch):
        return jax.device_put(batch, NamedSharding(self.mesh, P('data')))

    def set(self, **values):
        replicated = NamedSharding(self.mesh, P())
        self.state = self.state.replace(**jax.device_put(values, replicated))

    def host(self):
        """A copy of the state that donation leaves alone."""
        return jax.tree.map(np.array, self.state)


def assert_trees_equal(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


def assert_trees_close(a, b, rtol, atol=0.0):
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=rtol, atol=atol), a, b)


def relative_difference(a, b):
    """Of two trees taken as vectors."""
    a, b = (np.concatenate([np.ravel(x) for x in jax.tree.leaves(tree)]) for tree in (a, b))
    return np.linalg.norm(a - b) / np.linalg.norm(b)


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
    program = run.train_step.compiled.lower(run.state, batch()).as_text()
    short = {'bfloat16': 'bf16', 'float16': 'f16'}[dtype]
    assert re.search(rf'stablehlo\.convolution.*x{short}>', program)  # what is computed in it
    reduced = re.findall(r'"stablehlo\.all_reduce"\(.*?\}\) : \((.*?)\) -> ', program, re.DOTALL)
    assert len(reduced) == program.count('"stablehlo.all_reduce"(')
    # Among them one of each parameter's shape, and every one of them in float32.
    for leaf in jax.tree.leaves(run.state.params):
        assert f'tensor<{"x".join(map(str, leaf.shape))}xf32>' in reduced
    assert {re.split('[<x>]', kind)[-2] for kind in reduced} == {'f32'}


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


# --- randomness


def frozen(**options):
    """Nothing moves, so that only the dropout mask changes the loss."""
    return Run(Tiny(norm='none', dropout=0.5), rate=0.0, momentum=0.0, decay=0.0, **options)


def test_dropout_is_drawn_from_seed_and_step():
    run, data = frozen(), batch()
    first, second = run.step(data)['loss'], run.step(data)['loss']
    assert first != second
    run.set(step=jnp.int32(0))
    assert run.step(data)['loss'] == first
    run.set(step=jnp.int32(0), key=jax.random.key_data(jax.random.key(1)))
    assert run.step(data)['loss'] not in (first, second)


@pytest.mark.parametrize('options', [{'devices': 2}, {'accumulation': 2}])
def test_dropout_differs_between_devices_and_between_parts(options):
    """Two shares of the same images: with one mask for both, their mean loss would be that of one share alone."""
    half = batch(8)
    twice = jax.tree.map(lambda x: np.concatenate([x, x]), half)
    assert frozen(**options).step(twice)['loss'] != pytest.approx(frozen().step(half)['loss'], rel=1e-6)


# --- the running average


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


# --- steps that are not finite


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


def test_loss_is_that_of_the_task():
    run, data = Run(Tiny(norm='none')), batch()
    logits = Tiny(norm='none').apply({'params': run.host().params}, preprocess(data['image']), train=True)
    metrics = run.step(data)
    loss = Softmax().loss(logits, jnp.eye(CLASSES)[data['label']]).mean()
    assert metrics['loss'] == pytest.approx(float(loss), rel=1e-5)
    assert metrics['accuracy'] == (np.argmax(logits, -1) == data['label']).mean()


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
    assert run.train_step.compiled._cache_size() == 1


# --- slow weights


def test_lookahead_by_hand():
    """Every second update the slow weights go half the way; a step that is not finite is no update."""
    plain, run = Run(Tiny(), rate=0.5), Run(Tiny(), rate=0.5, lookahead=step.Lookahead(steps=2, alpha=0.5))
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


# --- streams of random numbers


class Draws(nn.Module):
    """Answers what each stream gives, as a constant that a loss of the classifier's bias can be read from."""
    dtype: jnp.dtype = FLOAT32

    @nn.compact
    def __call__(self, images, train=False):
        bias = self.param('bias', nn.initializers.zeros, (CLASSES,))
        seen = self.variable('batch_stats', 'seen', jnp.zeros, (len(step.MODEL_STREAMS),))
        if train:
            seen.value = jnp.stack([jax.random.uniform(self.scope.rngs[name].rng) for name in step.MODEL_STREAMS])
        return jnp.zeros((len(images), CLASSES)) + bias


def test_streams_are_fixed():
    """Each is its own fold of the step's key: by its number, then the device, then the part."""
    run = Run(Draws(), rate=0.0)
    for at in range(2):
        run.step(batch(seed=at))
        key = jax.random.fold_in(jax.random.key(0), at)
        expected = []
        for number in (0, 1, 2):  # dropout, drop_path, drop_block: for good
            stream = jax.random.fold_in(jax.random.fold_in(jax.random.fold_in(key, number), 0), 0)
            expected.append(jax.random.uniform(stream))
        np.testing.assert_array_equal(run.state.batch_stats['seen'], np.array(expected))
    assert step.STREAMS == {'dropout': 0, 'drop_path': 1, 'drop_block': 2, 'mix': 3, 'erase': 4}
