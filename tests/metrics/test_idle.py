"""What devices wait for images, and what a run says of it."""

import itertools
import time
from types import SimpleNamespace

import jax.numpy as jnp
import pytest

from imagenet_jax.metrics import progress
from imagenet_jax.metrics.idle import Idle
from imagenet_jax.metrics.progress import Meter


class Step:
    """What a step gives, which is there when the test says so."""

    def __init__(self):
        self.done = False

    def is_ready(self):
        return self.done

    def block_until_ready(self):
        while not self.done:
            time.sleep(0.0005)

    def end(self, idle):
        self.done = True
        while idle._noted[0] is not self:
            time.sleep(0.0005)
        return idle._noted[1]


def test_devices_are_idle_from_the_end_of_the_last_step():
    idle, before = Idle(), time.perf_counter()
    first, second = Step(), Step()
    idle.add(first)
    assert idle.seconds(before) == 0  # under way
    ended = first.end(idle)
    now = time.perf_counter()
    assert now - ended <= idle.seconds(before) <= time.perf_counter() - ended
    assert idle.seconds(now) <= time.perf_counter() - now  # the loop waits since later
    idle.add(second)
    assert idle.seconds(before) == 0
    second.done = True
    idle.close()


class Waits:
    """In place of Idle: each wait leaves the devices idle for half a second."""

    def add(self, made):
        pass

    def seconds(self, began):
        return 0.5


METRICS = {name: jnp.float32(0) for name in ('loss', 'accuracy', 'grad_norm', 'learning_rate', 'loss_scale',
                                             'bad_steps', 'bad_in_a_row')}


@pytest.mark.parametrize(('steps', 'host', 'share', 'held_up'), [
    (20, {'image': 1}, 0.5, True), (19, {'image': 1}, 0.5, False),  # too few to tell
    (20, {}, 0, False)])  # drawn on the devices
def test_a_row_has_the_share_of_the_time_and_that_of_the_peak(steps, host, share, held_up, monkeypatch):
    monkeypatch.setattr(progress, 'Idle', Waits)
    clock = itertools.count(0.0, 0.5)
    monkeypatch.setattr(progress, 'time', SimpleNamespace(perf_counter=clock.__next__))
    meter = Meter(8)
    meter.peak_seconds = 0.25
    meter.next(iter([(host, {})]))  # before the clock runs
    meter.add(METRICS)
    meter.pause()
    meter.resume()
    began = next(clock)
    for _ in range(steps):
        meter.next(iter([(host, {})]))
        meter.add(METRICS)
    row = meter.row()
    seconds = next(clock) - began
    assert row['train/input_wait'] == pytest.approx(share * steps / seconds)
    assert row['train/model_flops_utilization'] == pytest.approx(0.25 * steps / seconds)
    assert meter.held_up is held_up
    meter.watching = False
    meter.resume()
    for _ in range(steps):
        meter.next(iter([(host, {})]))
        meter.add(METRICS)
    meter.row()
    assert not meter.held_up  # once is enough


def test_where_the_peak_is_not_known_nothing_is_said_of_it():
    meter = Meter(8)
    meter.resume()
    meter.add(METRICS)
    row = meter.row()
    assert 'train/model_flops_utilization' not in row and row['train/input_wait'] == 0
