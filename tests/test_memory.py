"""Want of memory is one line: before a program runs where its plan tells, and whoever tells of it afterwards."""

import resource
import subprocess
import sys
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from runs import ROOT, TINY, environment

from imagenet_jax import memory, workers
from imagenet_jax.command_line import running
from imagenet_jax.errors import UserError


@pytest.fixture
def free(monkeypatch):
    """Sets what is free, in bytes."""
    return lambda size: monkeypatch.setattr(memory, 'free_memory', lambda: size)


def test_a_program_is_refused_before_it_runs(free):
    ran = []

    def program(x):
        jax.debug.callback(ran.append, x.sum())
        return jnp.sort(x) + 1.0  # a temporary value and a result, each as large as x

    x = jnp.ones(1000)
    free(8 * 1000 - 1)  # all devices are of one machine
    with pytest.raises(UserError, match=r'a sort needs 0\.00 GB, of .* this machine has 0\.00 GB; sort fewer'):
        memory.guarded(jax.jit(program), 'a sort', 'sort fewer')(x)
    jax.effects_barrier()
    assert not ran
    for size in (8 * 100_000, None):  # enough, or not told
        free(size)
        assert float(memory.guarded(jax.jit(program), 'a sort', '')(x)[0]) == 2.0


def test_of_an_accelerator_all_memory_counts(monkeypatch):
    device = SimpleNamespace(platform='gpu', device_kind='NVIDIA A100', memory_stats=lambda: {'bytes_limit': 40e9})
    monkeypatch.setattr(jax, 'local_devices', lambda: [device])

    def program(temporary):
        plan = SimpleNamespace(argument_size_in_bytes=10e9, temp_size_in_bytes=temporary, output_size_in_bytes=6e9,
                               alias_size_in_bytes=5e9)
        return SimpleNamespace(memory_analysis=lambda: plan)
    memory.check(program(29e9), 'the step', 'less')
    with pytest.raises(UserError, match=r'the step needs 41\.00 GB, of which 10\.00 GB are its arguments, and the '
                                        r'device NVIDIA A100 has 40\.00 GB; less'):
        memory.check(program(30e9), 'the step', 'less')
    device.memory_stats = lambda: None
    memory.check(program(30e9), 'the step', 'less')


SAID = {
    'RESOURCE_EXHAUSTED: Out of memory while trying to allocate 5368709120 bytes.\nBufferAssignment OOM Debugging.\n':
        'no room for 5.37 GB more',
    'INTERNAL: Error dispatching computation: Out of memory allocating 9633793476 bytes.': 'no room for 9.63 GB more',
    'RESOURCE_EXHAUSTED: Failed to allocate request for 2.25GiB (2415919104B) on device ordinal 0': '2.25 GiB more',
    'RESOURCE_EXHAUSTED: XLA:TPU compile permanent error. Ran out of memory in memory space hbm. Used 20.10G of 15.48G'
    ' hbm. Exceeded hbm capacity by 4.62G.\n\nTotal hbm usage >= 20.62G:': 'it needs 20.10G of 15.48G',
    'RESOURCE_EXHAUSTED: something new': 'RESOURCE_EXHAUSTED: something new'}


@pytest.mark.parametrize('said', SAID)
def test_what_is_said_at_length_is_one_line(said, free):
    free(int(3e9))
    line = '^out of memory in training: .*this machine has 3.00 GB left; smaller'
    with pytest.raises(UserError, match=line) as error, memory.explained('training', 'smaller'):
        raise jax.errors.JaxRuntimeError(said)
    assert SAID[said] in str(error.value) and '\n' not in str(error.value)


def test_numpy_and_other_errors(free):
    free(None)
    with pytest.raises(UserError, match=r'training: there was no room for [\d.]+ [EP]iB more; smaller'), \
            memory.explained('training', 'smaller'):
        np.empty(1 << 58, np.uint8)
    with pytest.raises(RuntimeError, match='of another kind'), memory.explained('training', 'smaller'):
        raise RuntimeError('of another kind')


def test_every_command_ends_with_one_line():
    def command():
        raise jax.errors.JaxRuntimeError('RESOURCE_EXHAUSTED: Out of memory\nand pages of it')
    assert running.exit_code(command).startswith('error: out of memory: RESOURCE_EXHAUSTED: Out of memory; smaller')


@pytest.mark.parametrize('version', [1, 2])
def test_the_least_limit_counts(version, tmp_path, monkeypatch):
    files = {name: tmp_path / name for name in ('meminfo', 'statm', 'cgroup')}
    files['meminfo'].write_text('MemTotal: 99 kB\nMemAvailable:  5000 kB\nSwapFree:  1000 kB\n')
    files['statm'].write_text('10 5 3')
    files['cgroup'].write_text({2: '0::/a/b\n', 1: '4:memory:/a/b\n2:cpu,cpuacct:/a\n'}[version])
    monkeypatch.setattr(memory, '_MACHINE', files['meminfo'])
    monkeypatch.setattr(memory, '_PROCESS', files['statm'])
    monkeypatch.setattr(workers, '_GROUPS_OF_THIS', files['cgroup'])
    assert memory.free_memory(tmp_path) == 6000 * 1024
    group = tmp_path / ('' if version == 2 else 'memory') / 'a'
    group.mkdir(parents=True)
    limit, usage, cached = {1: ('limit_in_bytes', 'usage_in_bytes', 'total_inactive_file'),
                            2: ('max', 'current', 'inactive_file')}[version]
    (group / f'memory.{limit}').write_text('700000\n')
    (group / f'memory.{usage}').write_text('400000\n')
    (group / 'memory.stat').write_text(f'anon 5\n{cached} 50000\n')
    assert memory.free_memory(tmp_path) == 350000
    monkeypatch.setattr(resource, 'getrlimit', lambda _: (20 * resource.getpagesize(), -1))
    assert memory.free_memory(tmp_path) == 10 * resource.getpagesize()


@pytest.mark.slow
@pytest.mark.parametrize(('given', 'named'), [
    (('--config.batch_size=90000',), ('the train step needs', 'config.accumulation', 'config.model.remat',
                                      'config.batch_size, now 90000')),
    (('--config.eval_batch_size=200000',), ('config.eval_batch_size, now 200000',))])
def test_a_run_that_needs_too_much(given, named):
    command = ['bash', '-c', 'ulimit -v 9000000; exec "$@"', '', sys.executable, 'main.py', *TINY,
               '--config.data.format=synthetic', '--config.dry_run=True',
               '--config.augment.size=32', '--config.eval.size=32', '--config.eval.resize=32', '--config.steps=9',
               '--config.data.num_examples=200000', *given]
    ended = subprocess.run(command, cwd=ROOT, text=True, capture_output=True, env=environment())
    assert ended.returncode == 1 and 'Traceback' not in ended.stderr
    said, = [line for line in ended.stderr.splitlines() if line.startswith('error: ')]
    assert all(name in said for name in ('out of memory', *named)), said
