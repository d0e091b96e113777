"""The process a run lives in: its hosts, signals, settings, and what it says of itself."""

import os
import signal
import subprocess
from types import SimpleNamespace

import jax
import jaxlib
import numpy as np
import pytest
from jax.experimental import multihost_utils

from imagenet_jax import runtime
from imagenet_jax.errors import UserError


@pytest.fixture
def caught():
    """Signals that came to handlers which stood before."""
    seen = []
    before = {n: signal.signal(n, lambda number, _: seen.append(number)) for n in (signal.SIGTERM, signal.SIGINT)}
    yield seen
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize('number', [signal.SIGTERM, signal.SIGINT])
def test_a_signal_is_noted_and_a_second_one_is_not_kept_back(number, caught):
    with runtime.StopSignal() as stop:
        assert stop.agreed(1) == 0
        signal.raise_signal(number)
        assert stop.agreed(1) == stop.agreed(2) == number and not caught
        signal.raise_signal(number)
        assert caught == [number]


def test_handlers_are_put_back(caught):
    with runtime.StopSignal():
        pass
    signal.raise_signal(signal.SIGTERM)
    assert caught == [signal.SIGTERM]


def test_hosts_agree_at_every_tenth_step(monkeypatch, caught):
    asked = []

    def gather(number):
        asked.append(int(number))
        return np.array([number, signal.SIGTERM])  # the other host was told to stop

    monkeypatch.setattr(jax, 'process_count', lambda: 2)
    monkeypatch.setattr(multihost_utils, 'process_allgather', gather)
    with runtime.StopSignal() as stop:
        assert [stop.agreed(step) for step in range(1, 10)] == [0] * 9 and not asked
        assert stop.agreed(10) == signal.SIGTERM and asked == [0]


def test_without_hosts_nothing_is_joined(monkeypatch):
    monkeypatch.setattr(jax.distributed, 'initialize', None)
    runtime.join_hosts()


@pytest.mark.parametrize(('given', 'message'), [
    ({'count': 2}, 'need config.distributed.address'), ({'rank': 0}, 'need config.distributed.address'),
    ({'address': 'localhost:1', 'count': 2, 'rank': 2}, r'config.distributed.rank=2 must be in 0\.\.count-1'),
    ({'address': 'localhost:1'}, r'rank=-1 must be in 0\.\.count-1, and count is 0')])
def test_half_given_hosts_are_an_error(given, message):
    with pytest.raises(UserError, match=message):
        runtime.join_hosts(**given)


@pytest.mark.parametrize(('given', 'expected'), [
    ({'address': 'far:1', 'count': 2, 'rank': 1}, ('far:1', 2, 1)), ({'detect': True}, ())])
def test_hosts_are_joined_and_keep_their_signals(given, expected, monkeypatch):
    calls, settings = [], {}
    monkeypatch.setattr(jax.distributed, 'initialize', lambda *arguments: calls.append(arguments))
    monkeypatch.setattr(jax.config, 'update', settings.__setitem__)
    runtime.join_hosts(**given)
    assert calls == [expected] and settings == {'jax_enable_preemption_service': False}


def test_hosts_that_cannot_be_joined_are_an_error(monkeypatch):
    def initialize(*_):
        raise RuntimeError('no answer')
    monkeypatch.setattr(jax.distributed, 'initialize', initialize)
    monkeypatch.setattr(jax.config, 'update', lambda *_: None)
    with pytest.raises(UserError, match='cannot join the other hosts: no answer'):
        runtime.join_hosts(detect=True)


def test_settings(monkeypatch, tmp_path):
    settings = {}
    monkeypatch.setattr(jax, 'config', SimpleNamespace(
        jax_compilation_cache_dir=None, jax_platforms='cuda', update=settings.__setitem__))
    monkeypatch.setenv('XLA_FLAGS', '--given=1')
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path))
    runtime.configure_jax(deterministic=False, compilation_cache=False)
    assert settings == {} and os.environ['XLA_FLAGS'] == '--given=1'
    runtime.configure_jax(deterministic=True, compilation_cache=True)
    assert settings == {'jax_compilation_cache_dir': str(tmp_path / 'imagenet_jax' / 'xla')}
    assert os.environ['XLA_FLAGS'] == '--given=1 --xla_gpu_deterministic_ops=true'


FLAG = '--xla_cpu_experimental_ynn_fusion_type=-reduce'


@pytest.fixture
def flags(monkeypatch):
    """XLA_FLAGS after configure_jax, by platform, version and flags before."""
    platforms_before = jax.config.jax_platforms

    def configured(platforms, version, before='', deterministic=False):
        monkeypatch.setenv('XLA_FLAGS', before)
        monkeypatch.setattr(jaxlib, '__version__', version)
        jax.config.update('jax_platforms', platforms)
        runtime.guard_half_precision.cache_clear()
        monkeypatch.setattr(runtime.xla_bridge, 'backends_are_initialized', lambda: False)
        runtime.configure_jax(deterministic, compilation_cache=False)
        return runtime.os.environ['XLA_FLAGS']
    yield configured
    jax.config.update('jax_platforms', platforms_before)


def test_flag_is_for_cpus_of_new_versions_alone(flags, monkeypatch):
    monkeypatch.setattr(runtime, '_knows', lambda flag: True)
    assert flags('cpu', '0.11.0') == flags(None, '0.12.0.1') == FLAG
    assert flags('cpu', '0.10.2') == flags('cuda', '0.12.0') == ''
    assert flags('cuda', '0.12.0', deterministic=True) == '--xla_gpu_deterministic_ops=true'
    mine = '--xla_cpu_experimental_ynn_fusion_type=dot'
    assert flags('cpu', '0.12.0', mine) == mine  # what the user says stands
    monkeypatch.setattr(runtime, '_knows', lambda flag: False)
    assert flags('cpu', '1.0.0') == ''  # XLA would end the process


def test_what_the_library_knows():
    assert runtime._knows('xla_cpu_enable_fast_math') and not runtime._knows('xla_cpu_no_such_flag_of_xla')


def test_what_a_run_says_of_itself(monkeypatch):
    known = runtime.describe()
    assert {'python', 'imagenet_jax', 'jax', 'flax', 'optax', 'numpy'} <= known['versions'].keys()
    assert (known['devices'], known['hosts']) == (8, 1)

    def no_git(*_, **__):
        raise subprocess.CalledProcessError(128, 'git')
    monkeypatch.setattr(subprocess, 'run', no_git)
    assert runtime.describe()['git_revision'] == ''
