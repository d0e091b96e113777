"""Means and speed between two rows, and how they are shown."""

import io
import itertools
import math
import sys
from types import SimpleNamespace

import jax.numpy as jnp
import pytest

from imagenet_jax.metrics import progress
from imagenet_jax.metrics.progress import Meter, Progress, evaluation_lines


def metrics(loss=1.0, bad=0, bad_steps=0):
    row = {'loss': loss, 'accuracy': 0.5, 'grad_norm': 2.0, 'learning_rate': 0.1 * loss, 'loss_scale': 1.0,
           'bad_steps': bad_steps, 'bad_in_a_row': bad}
    return {name: jnp.float32(value) for name, value in row.items()}


@pytest.fixture
def clock(monkeypatch):
    """A second at each look of the meter's; other threads, which look too, have the real one."""
    monkeypatch.setattr(progress, 'time', SimpleNamespace(perf_counter=itertools.count(0.0).__next__))


def test_a_row_has_means_of_finite_steps_and_the_newest_counters():
    meter = Meter(8)
    for one in (metrics(1.0), metrics(math.nan, 1, 1), metrics(math.inf, 2, 2), metrics(4.0, 0, 2)):
        meter.add(one)
    row = meter.row()
    assert row == {'train/loss': 2.5, 'train/accuracy': 0.5, 'train/grad_norm': 2.0,
                   'train/learning_rate': pytest.approx(0.4), 'train/loss_scale': 1.0, 'train/bad_steps': 2.0}
    assert meter.bad_in_a_row == 2
    meter.add(metrics(math.nan, 1, 3))
    assert math.isnan(meter.row()['train/loss'])  # of this step alone


def test_metrics_are_read_two_steps_late():
    meter = Meter(8)
    for bad in (1, 2, 3):
        meter.add(metrics(math.nan, bad))
    assert meter.bad_in_a_row == 1
    meter.pause()
    assert meter.bad_in_a_row == 3


def test_metrics_are_fetched_once_a_row_but_for_the_count_of_bad_steps(monkeypatch):
    fetched = []
    monkeypatch.setattr(progress.jax, 'device_get', lambda tree: fetched.append(len(tree)) or tree)
    meter = Meter(8)
    for _ in range(9):
        meter.add(metrics())
    meter.row()
    assert fetched == [9]
    monkeypatch.setattr(Meter, '_unread_at_most', 4)  # a row that never comes does not fill the devices
    for _ in range(11):
        meter.add(metrics())
    assert fetched == [9, 4, 4]


def test_speed_leaves_pauses_out(clock):
    meter = Meter(8)
    meter.add(metrics())  # the first step, which compiles: the clock does not run yet
    meter.pause()
    meter.resume()  # looks at 0
    meter.add(metrics())
    meter.pause()  # at 1
    meter.pause()
    meter.resume()  # at 2
    meter.resume()
    meter.add(metrics())
    assert meter.row()['train/images_per_s'] == 8  # at 3: two steps in two seconds
    meter.add(metrics())
    assert 'train/images_per_s' not in meter.row()
    meter.resume()  # a batch is waited for, and its step compiles: no speed rather than none at all
    meter.pause()
    meter.add(metrics())
    assert 'train/images_per_s' not in meter.row()


def test_lines_where_there_is_no_terminal(capsys, monkeypatch):
    monkeypatch.setattr(progress.time, 'monotonic', itertools.count(0, 30).__next__)
    shown = Progress(10, 20, active=True)
    shown.advance()
    shown.show(15, {'train/loss': 0.123456, 'eval/top1': 0.5, 'train/epoch': 1, 'resume/step': None})
    shown.close()
    out, err = capsys.readouterr()
    assert out == ('step 15/20  loss 0.1235  epoch 1.0  0:00:30 left\n'
                   'step 15  eval/top1 0.5000\n') and err == ''


LONG = {'train/loss': 1.23456, 'train/accuracy': 0.71234, 'train/grad_norm': 1.5, 'train/learning_rate': 1.2345e-5,
        'train/loss_scale': 1.0, 'train/bad_steps': 0.0, 'train/images_per_s': 12345.6, 'train/epoch': 89.93,
        'train/bad_samples': 0, 'eval/top1': 0.77123, 'eval/top5': 0.93456, 'eval/loss': 0.9, 'eval/bad_samples': 0,
        'eval/ema_top1': 0.77345, 'eval/ema_top5': 1.0, 'eval/ema_loss': math.nan}


@pytest.mark.parametrize(('changes', 'line'), [
    ({}, 'step 450000/450360  loss 1.235  acc 0.7123  12346 img/s  0:00:00 left'),
    ({'train/bad_steps': 12.0, 'train/bad_samples': 3},  # what is wrong goes before speed and rate
     'step 450000/450360  loss 1.235  acc 0.7123  bad_steps 12  0:00:00 left'),
    ({'train/loss': math.nan, 'train/accuracy': None, 'train/loss_scale': 512.0, 'train/images_per_s': None},
     'step 450000/450360  loss nan  lr 1.23e-05  loss_scale 512  0:00:00 left')])
def test_a_row_fits_80_columns(changes, line, capsys, monkeypatch):
    """And what is as it should be is left out, of training; all of an evaluation is there."""
    monkeypatch.setattr(progress.time, 'monotonic', lambda: 0.0)
    shown = Progress(0, 450360, active=True)
    shown.show(450000, LONG | changes)
    shown.close()
    lines = capsys.readouterr().out.splitlines()
    assert lines == [line, 'step 450000  eval/top1 0.7712  eval/top5 0.9346  eval/loss 0.9000',
                     'step 450000  eval/ema_top1 0.7734  eval/ema_top5 1.0000  eval/ema_loss nan']
    assert max(map(len, lines)) <= 80


def test_lines_of_an_evaluation():
    assert evaluation_lines({'train/loss': 1.0}, 'done: ') == []
    row = {'eval/mean_average_precision': 0.51, 'eval/bad_samples': 2, 'eval/ema_mean_average_precision': 0.5}
    assert evaluation_lines(row, 'done: ') == ['done: eval/mean_average_precision 0.5100  eval/bad_samples 2',
                                               'done: eval/ema_mean_average_precision 0.5000']
    long = evaluation_lines({f'eval/score_number_{i}': 0.5 for i in range(10)}, 'step 1  ')
    assert len(long) == 5 and max(map(len, long)) <= 80 and ' '.join(long).count('score_number') == 10


@pytest.mark.parametrize(('seconds', 'left'), [(5, '0:00:05'), (12345, '3:25:45'), (86399, '23:59:59'),
                                               (100_000, '1 d 3 h')])
def test_time_left_takes_few_columns(seconds, left, capsys, monkeypatch):
    times = iter([0, seconds])
    monkeypatch.setattr(progress.time, 'monotonic', lambda: next(times, seconds))
    shown = Progress(0, 2, active=True)
    shown.show(1, {})
    assert capsys.readouterr().out == f'step 1/2  {left} left\n'


def test_other_processes_show_nothing(capsys):
    shown = Progress(0, 20, active=False)
    shown.advance()
    shown.show(1, {'train/loss': 1.0})
    shown.close()
    assert capsys.readouterr() == ('', '')


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_a_bar_on_a_terminal(monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr(sys, 'stderr', terminal)
    monkeypatch.setattr(sys, 'stdout', terminal)
    shown = Progress(0, 20, active=True)
    shown.advance()
    shown.show(1, {'train/loss': 1.25, 'train/images_per_s': 1000.0})
    assert 'loss 1.250, 1000 img/s' in terminal.getvalue() and 'step 1 ' not in terminal.getvalue()
    shown.show(2, {'eval/top1': 0.5})  # a row of evaluation stays above the bar, which keeps its last loss
    shown.close()
    assert 'step 2  eval/top1 0.5000\n' in terminal.getvalue()
    assert 'loss 1.250' in terminal.getvalue().rpartition('step 2')[2]
