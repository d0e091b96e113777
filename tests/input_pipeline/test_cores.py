"""How many CPUs a process may use: by its affinity and by the quotas of its control groups."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from imagenet_jax import workers


@pytest.fixture
def group(tmp_path, monkeypatch):
    """Makes this process one of the group /a/b; (of either version, group, quota in microseconds or None) sets one."""
    monkeypatch.setattr(os, 'sched_getaffinity', lambda _: set(range(16)), raising=False)
    listing = tmp_path / 'cgroup'
    monkeypatch.setattr(workers, '_GROUPS_OF_THIS', listing)

    def set_quota(version, name, quota):
        listing.write_text({2: '0::/a/b\n', 1: '3:memory:/a\n2:cpu,cpuacct:/a/b\n1:name=systemd:/\n'}[version])
        folder = tmp_path / ('' if version == 2 else 'cpu,cpuacct') / name
        folder.mkdir(parents=True, exist_ok=True)
        if version == 2:
            (folder / 'cpu.max').write_text(f'{"max" if quota is None else quota} 100000\n')
        else:
            (folder / 'cpu.cfs_quota_us').write_text(f'{-1 if quota is None else quota}\n')
            (folder / 'cpu.cfs_period_us').write_text('100000\n')
        return workers.cores(tmp_path)
    return set_quota


@pytest.mark.parametrize('version', [1, 2])
def test_the_least_quota_of_a_group_and_those_around_it_counts(group, version):
    assert group(version, 'a/b', None) == 16
    assert group(version, 'a', 350000) == 4
    assert group(version, 'a/b', 150000) == 2
    assert group(version, 'a/b', 5000) == 1
    assert group(version, '.', 100) == 1


def test_without_control_groups_it_is_the_affinity(group, tmp_path):
    assert workers.cores(tmp_path / 'none') == 16


@pytest.mark.skipif(not hasattr(os, 'sched_setaffinity'), reason='affinity is of Linux')
def test_a_process_that_is_bound_to_one_cpu_has_one():
    program = ('import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))}); '
               'from imagenet_jax.workers import cores; print(cores())')
    ended = subprocess.run([sys.executable, '-c', program], capture_output=True, text=True, check=True,
                           cwd=Path(__file__).parents[2])
    assert ended.stdout == '1\n'
