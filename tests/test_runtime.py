"""The process a run lives in: its hosts, signals, settings, and what it says of itself."""

import os
import shutil
import signal
import subprocess
from types import SimpleNamespace

import jax
import numpy as np
import pytest
from jax.experimental import multihost_utils
from runs import ROOT

from imagenet_jax import runtime
from imagenet_jax.errors import Stopped

NUMBERS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


@pytest.fixture
def caught():
    """Signals that came to handlers which stood before."""
    seen = []
    before = {n: signal.signal(n, lambda number, _: seen.append(number)) for n in NUMBERS}
    yield seen
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize('number', NUMBERS)
def test_a_signal_is_noted_and_a_second_one_is_not_kept_back(number, caught):
    with runtime.StopSignal() as stop:
        assert stop.agreed(1) == (0, False, 0)
        stop.check(1)
        signal.raise_signal(number)
        assert stop.agreed(1, 5) == stop.agreed(2, 5) == (number, False, 5) and not caught
        with pytest.raises(Stopped) as stopped:
            stop.check(1)
        assert stopped.value.exit_code == 128 + number
        signal.raise_signal(number)
        assert caught == [number]


def test_a_save_is_asked_for_once_and_the_run_goes_on(caught):
    before = signal.getsignal(signal.SIGUSR1)
    with runtime.StopSignal() as stop:
        signal.raise_signal(signal.SIGUSR1)
        stop.check(0)  # in an evaluation, which saves nothing
        assert stop.agreed(1) == (0, True, 0) and stop.agreed(2) == (0, False, 0)
    assert signal.getsignal(signal.SIGUSR1) is before


def test_what_nohup_ignores_stays_ignored(caught):
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    with runtime.StopSignal() as stop:
        signal.raise_signal(signal.SIGHUP)
        assert stop.agreed(1).signal == 0


def test_handlers_are_put_back(caught):
    with runtime.StopSignal():
        pass
    signal.raise_signal(signal.SIGTERM)
    assert caught == [signal.SIGTERM]


def test_hosts_agree_at_every_tenth_step(monkeypatch, caught):
    asked = []

    def gather(number):
        asked.append(number.tolist())
        return np.array([number, [signal.SIGTERM, 0, 3]])  # the other host was told to stop

    monkeypatch.setattr(jax, 'process_count', lambda: 2)
    monkeypatch.setattr(multihost_utils, 'process_allgather', gather)
    with runtime.StopSignal() as stop:
        assert [stop.agreed(step) for step in range(1, 10)] == [(0, False, 0)] * 9 and not asked
        signal.raise_signal(signal.SIGUSR1)
        assert stop.agreed(10, 2) == (signal.SIGTERM, True, 3) and asked == [[0, 1, 2]]


def test_settings(monkeypatch, tmp_path):
    settings = {}
    monkeypatch.setattr(jax, 'config', SimpleNamespace(
        jax_compilation_cache_dir=None, jax_platforms='cuda', update=settings.__setitem__))
    monkeypatch.setenv('XLA_FLAGS', '--given=1')
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path))
    runtime.configure_jax(deterministic=False, compilation_cache=False)
    assert settings == {} and os.environ['XLA_FLAGS'] == '--given=1'
    runtime.configure_jax(deterministic=True, compilation_cache=True)
    assert settings == {'jax_compilation_cache_dir': str(tmp_path / 'imagenet_jax' / 'xla'),
                        'jax_persistent_cache_min_compile_time_secs': runtime._LEAST_COMPILE_S}
    assert os.environ['XLA_FLAGS'] == '--given=1 --xla_gpu_deterministic_ops=true'


FLAG = '--xla_cpu_experimental_ynn_fusion_type=-reduce'


@pytest.fixture
def flags(monkeypatch):
    """XLA_FLAGS after configure_jax, by platform, version and flags before."""
    platforms_before = jax.config.jax_platforms

    def configured(platforms, version, before='', deterministic=False):
        monkeypatch.setenv('XLA_FLAGS', before)
        monkeypatch.setattr(runtime, 'JAXLIB', version)
        jax.config.update('jax_platforms', platforms)
        runtime.guard_half_precision.cache_clear()
        monkeypatch.setattr(runtime.xla_bridge, 'backends_are_initialized', lambda: False)
        runtime.configure_jax(deterministic, compilation_cache=False)
        return runtime.os.environ['XLA_FLAGS']
    yield configured
    jax.config.update('jax_platforms', platforms_before)


def test_flag_is_for_cpus_of_new_versions_alone(flags, monkeypatch):
    monkeypatch.setattr(runtime, '_knows', lambda flag: True)
    assert flags('cpu', (0, 11)) == flags(None, (0, 12)) == FLAG
    assert flags('cpu', (0, 10)) == flags('cuda', (0, 12)) == ''
    assert flags('cuda', (0, 12), deterministic=True) == '--xla_gpu_deterministic_ops=true'
    mine = '--xla_cpu_experimental_ynn_fusion_type=dot'
    assert flags('cpu', (0, 12), mine) == mine  # what the user says stands
    monkeypatch.setattr(runtime, '_knows', lambda flag: False)
    assert flags('cpu', (1, 0)) == ''  # XLA would end the process


def test_what_the_library_knows():
    assert runtime._knows('xla_cpu_enable_fast_math') and not runtime._knows('xla_cpu_no_such_flag_of_xla')


def git_revision(folder):
    try:
        return subprocess.run(['git', 'describe', '--always', '--dirty', '--abbrev=40', '--exclude=*'], text=True,
                              cwd=folder, capture_output=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ''


def test_the_repository_around_an_installed_package_is_not_its_own(tmp_path, monkeypatch):
    if shutil.which('git'):
        who = ['-c', 'user.name=a', '-c', 'user.email=a']
        for command in (['init', '-q'], [*who, 'commit', '-q', '--allow-empty', '-ma']):
            subprocess.run(['git', *command], cwd=tmp_path, check=True)
        assert git_revision(tmp_path)
    monkeypatch.setattr(runtime, '__file__', str(tmp_path / 'runtime.py'))
    assert runtime.describe()['git_revision'] == ''


def test_what_a_run_says_of_itself(monkeypatch):
    known = runtime.describe()
    assert {'python', 'imagenet_jax', 'jax', 'flax', 'optax', 'numpy'} <= known['versions'].keys()
    assert (known['devices'], known['hosts']) == (8, 1)

    assert known['git_revision'] == git_revision(ROOT)

    def no_git(*_, **__):
        raise subprocess.CalledProcessError(128, 'git')
    monkeypatch.setattr(subprocess, 'run', no_git)
    assert runtime.describe()['git_revision'] == ''
