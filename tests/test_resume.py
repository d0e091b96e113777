"""A run that was killed, stopped or damaged ends bit for bit as one that was not."""

import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from runs import ROOT, TINY, contents, environment, finish, numbers, rows, run, saved, start, stop_when
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams import metadata
from tensorboard.util.tensor_util import make_ndarray

from imagenet_jax.report import folders

pytestmark = pytest.mark.runs

LAST = 45


@pytest.fixture(scope='module')
def reference(tmp_path_factory) -> Path:
    """The run never interrupted; copied by tests that change it."""
    workdir = tmp_path_factory.mktemp('reference')
    run(workdir, board=True)
    return workdir


def assert_same(workdir: Path, reference: Path) -> None:
    assert contents(workdir, LAST) == contents(reference, LAST)
    assert numbers(workdir) == numbers(reference)
    steps = [row['step'] for row in rows(workdir)]
    assert len(steps) == len(set(steps))


def saving(workdir: Path) -> bool:
    return bool(saved(workdir)) and any('tmp' in path.name for path in (workdir / 'checkpoints').iterdir())


MOMENTS = {
    'before the first save': lambda workdir: len(rows(workdir)) >= 2,
    'in the middle of the second epoch': lambda workdir: len(rows(workdir)) >= 33,
    'while saving': saving,
}


@pytest.mark.parametrize('moment', MOMENTS)
def test_kill_9(moment, reference, tmp_path):
    process = start(tmp_path)
    stop_when(process, lambda: MOMENTS[moment](tmp_path))
    finish(process, -signal.SIGKILL)
    before = saved(tmp_path)
    assert not folders.read(tmp_path).finished
    # Other workers on the second start: they must not matter.
    output = run(tmp_path, '--config.data.processes=1' if 'middle' in moment else '--config.data.threads=3')
    assert_same(tmp_path, reference)
    assert folders.read(tmp_path).finished
    marks = [row['resume/step'] for row in rows(tmp_path) if 'resume/step' in row]
    assert marks == before[-1:]
    seconds = [row['seconds'] for row in rows(tmp_path) if 'seconds' in row]
    assert seconds == sorted(seconds) and seconds[-1] > seconds[0]
    assert (f'resuming at step {before[-1]}' in output) if before else ('resuming at step' not in output)


@pytest.mark.parametrize(('number', 'code'), [
    (signal.SIGTERM, 143), pytest.param(signal.SIGINT, 130, marks=pytest.mark.slow)])
def test_signal_saves_and_says_how_to_go_on(number, code, reference, tmp_path):
    process = start(tmp_path, '--config.data.processes=1', '--config.checkpoint_steps=0')
    stop_when(process, lambda: len(rows(tmp_path)) >= 12, number)
    output = finish(process, code)
    step = rows(tmp_path)[-1]['step']
    assert saved(tmp_path) == [step]
    assert f'--workdir {tmp_path} --config configs/digits.py' in output
    assert 'Traceback' not in output
    run(tmp_path, '--config.data.processes=0')
    assert_same(tmp_path, reference)


# A signal that comes at the second batch of the first evaluation, as from outside it cannot be timed.
INTERRUPTED = """
from imagenet_jax import runtime
from imagenet_jax.command_line import running

def check(self, at, check=runtime.StopSignal.check):
    if at == 1:
        self._note(15, None)
    check(self, at)

runtime.StopSignal.check = check
running.run('train')
"""


@pytest.mark.slow
def test_a_signal_in_an_evaluation_saves_there_and_the_evaluation_is_made_later(reference, tmp_path):
    command = [sys.executable, '-c', INTERRUPTED, '--workdir', str(tmp_path), *TINY]
    ended = subprocess.run(command, cwd=ROOT, text=True, capture_output=True, env=environment())
    assert ended.returncode == 143, ended.stderr
    assert saved(tmp_path)[-1] == 23 and not any('eval/top1' in row for row in rows(tmp_path))
    run(tmp_path)
    assert_same(tmp_path, reference)
    shutil.rmtree(tmp_path / 'checkpoints' / str(LAST))  # and once more, in the last evaluation
    ended = subprocess.run(command, cwd=ROOT, text=True, capture_output=True, env=environment())
    assert ended.returncode == 143, ended.stderr
    assert 'done: ' in run(tmp_path)
    assert_same(tmp_path, reference)


@pytest.mark.slow
def test_usr1_saves_and_the_run_goes_on(reference, tmp_path):
    process = start(tmp_path, '--config.data.processes=1', '--config.checkpoint_steps=0')
    stop_when(process, lambda: len(rows(tmp_path)) >= 5, signal.SIGUSR1)
    output = finish(process)
    assert 'SIGUSR1: saving after this step, and going on' in output
    assert_same(tmp_path, reference)


def test_finished_run_stays_as_it_is(reference, tmp_path):
    shutil.copytree(reference, tmp_path, dirs_exist_ok=True)
    output = run(tmp_path)
    assert 'nothing to do' in output
    assert_same(tmp_path, reference)
    assert rows(tmp_path)[-1]['resume/step'] == LAST
    best = max((row for row in rows(tmp_path) if 'eval/top1' in row), key=lambda row: (row['eval/top1'], row['step']))
    summary = json.loads((tmp_path / 'summary.json').read_text())
    assert summary['finished'] and summary['best']['step'] == best['step'] and summary['last']['step'] == LAST
    assert (f'done: top1 {summary["last"]["top1"]:.4f}, best {best["eval/top1"]:.4f} at step {best["step"]}' in output)


def test_damaged_checkpoint_is_named_and_passed_over(reference, tmp_path):
    shutil.copytree(reference, tmp_path, dirs_exist_ok=True)
    for path in (tmp_path / 'checkpoints' / str(LAST) / 'state').rglob('*'):
        if path.is_file():
            path.write_bytes(path.read_bytes()[:-7])
    output = run(tmp_path)
    assert f'{tmp_path}/checkpoints/{LAST} does not load and is passed over' in output
    assert f'resuming at step {saved(reference)[-2]}' in output
    assert (tmp_path / 'damaged_checkpoints' / str(LAST)).is_dir()
    assert_same(tmp_path, reference)


def test_torn_row_is_dropped(reference, tmp_path):
    shutil.copytree(reference, tmp_path, dirs_exist_ok=True)
    with (tmp_path / 'metrics.jsonl').open('a') as file:
        file.write('{"step": 46, "train/lo')
    assert 'rows are damaged and left out' in run(tmp_path)
    assert_same(tmp_path, reference)


@pytest.mark.parametrize('changes', [
    {'--config.model.shortcut=B': "config.model.shortcut: was None, now 'B'",
     '--config.batch_size=32': 'config.batch_size: was 64, now 32',
     '--config.augment.size=16': 'config.augment.size: was 8, now 16',
     '--config.optimizer.name=rmsprop': "config.optimizer.name: was 'sgd', now 'rmsprop'",
     '--config.seed=1': 'config.seed: was 0, now 1'}])
def test_change_of_model_or_data_is_refused(changes, reference):
    before = (reference / 'config.json').read_text()
    output = run(reference, *changes, code=1)
    assert all(shown in output for shown in changes.values())
    assert (reference / 'config.json').read_text() == before
    assert saved(reference)[-1] == LAST


def test_harmless_change_is_logged(reference, tmp_path):
    shutil.copytree(reference, tmp_path, dirs_exist_ok=True)
    output = run(tmp_path, '--config.epochs=2.2', '--config.log_steps=2', '--config.message=longer')
    assert 'resuming with config.epochs=2.2, which was 2.0' in output
    assert rows(tmp_path)[-1]['step'] == 49
    assert json.loads((tmp_path / 'config.json').read_text())['message'] == 'longer'


def test_other_parts_of_the_optimizer_go_on(reference, tmp_path):
    """Decay, frozen parameters and factors have no arrays of their own, and move none."""
    shutil.copytree(reference, tmp_path, dirs_exist_ok=True)
    output = run(tmp_path, '--config.epochs=2.1', '--config.optimizer.weight_decay=0', "--config.freeze=('conv1/*',)",
                 "--config.optimizer.rate_factors=(('linear/*', 10.0),)")
    assert 'resuming with config.optimizer.weight_decay=0.0, which was 0.0001' in output
    assert rows(tmp_path)[-1]['step'] == 47


WATCHED = ('--config.eval_steps=4', '--config.schedule.name=plateau', '--config.schedule.patience=1',
           '--config.schedule.factor=0.5', '--config.stop_after=4', '--config.optimizer.learning_rate=1e-7',
           '--config.schedule.warmup_epochs=0', "--config.freeze=('bn1/*', 'layer*')", '--config.lookahead.steps=3',
           '--config.ema_decay=0.5')


@pytest.mark.slow
def test_a_run_that_is_killed_amid_its_patience_waits_on(tmp_path):
    """Where next to nothing learns no evaluation is better than the first: the third halves the rate, and the fifth
    ends the run."""
    whole, parts = tmp_path / 'whole', tmp_path / 'parts'
    assert 'the run ends at step 20, and 4 evaluations in a row brought no better top1 than' in run(whole, *WATCHED)
    process = start(parts, *WATCHED)
    stop_when(process, lambda: len(rows(parts)) >= 13)
    finish(process, -signal.SIGKILL)
    run(parts, *WATCHED)
    assert contents(parts, 20) == contents(whole, 20)
    assert {'watch/stale', 'watch/waited', 'watch/rate_scale', 'slow/conv1/kernel'} <= contents(whole, 20).keys()
    assert numbers(parts) == numbers(whole)
    rates = [row['train/learning_rate'] for row in rows(whole)]
    assert rates == pytest.approx([1e-7] * 12 + [5e-8] * 8)
    assert 'nothing to do: the run is at step 20, and 4 evaluations' in run(whole, *WATCHED)
    for found in map(folders.read, (whole, parts)):
        assert found.finished and found.step == 20 < found.steps and not found.problem


@pytest.mark.slow
@pytest.mark.parametrize('middle', [50, 80])
def test_a_run_that_is_killed_while_its_images_grow_ends_as_it_would_have(middle, tmp_path):
    """Sides 8, 8, 12, 12, 16, 16 by epoch, in 23, 22, 23, 22, 23 and 22 batches; killed amid the second and the third
    side, and resumed by other workers."""
    growing = ('--config.augment.size=16', '--config.augment.first_size=8', '--config.augment.ramp_epochs=(1, 5)',
               '--config.augment.repeats=2', '--config.epochs=6', '--config.data.threads=2')
    whole, parts = tmp_path / 'whole', tmp_path / 'parts'
    output = run(whole, *growing)
    for step, side in ((46, 12), (91, 16)):
        assert f'from step {step} on images have {side} pixels a side; compiling' in output
    assert output.count('compiled and made in') == 2 and output.count('first step after') == 1
    process = start(parts, *growing)
    stop_when(process, lambda: len(rows(parts)) >= middle)
    finish(process, -signal.SIGKILL)
    assert saved(parts)[-1] >= middle - 10
    run(parts, *growing, '--config.data.processes=2')
    last = rows(whole)[-1]['step']
    assert contents(parts, last) == contents(whole, last)
    assert numbers(parts) == numbers(whole)
    assert not [row for row in rows(whole) if row['step'] in (1, 46, 91) and 'train/images_per_s' in row]


def test_run_folder(reference):
    record = json.loads((reference / 'config.json').read_text())
    assert record['model']['name'] == 'resnet8_cifar'
    assert record['run']['class_names'] == list('0123456789')
    assert {'jax', 'flax', 'optax', 'python', 'imagenet_jax'} <= set(record['run']['versions'])
    assert {'git_revision', 'device_kind', 'devices', 'hosts'} <= set(record['run'])
    assert (reference / 'checkpoints' / str(LAST) / 'state' / '_METADATA').is_file()
    last = rows(reference)[-1]
    assert last['step'] == LAST
    assert {'train/loss', 'train/accuracy', 'train/learning_rate', 'train/grad_norm', 'train/loss_scale',
            'train/bad_steps', 'eval/top1', 'eval/top5', 'eval/loss'} <= set(last)
    assert 0 < last['eval/top1'] <= last['eval/top5'] <= 1


def test_tensorboard_page(reference):
    events = EventAccumulator(str(reference), size_guidance={'tensors': 0})
    events.Reload()
    tags = set(events.Tags()['tensors'])
    assert {'train/loss', 'train/images_per_s', 'run/bad_steps', 'eval/top1', 'best/top1', 'train/images', 'config',
            'message'} <= tags
    trial = events.PluginTagToContent('hparams')[metadata.SESSION_START_INFO_TAG]
    assert metadata.parse_session_start_info_plugin_data(trial).group_name == str(reference)
    losses = [(e.step, float(make_ndarray(e.tensor_proto))) for e in events.Tensors('train/loss')]
    written = [(row['step'], row['train/loss']) for row in rows(reference)]
    assert losses == [(step, pytest.approx(loss, rel=1e-6)) for step, loss in written]


def test_latest_two_and_best_are_kept(reference):
    tops = {row['step']: row['eval/top1'] for row in rows(reference) if 'eval/top1' in row}
    best = max(tops, key=tops.get)
    assert saved(reference) == sorted({40, 45, best})
