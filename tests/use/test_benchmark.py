"""How fast models are: what is timed is what a run computes, and the largest batch is the largest that fits."""

import csv
import dataclasses
import itertools
import json
from functools import partial
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from fixtures_commands import called, ran
from fixtures_step import CLASSES, SIZE, Run, Tiny

from imagenet_jax import catalog, memory, step
from imagenet_jax.command_line import recipes
from imagenet_jax.errors import UserError
from imagenet_jax.images.batch import Normalize
from imagenet_jax.use import benchmark, workloads


def ticking():
    """A clock by which each question takes a second."""
    return itertools.count().__next__


def test_the_step_is_that_of_a_run():
    """Updates are those that `TrainStep` makes of the same images; the answers of inference are the model's."""
    own = dataclasses.replace(Run(Tiny(), 2).train_step, normalize=Normalize())
    source = SimpleNamespace(draw=lambda key, shape: {  # random bits would take as long to compile as all else
        'image': (jnp.arange(np.prod(shape)) % 251).astype(jnp.uint8).reshape(shape),
        'label': jnp.arange(shape[0]) % CLASSES})
    experiment = SimpleNamespace(mesh=own.mesh, model=own.model, train=source, train_step=own,
                                 options=SimpleNamespace(accumulation=1))
    train = workloads.Training(experiment, own.mesh, SIZE, views=1)
    assert train.unit == 2
    program = workloads.compiled(train, 16, ticking())
    assert program.seconds == 1 and memory.planned(program.step) > 0
    further = train.begin(program.step, 16)
    further()
    state, metrics = further()
    expected, images = own.init(0, SIZE), train._images((16, SIZE, SIZE, 3))
    for _ in range(2):
        expected, _ = own(expected, images)
    assert int(state.updates) == 2 and np.isfinite(metrics['loss'])
    jax.tree.map(np.testing.assert_array_equal, state.params, expected.params)
    infer = workloads.Inference(experiment, own.mesh, SIZE)
    program = workloads.compiled(infer, 8)
    images = infer._images((8, SIZE, SIZE, 3))['image']
    np.testing.assert_allclose(infer.begin(program.step, 8)(), jax.jit(partial(own.model.apply, train=False))(
        jax.jit(infer._init)(), own.normalize(images)), rtol=1e-4, atol=1e-5)
    with pytest.raises(UserError, match='a batch of 13 images must be a multiple of 2'):
        workloads.compiled(infer, 13)


def test_a_recipe_brings_all_that_its_step_does():
    config = recipes.make('configs/cifar10_resnet20.py', [
        '--config.ema_decay=0.9', '--config.accumulation=2', '--config.mix.mixup=0.2', '--config.loss.smoothing=0.1',
        '--config.model.dtype=bfloat16', '--config.data.labels=fine'])
    model, infer, train = workloads.works(config.to_dict())
    assert isinstance(train._step, step.TrainStep) and train._step.ema_decay == 0.9 and train._step.mix.mixup == 0.2
    assert train._step.task.smoothing == 0.1 and model.dtype == 'bfloat16'
    assert (infer.size, train.size, infer.unit, train.unit) == (32, 32, 8, 16)


class Planned(workloads.Work):
    """Whose programs need `need(batch)` bytes and count in `tried`."""
    name = 'infer'

    def __init__(self, need, unit=8):
        self.size, self.unit, self.need, self.tried, self.ran = 32, unit, need, [], []

    def lower(self, batch):
        self.tried.append(batch)
        return SimpleNamespace(compile=lambda: SimpleNamespace(batch=batch))

    def begin(self, program, batch):
        def step():
            self.ran.append(batch)
            if self.need(batch) > 10**6:
                raise jax.errors.JaxRuntimeError('RESOURCE_EXHAUSTED: Out of memory allocating 5 bytes.')
        return step


@pytest.mark.parametrize('need', [
    lambda n: 1000 * n, lambda n: 900_000 + 3 * n, lambda n: n * n, lambda n: 100_000 * max(1, n // 100),
    lambda n: 10**6 if n < 2000 else 10**7, lambda n: 100_000 + n if n < 50_000 else 10**9, lambda n: n])
@pytest.mark.parametrize('told', [True, False])
def test_the_largest_batch_that_fits(need, told, monkeypatch):
    """Found by its plan in a few programs, or where that is not told by running it: held against trying each."""
    work = Planned(need)
    monkeypatch.setattr(memory, 'planned', lambda program: need(program.batch) if told else None)
    monkeypatch.setattr(benchmark, '_room', lambda: 10**6)
    expected = max(n for n in range(8, 8 * benchmark.LARGEST + 1, 8) if need(n) <= 10**6)
    assert benchmark.largest(work).batch == expected
    assert len(work.tried) <= 45 and bool(work.ran) != told
    work = Planned(lambda n: 10**6 + n)
    monkeypatch.setattr(memory, 'planned', lambda program: work.need(program.batch) if told else None)
    with pytest.raises(UserError, match='not even a batch of 8 fits'):
        benchmark.largest(work)


def test_a_plan_that_promised_too_much(monkeypatch):
    """Memory may be cut up: then the batch is lowered until it runs."""
    work = Planned(lambda n: 1000 * n)
    monkeypatch.setattr(memory, 'planned', lambda program: 500 * program.batch)
    monkeypatch.setattr(benchmark, '_room', lambda: 10**6)
    assert benchmark.run(work, None, 1, ticking())['infer_batch_size'] == 880  # 2000, 1744, 1520, 1328, 1160, 1008
    monkeypatch.setattr(memory, 'check', lambda *_: None)
    with pytest.raises(UserError, match='out of memory in the benchmark: there was no room for'):
        benchmark.run(work, 2000, 1, ticking())


def test_what_is_told_of_memory(monkeypatch):
    work = Planned(lambda n: 1)
    peaks = iter((10, 10, 5 * 10**9, 7 * 10**9))
    device = SimpleNamespace(memory_stats=lambda: {'peak_bytes_in_use': next(peaks)})
    monkeypatch.setattr(jax, 'local_devices', lambda: [device])
    monkeypatch.setattr(memory, 'planned', lambda program: 2_500_000_000)
    rows = [benchmark.measure(work, workloads.compiled(work, 8), 0, ticking()) for _ in range(2)]
    assert [row['infer_peak_gb'] for row in rows] == [None, 7.0] and rows[0]['infer_planned_gb'] == 2.5


def test_times_are_of_blocks_after_the_warm_up():
    steps = []
    timing = benchmark.timed(lambda: steps.append(0), 80, ticking())  # of each block the clock counts a second
    assert timing == (0.1, 0.1, 0.1) and (len(steps) - 2) % 10 == 0 and len(steps) > 100
    assert benchmark.timed(lambda: steps.append(0), 0, ticking()).median == 1.0


def test_the_command(tmp_path, monkeypatch, capsys):
    """A row by timm's names; a model that fails is named, and keeps what it came to; the others go on."""
    def run(work, batch, seconds):
        assert (batch, seconds) == (None, 3.0)
        if work.name == 'train' and work._step.model.drop_path:
            raise jax.errors.JaxRuntimeError('INTERNAL: no such kernel\nand more')
        return {f'{work.name}_{name}': 8.5 for name in ('samples_per_sec', 'step_time', 'batch_size', 'compile_s')} | {
            f'{work.name}_img_size': work.size, f'{work.name}_planned_gb': None, f'{work.name}_peak_gb': 1.25}
    monkeypatch.setattr(benchmark, 'run', run)
    arguments = ('resnet8_c*', 'alexnet_v1_cifar', '--batch-size', 'auto', '--seconds', 3, '--csv', tmp_path / 'b.csv')
    code, out = called(monkeypatch, capsys, 'benchmark', *arguments, '--option', 'drop_path=0.1', '--size', 16,
                       '--json')
    (row,), failed = (json.loads(out)[name] for name in ('results', 'failed'))
    assert code == 1 and failed.keys() == {'alexnet_v1_cifar', 'resnet8_cifar'}
    assert 'drop_path' in failed['alexnet_v1_cifar'] and failed['resnet8_cifar'] == 'train: INTERNAL: no such kernel'
    assert row['param_count'] == catalog.sizes()['resnet8_cifar'].parameters / 1e6 and row['infer_img_size'] == 16
    assert row['infer_samples_per_sec'] == 8.5 and row['train_samples_per_sec'] is None
    code, out = called(monkeypatch, capsys, 'benchmark', *arguments[:1], *arguments[2:])
    assert code == 0 and [line.split() for line in out.splitlines()[2:]] == [
        ['resnet8_cifar', mode, '8.5', '32', '8.5', '8.50', '8.5', '1.25'] for mode in ('infer', 'train')]
    with (tmp_path / 'b.csv').open() as rows:
        assert [(each['model'], each['infer_batch_size'], each['train_step_time'])
                for each in csv.DictReader(rows)] == [('resnet8_cifar', '8.5', ''), ('resnet8_cifar', '8.5', '8.5')]


@pytest.mark.slow
def test_in_its_own_process():
    out = ran('benchmark', 'resnet8_cifar', '--batch-size', 8, '--size', 8, '--seconds', 0)
    assert [line.split()[:4] for line in out.splitlines() if line.startswith('resnet8_cifar ')] == [
        ['resnet8_cifar', mode, '8', '8'] for mode in ('infer', 'train')]


@pytest.mark.parametrize(('arguments', 'message'), [
    ((), 'which models'), (('resnett50',), 'did you mean resnet50'), (('--config', 'nope'), "unknown recipe 'nope'"),
    (('resnet8_cifar', '--batch-size', '0'), None), (('resnet8_cifar', '--inference', '--train'), None)])
def test_wrong_use_is_explained(arguments, message, monkeypatch, capsys):
    code, _ = called(monkeypatch, capsys, 'benchmark', *arguments)
    assert code == 2 if message is None else message in code
