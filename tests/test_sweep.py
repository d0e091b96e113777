"""Sweeps: what is planned, run, left out, and said. Most with a script that only writes what a run would."""

import os
import shlex
import signal
import subprocess
import sys
import time

import pytest
from fixtures_commands import called
from runs import ROOT, TINY, environment, rows, saved

from imagenet_jax import record, sweep
from imagenet_jax.report import folders

RECIPE = '''
from configs import digits
VARIANTS = ('base', 'wide', 'broken')
def get_config(variant='base'):
    config = digits.get_config()
    config.ema_decay = 0.9 if variant == 'wide' else 0.0
    config.data.train_split = 'val' if variant == 'broken' else 'train'
    return config
'''
# Notes its start in calls/; waits, where there is the file `wait`, for as many starts as it says, then, where there is
# `hold`, for SIGTERM; fails where `fail` names its folder; else leaves a finished run behind.
MAIN = '''
import json, os, pathlib, signal, sys, time
from imagenet_jax import record
from imagenet_jax.command_line import recipes
workdir = pathlib.Path(sys.argv[-1])
here = pathlib.Path()
def saved(*_):
    (workdir / 'saved').touch()
    os._exit(143)
signal.signal(signal.SIGTERM, saved)
signal.alarm(60)  # ends it where what it waits for does not come
(here / 'calls' / str(workdir).replace('/', ' ')).write_text(os.environ.get('CUDA_VISIBLE_DEVICES', '-'))
while (here / 'wait').exists() and len(list((here / 'calls').iterdir())) < int((here / 'wait').read_text()):
    time.sleep(0.01)
while (here / 'hold').exists():
    time.sleep(0.01)
if (here / 'fail').exists() and (here / 'fail').read_text() in str(workdir):
    print('step 1/2')
    sys.exit('error: out of luck')
config = recipes.make(sys.argv[2], sys.argv[3:-2]).to_dict()
entry = {**config, 'run': {'train_examples': 640, 'parameters': 1}}
(workdir / 'metrics.jsonl').write_text(''.join(
    json.dumps({'step': step, 'seconds': 9.0 * step, 'eval/top1': 0.5}) + chr(10) for step in (100, 200)))
record.finish(workdir, entry)
'''


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A working directory with a recipe and a main.py that stands for `train`, in which commands run."""
    (tmp_path / 'mine.py').write_text(RECIPE)
    (tmp_path / 'main.py').write_text(MAIN)
    (tmp_path / 'calls').mkdir()
    monkeypatch.setattr(sweep, '_TRAIN', ('main.py',))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv('PYTHONPATH', str(ROOT))
    monkeypatch.delenv('CUDA_VISIBLE_DEVICES', raising=False)
    return tmp_path


def swept(monkeypatch, capsys, *arguments):
    """(what it leaves with, its output) of `sweep --config mine.py... --workdir runs`."""
    return called(monkeypatch, capsys, 'sweep', '--workdir', 'runs', *arguments)


def calls(here):
    """Folders whose runs were started since the last time -> the GPUs that each saw."""
    found = {path.name.replace(' ', '/'): path.read_text() for path in (here / 'calls').iterdir()}
    for path in (here / 'calls').iterdir():
        path.unlink()
    return found


def test_each_run_has_its_folder_and_command(here, monkeypatch, capsys):
    code, out = swept(monkeypatch, capsys, '--config', 'mine.py:wide,base', '--config', 'mine.py', '--seeds', '0,5',
                      '--dry-list', '--config.epochs=3')
    assert code == 0 and not calls(here) and not (here / 'runs').exists()
    heading, *lines = out.splitlines()
    assert heading == '4 runs, 0 done:'  # base, the default, is asked for twice
    pairs = [('wide', 0), ('wide', 5), ('base', 0), ('base', 5)]
    assert lines == [*(f'  new  runs/mine/{variant}/seed{seed}' for variant, seed in pairs),
                     *(f'python main.py --config mine.py:{variant} --config.seed={seed} --config.epochs=3 '
                       f'--workdir runs/mine/{variant}/seed{seed}' for variant, seed in pairs)]
    assert swept(monkeypatch, capsys, '--config', 'mine.py:all', '--dry-list')[1].startswith('3 runs')


@pytest.mark.parametrize(('arguments', 'message'), [
    (('--config', 'mine.py:base,'), 'names nothing after its colon'),
    (('--config', 'configs.py'), "error: unknown recipe 'configs.py'"),
    (('--config', 'plain.py:all'), 'plain.py lists nothing that it takes after a colon'),
    (('--config', 'plain.py:x'), 'plain.py takes no argument; give it without :x'),
    (('--config', 'mine.py', '--config.epoch=3'), "unknown option 'config.epoch'; did you mean config.epochs"),
    (('--config', 'mine.py', '--config.epochs=many'), "mine.py:wide: --config.epochs=many must be a number"),
    (('--config', 'mine.py', '--config.seed=1'), '--config.seed=1: the seeds of a sweep are given as --seeds'),
    (('--config', 'mine.py', '--config.epochs', '3'), 'not an argument of sweep: --config.epochs; options of runs are'),
    (('--config', 'mine.py', '--config', 'other/mine.py'), 'would both go to runs/mine/base/seed0'),
    (('--config', 'mine.py', '--seeds', '0'), 2), (('--config', 'mine.py', '--seeds', '1-3'), 2)])
def test_mistakes_are_found_before_anything_runs(arguments, message, here, monkeypatch, capsys):
    (here / 'plain.py').write_text('from configs.digits import get_config')
    (here / 'other').mkdir()
    (here / 'other' / 'mine.py').write_text(RECIPE)
    code, _ = swept(monkeypatch, capsys, '--config', 'mine.py:wide', *arguments)
    assert code == message or message in code
    assert not calls(here) and not (here / 'runs').exists()


def test_a_failed_run_is_told_and_stops_no_other_and_is_tried_again(here, monkeypatch, capsys):
    (here / 'fail').write_text('base/seed1')
    code, out = swept(monkeypatch, capsys, '--config', 'mine.py:base', '--seeds', '3')
    assert code == 1 and len(calls(here)) == 3
    assert 'runs/mine/base/seed1: failed (exit code 1): error: out of luck' in out
    assert '2 of 3 runs done' in out and 'about 1:00:00 left, 2 to go' in out  # seed0 took half an hour
    assert 'runs/mine/base/seed0: done  top1 0.5000  0:30:00' in out
    log = (here / 'runs/mine/base/seed1/train.log').read_text()
    assert log == '\n$ python main.py --config mine.py:base --config.seed=1 --workdir runs/mine/base/seed1\n' \
                  'step 1/2\nerror: out of luck\n'
    (here / 'fail').unlink()
    code, out = swept(monkeypatch, capsys, '--config', 'mine.py:base', '--seeds', '3')
    assert code == 0 and list(calls(here)) == ['runs/mine/base/seed1'] and '3 runs, 2 done:' in out
    code, out = swept(monkeypatch, capsys, '--config', 'mine.py:base', '--seeds', '3', '--config.epochs=30')
    assert code == 0 and len(calls(here)) == 3  # as asked for now, they are not finished


def test_several_at_a_time_on_a_gpu_each(here, monkeypatch, capsys):
    """The third starts on the GPU that is free."""
    (here / 'wait').write_text('2')  # neither of the first two ends before the other has begun
    code, _ = swept(monkeypatch, capsys, '--config', 'mine.py:base', '--seeds', '3', '--gpus', '2')
    found = calls(here)
    assert code == 0 and len(found) == 3 and set(found.values()) == {'0', '1'}
    assert found['runs/mine/base/seed0'] == '0' and found['runs/mine/base/seed1'] == '1'
    monkeypatch.setenv('CUDA_VISIBLE_DEVICES', '3,7')
    swept(monkeypatch, capsys, '--config', 'mine.py:wide', '--seeds', '2', '--gpus', '2')
    assert sorted(calls(here).values()) == ['3', '7']
    code, _ = swept(monkeypatch, capsys, '--config', 'mine.py:wide', '--gpus', '3')
    assert code == 'error: --gpus 3: CUDA_VISIBLE_DEVICES=3,7 names 2'


@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM])
def test_a_signal_lets_the_runs_under_way_save(number, here):
    (here / 'hold').touch()
    program = 'from imagenet_jax import __main__, sweep; sweep._TRAIN = ("main.py",); __main__.main()'
    command = [sys.executable, '-c', program, 'sweep', '--config', 'mine.py:base', '--seeds', '3', '--jobs', '2',
               '--workdir', 'runs']
    with subprocess.Popen(command, text=True, stdout=subprocess.PIPE, start_new_session=True) as process:
        while len(list((here / 'calls').iterdir())) < 2:
            assert process.poll() is None
            time.sleep(0.01)
        os.killpg(process.pid, number)  # as a terminal does, to all in the foreground
        out = process.communicate()[0]
    assert process.returncode == 128 + number
    assert sorted(path.parent.name for path in here.rglob('saved')) == ['seed0', 'seed1'] and len(calls(here)) == 2
    assert out.splitlines()[-2:] == [f'stopped by {number.name}; this goes on from there:',
                                     f'    {shlex.join(command)}']


def test_a_main_py_of_another_project_is_not_what_runs(tmp_path, monkeypatch):
    (tmp_path / 'main.py').touch()
    monkeypatch.chdir(tmp_path)
    assert sweep.Run('digits', 0, (), tmp_path, {}).arguments[:4] == ('-m', 'imagenet_jax', 'train', '--config')


def test_slurm_gets_a_task_for_each_unfinished_run(here, monkeypatch, capsys):
    swept(monkeypatch, capsys, '--config', 'mine.py:base')
    calls(here)
    code, out = swept(monkeypatch, capsys, '--config', 'mine.py:base', '--seeds', '3', '--slurm', 'new/job.sh',
                      "--config.message=it's $HOME")
    assert code == 0 and not calls(here) and 'sbatch new/job.sh' in out
    assert '#SBATCH --array=0-2\n' in (here / 'new/job.sh').read_text()  # seed0 is of another message
    for name, text in (('srun', 'exec'), ('scontrol', 'echo >> requeued'), ('python', sys.executable)):
        (here / name).write_text(f'#!/bin/bash\n{text} "$@"\n')
        (here / name).chmod(0o755)
    task = {**os.environ, 'PATH': f'{here}:{os.environ["PATH"]}', 'SLURM_ARRAY_JOB_ID': '7', 'SLURM_ARRAY_TASK_ID': '1'}
    assert subprocess.run(['bash', 'new/job.sh'], env=task).returncode == 0
    assert list(calls(here)) == ['runs/mine/base/seed1'] and not (here / 'requeued').exists()
    assert record.read(here / 'runs/mine/base/seed1')['message'] == "it's $HOME"
    (here / 'main.py').write_text('import sys; sys.exit(143)')
    assert subprocess.run(['bash', 'new/job.sh'], env=task).returncode == 143
    assert (here / 'requeued').read_text() == 'requeue 7_1\n'


def test_the_rest_is_told_by_the_speed_of_what_ran(tmp_path, capsys):
    """Of its own rows without the first, which has the time of compiling in it."""
    runs = [sweep.Run(recipe, seed, (), tmp_path / f'{recipe}{seed}', {}) for recipe in 'ab' for seed in (0, 1)]
    assert not sweep._tell_left(runs, runs, 1) and not capsys.readouterr().out
    for run, seconds in zip(runs[::2], ((100, 110), (20, 40)), strict=True):
        run.folder.mkdir()
        record.write(run.folder, {'model': {}, 'loss': {}, 'epochs': 10, 'batch_size': 10,
                                  'run': {'train_examples': 100, 'parameters': 1}})
        (run.folder / 'metrics.jsonl').write_text(''.join(
            f'{{"step": {step}, "seconds": {each}}}\n' for step, each in zip((10, 20), seconds, strict=True)))
    # a takes 110 + 80 * 1 = 190, b 40 + 80 * 2 = 200; a fifth of each first one is over.
    assert folders.read(runs[0].folder).whole_seconds == 190 and folders.read(runs[2].folder).whole_seconds == 200
    assert sweep._tell_left(runs, runs, 2)
    assert capsys.readouterr().out == 'about 0:05:51 left, 4 to go\n'  # (1.8 * 190 + 1.8 * 200) / 2


@pytest.mark.slow
def test_real_runs(tmp_path):
    """One fails at its data; a second sweep starts it alone, and the report has the others."""
    (tmp_path / 'mine.py').write_text(RECIPE)
    shorter = [option for option in TINY[2:] if 'epochs' not in option]
    command = [sys.executable, '-m', 'imagenet_jax', 'sweep', '--config', f'{tmp_path}/mine.py:all', '--workdir',
               str(tmp_path / 'runs'), *shorter, '--config.steps=6', '--config.schedule.warmup_epochs=0']

    def ran(arguments):
        return subprocess.run(arguments, cwd=ROOT, env=environment(), text=True, capture_output=True)
    done = ran(command)
    assert done.returncode == 1 and '2 of 3 runs done' in done.stdout, done.stdout + done.stderr
    assert 'broken/seed0: failed (exit code 1): error: digits has the splits train and test' in done.stdout
    for variant in ('base', 'wide'):
        folder = tmp_path / 'runs' / 'mine' / variant / 'seed0'
        assert saved(folder)[-1] == 6 and rows(folder)[-1]['seconds'] > 0 and folders.read(folder).finished
    done = ran(command)
    assert '3 runs, 2 done:' in done.stdout
    assert done.stdout.count('python -m imagenet_jax train --config') == 2  # as started, and as failed
    report = ran([sys.executable, '-m', 'imagenet_jax', 'report', str(tmp_path / 'runs')])
    assert '| wide ' in report.stdout and 'ema_decay=0.9' in report.stdout and 'parameters 75.3k' in report.stdout
    assert f'Not in the table: {tmp_path}/runs/mine/broken/seed0: no config.json; train.log ends: error: digits' \
        in report.stdout
