"""The clock of a start: its parts are what the process has lived."""

import subprocess
import sys
import time
from pathlib import Path

import pytest

from imagenet_jax.metrics import beginning
from imagenet_jax.metrics.beginning import Beginning


def test_parts_add_up_from_the_start_of_the_process(monkeypatch):
    now = [1000.0]
    monkeypatch.setattr(beginning.time, 'monotonic', lambda: now[0])
    monkeypatch.setattr(beginning, '_age', lambda: 3.0)
    clock = Beginning.of_process()
    for part, seconds in (('imports', 0.25), ('data', 2), ('state', 1), ('data', 0.5)):
        now[0] += seconds
        clock.done(part)
    assert clock.seconds == {'imports': 3.25, 'data': 2.5, 'state': 1}
    assert str(clock) == 'first step after 6.8 s: imports 3.2, data 2.5, state 1.0'


@pytest.mark.skipif(not Path('/proc/self/stat').exists(), reason='this system does not say it')
def test_the_system_says_when_a_process_began():
    code = 'from imagenet_jax.metrics import beginning; print(beginning._age())'
    began = time.monotonic()
    age = float(subprocess.run([sys.executable, '-c', code], check=True, capture_output=True, text=True).stdout)
    assert 0 < age < time.monotonic() - began + 0.1  # of which a tick is a hundredth
