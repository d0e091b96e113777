"""Means and speed between two rows, and how they are shown."""

import io
import itertools
import math
import sys

import pytest

from imagenet_jax.metrics import progress
from imagenet_jax.metrics.progress import Meter, Progress


def metrics(loss=1.0, bad=0, bad_steps=0):
    return {'loss': loss, 'accuracy': 0.5, 'grad_norm': 2.0, 'learning_rate': 0.1 * loss, 'loss_scale': 1.0,
            'bad_steps': bad_steps, 'bad_in_a_row': bad}


@pytest.fixture
def clock(monkeypatch):
    """A second at each look."""
    monkeypatch.setattr(progress.time, 'perf_counter', itertools.count(0.0).__next__)


def test_a_row_has_means_of_finite_steps_and_the_newest_counters():
    meter = Meter(8)
    for one in (metrics(1.0), metrics(math.nan, 1, 1), metrics(math.inf, 2, 2), metrics(4.0, 0, 2)):
        meter.add(one)
    row = meter.row()
    assert row == {'train/loss': 2.5, 'train/accuracy': 0.5, 'train/grad_norm': 2.0, 'train/learning_rate': 0.4,
                   'train/loss_scale': 1.0, 'train/bad_steps': 2.0}
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
    assert out == 'step 15/20  loss 0.12346  eval/top1 0.5  0:00:30 left\n' and err == ''


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
    assert 'loss 1.25, 1000 images/s' in terminal.getvalue() and 'step 1 ' not in terminal.getvalue()
    shown.show(2, {'eval/top1': 0.5})  # a row of evaluation stays above the bar, which keeps its last loss
    shown.close()
    assert 'step 2  eval/top1 0.5\n' in terminal.getvalue()
    assert 'loss 1.25' in terminal.getvalue().rpartition('step 2')[2]
