"""main.py as its user calls it."""

import math
import subprocess
import sys

import pytest
from PIL import Image
from runs import ROOT, TINY, contents, environment, rows, run, saved

import imagenet_jax
from imagenet_jax.report import folders


@pytest.mark.runs
def test_quick_start_learns(tmp_path):
    """In a quarter of its epochs; one of ten is right by chance."""
    run(tmp_path, '--config.epochs=5', base=('--config', 'configs/digits.py'))
    assert rows(tmp_path)[-1]['eval/top1'] > 0.95


def test_dry_run_goes_through_everything_and_writes_nothing(tmp_path):
    workdir, temporary, cache = (tmp_path / name for name in ('run', 'temporary', 'cache'))
    temporary.mkdir()
    command = [sys.executable, 'main.py', *TINY, '--workdir', str(workdir), '--config.dry_run=True']
    process = subprocess.run([*command, '--config.ema_decay=0.9'], cwd=ROOT, text=True, capture_output=True,
                             env=environment() | {'TMPDIR': str(temporary), 'XDG_CACHE_HOME': str(cache)})
    assert process.returncode == 0, process.stderr
    assert 'eval/ema_top1' in process.stdout and 'nothing is written' in process.stdout
    assert not workdir.exists() and not any(temporary.iterdir())
    assert any((cache / 'imagenet_jax' / 'xla').iterdir())  # programs alone, in the user's folder


def test_without_tensorflow_and_what_a_run_writes_of_itself(tmp_path):
    output = run(tmp_path, '--config.epochs=0.5', '--config.schedule.warmup_epochs=0', '--config.model.norm=sync',
                 '--config.confusion_epochs=1')
    assert output.count('no TensorBoard event files, metrics.jsonl alone: ImportError: not here') == 1
    assert 'eval/top1' in rows(tmp_path)[-1] and not list(tmp_path.glob('events*'))
    found = folders.read(tmp_path)
    assert found.finished and found.step == found.steps == saved(tmp_path)[-1]
    sizes = [math.prod(shape) for name, (shape, *_) in contents(tmp_path, found.step).items()
             if name.startswith('params/')]
    assert found.entry['run']['parameters'] == sum(sizes)
    assert found.entry['run']['multiply_adds'] == 765568  # of 8 x 8 pixels, as it is evaluated
    assert f'resnet8_cifar: {sum(sizes):,} parameters, 0.8 M multiply-adds' in output and 'conv1/kernel' not in output
    assert all(len(line) <= 80 for line in output.splitlines() if line.startswith(('step ', 'done: ')))
    assert Image.open(tmp_path / 'misclassified.png').width > 100


def test_too_many_bad_steps_stop_the_run(tmp_path):
    output = run(tmp_path, '--config.optimizer.learning_rate=1e30', '--config.schedule.warmup_epochs=0',
                 '--config.max_bad_steps=5', '--config.steps=40', code=1)
    assert 'error: 5 steps in a row' in output and 'Traceback' not in output


def test_bad_steps_are_shown_and_survived(tmp_path):
    run(tmp_path, '--config.optimizer.learning_rate=1e30', '--config.schedule.warmup_epochs=0',
        '--config.max_bad_steps=0', '--config.steps=8', '--config.eval_epochs=0')
    last = rows(tmp_path)[-1]
    assert last['step'] == 8 and last['train/bad_steps'] > 0 and last['train/loss'] is None
    assert saved(tmp_path)[-1] == 8


def test_float16_and_accumulation_and_ema(tmp_path):
    run(tmp_path, '--config.model.dtype=float16', '--config.accumulation=2', '--config.ema_decay=0.9',
        '--config.loss.smoothing=0.1', '--config.steps=23', '--config.data.threads=2')
    last = rows(tmp_path)[-1]
    assert last['train/loss_scale'] == 2.0**(16 - last['train/bad_steps'])  # halved at each overflow
    assert 0 <= last['eval/ema_top1'] <= last['eval/ema_top5'] <= 1


def test_synthetic_data_needs_no_files(tmp_path):
    run(tmp_path, '--config.data.format=synthetic', '--config.data.num_examples=256', '--config.steps=3',
        '--config.schedule.warmup_epochs=0', '--config.eval_epochs=0')
    assert rows(tmp_path)[-1]['step'] == 3


@pytest.mark.parametrize(('arguments', 'message'), [
    ((), 'error: which recipe?'),
    (('--config', 'configs/resnet51.py'), "unknown recipe 'configs/resnet51.py'; did you mean configs/resnet50.py"),
    (('--config', 'configs/resnet101.py:resnet50'),
     'error: no recipe configs/resnet101.py; resnet101 is trained with --config configs/resnet50.py:resnet101'),
    (('--config', 'configs/resnet50.py:resnet5'), "unknown model of this recipe 'resnet5'; did you mean resnet50"),
    (('--config', 'configs/resnet50.py:'), 'error: configs/resnet50.py: names nothing after its colon'),
    (('--config', 'configs/digits.py:foo'), 'error: configs/digits.py takes no argument; give it without :foo'),
    (('--config', 'configs/digits.py'), 'error: where should the run go?'),
    (('--config', 'configs/digits.py', '--config.epoch=3'),
     "unknown option 'config.epoch'; did you mean config.epochs"),
    (('--config', 'configs/digits.py', '--config.model.zerogamma=1'), 'did you mean config.model.zero_gamma'),
    (('--config', 'configs/digits.py', '--config.epochs=many'), 'error: --config.epochs=many must be a number'),
    (('--config', 'configs/digits.py', 'epochs=3'), 'error: not a flag: epochs=3'),
    (('--config', 'configs/digits.py', '--workdir', 'x', '--config.model.stride_in_1x1=True'),
     'config.model.stride_in_1x1=True is read by config.model.name='),
    (('--config', 'configs/digits.py', '--workdir', 'x', '--config.augment.crop=random_resized'),
     'config.augment.pad=2 is read by config.augment.crop=pad, not by random_resized'),
    (('--config', 'configs/digits.py', '--workdir', 'x', '--config.augment.crop=random_resized',
      '--config.augment.pad=None', '--config.data.train_split=val'), 'digits has the splits train and test'),
    (('--config', 'configs/digits.py', '--workdir', 'x', '--config.epochs=None'), 'error: config lacks epochs'),
    (('--config', 'configs/digits.py', '--workdir', 'x', '--config.epochs=None', '--config.epochs=-3'),
     'config.epochs=-3.0 must not be negative'),
    (('--config', 'configs/digits.py', '--workdir', 'x', '--config.model.name=resnet50', '--config.model.groups=1'),
     '--config.model.groups=None'),
    (('--config', 'configs/cifar10_resnet110.py', '--workdir', 'x'),
     'since version 0.2 it is --config configs/cifar10_resnet20.py:resnet110_cifar'),
    (('--config', 'configs/resnet50.py', '--workdir', 'x', '--config.data.path=/nowhere'),
     'error: no folder /nowhere/train'),
])
def test_wrong_command_is_explained(arguments, message, tmp_path):
    process = subprocess.run([sys.executable, str(ROOT / 'main.py'), *arguments], text=True, cwd=ROOT,
                             env=environment(), capture_output=True)
    assert process.returncode == 1
    assert message in process.stdout + process.stderr
    assert 'Traceback' not in process.stderr
    assert not (ROOT / 'x').exists()


def test_workdir_that_cannot_be(tmp_path):
    (tmp_path / 'file').write_text('')
    assert 'error: cannot make the workdir' in run(tmp_path / 'file' / 'run', code=1)


def test_version_and_help():
    def say(*arguments):
        return subprocess.run([sys.executable, 'main.py', *arguments], text=True, cwd=ROOT, env=environment(),
                              capture_output=True, check=True).stdout
    assert say('--version').strip() == f'imagenet_jax {imagenet_jax.__version__}'
    assert '--workdir DIR' in say('--help')
    told = say('--config', 'configs/resnet50.py:resnet101', '--help')
    assert '--config.optimizer.learning_rate=0.4' in told and '--config.model.name=resnet101' in told
    assert 'What this recipe takes' in told and 'regnety_320' in told
