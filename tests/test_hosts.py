"""Several processes, as several hosts are, train as one."""

import signal
import socket

import numpy as np
import pytest
from runs import TINY, contents, finish, numbers, rows, run, saved, start, stop_when

pytestmark = pytest.mark.runs

# One device of its own each, so that two hosts and one host of two devices cut the batch alike.
SMALL = (*TINY, '--config.model.norm=sync', '--config.log_steps=1', '--config.eval_steps=6',
         '--config.schedule.name=constant', '--config.schedule.warmup_epochs=0',
         '--config.optimizer.learning_rate=0.001', '--config.eval_batch_size=128')


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(('localhost', 0))
        return probe.getsockname()[1]


def hosts(workdir, *arguments, count=2):
    """Starts `count` processes of one run."""
    address = f'--config.distributed.address=localhost:{free_port()}'
    return [start(workdir, address, f'--config.distributed.count={count}', f'--config.distributed.rank={rank}',
                  *arguments, base=SMALL) for rank in range(count)]


def test_two_hosts_stop_together_resume_train_as_one_and_may_become_one(tmp_path):
    two, one = tmp_path / 'two', tmp_path / 'one'
    processes = hosts(two, '--config.steps=4000')
    stop_when(processes[1], lambda: len(rows(two)) >= 3, signal.SIGTERM)
    for process in processes:
        finish(process, 143)
    stopped = saved(two)[-1]
    assert stopped == rows(two)[-1]['step']
    for process in hosts(two, f'--config.steps={stopped + 2}'):
        finish(process)
    assert [row['resume/step'] for row in rows(two) if 'resume/step' in row] == [stopped]
    run(one, f'--config.steps={stopped + 2}', base=SMALL, devices=2)
    assert [row['step'] for row in numbers(two)] == list(range(1, stopped + 3))
    for a, b in zip(numbers(two), numbers(one), strict=True):
        assert a.keys() == b.keys()
        for name in a:
            # 360 images are counted alike to the last one; sums differ by the order of their terms.
            assert a[name] == pytest.approx(b[name], rel=1e-4), name
    assert 'eval/top1' in numbers(two)[5] and 'eval/top1' in numbers(two)[-1]
    assert saved(two)[-1] == saved(one)[-1] == stopped + 2
    assert contents(two, stopped + 2).keys() == contents(one, stopped + 2).keys()
    run(two, f'--config.steps={stopped + 4}', base=SMALL)
    last = rows(two)[-1]
    assert last['step'] == stopped + 4 and np.isfinite(last['train/loss'])
