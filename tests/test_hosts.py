"""Several processes, as several hosts are, train as one."""

import signal
import socket

import numpy as np
import pytest
from runs import TINY, contents, finish, rows, run, saved, start, stop_when

pytestmark = pytest.mark.runs

# One device of its own each, so that two hosts and one host of two devices cut the batch alike.
SMALL = (*TINY, '--config.model.norm=sync', '--config.steps=12', '--config.log_steps=4', '--config.eval_steps=6',
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


def test_two_hosts_train_as_one(tmp_path):
    processes = hosts(tmp_path / 'two')
    for process in processes:
        finish(process)
    run(tmp_path / 'one', base=SMALL, devices=2)
    two, one = rows(tmp_path / 'two'), rows(tmp_path / 'one')
    assert [row['step'] for row in two] == [row['step'] for row in one] == [4, 6, 8, 12]
    for a, b in zip(two, one, strict=True):
        assert a.keys() == b.keys()
        for name in a.keys() - {'train/images_per_s'}:
            # 360 images are counted alike to the last one; sums differ by the order of their terms.
            assert a[name] == pytest.approx(b[name], rel=1e-4), name
    assert saved(tmp_path / 'two') == saved(tmp_path / 'one')
    assert contents(tmp_path / 'two', 12).keys() == contents(tmp_path / 'one', 12).keys()


def test_a_signal_to_one_host_stops_all_that_resume_and_may_become_one(tmp_path):
    often = '--config.log_steps=1', '--config.eval_steps=0', '--config.eval_epochs=0'
    processes = hosts(tmp_path, '--config.steps=4000', *often)
    stop_when(processes[1], lambda: len(rows(tmp_path)) >= 3, signal.SIGTERM)
    for process in processes:
        finish(process, 143)
    stopped = saved(tmp_path)[-1]
    assert stopped == rows(tmp_path)[-1]['step']
    for process in hosts(tmp_path, f'--config.steps={stopped + 3}', *often):
        finish(process)
    assert [row['resume/step'] for row in rows(tmp_path) if 'resume/step' in row] == [stopped]
    run(tmp_path, f'--config.steps={stopped + 5}', *often, base=SMALL)
    last = rows(tmp_path)[-1]
    assert last['step'] == stopped + 5 and np.isfinite(last['train/loss'])
