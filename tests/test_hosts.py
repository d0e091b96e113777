"""Several processes, as several hosts are, train as one."""

import json
import os
import re
import signal
import socket
import threading
import time

import jax
import numpy as np
import pytest
from fixtures_images import image_folder, jpeg
from runs import TINY, contents, finish, numbers, rows, run, saved, start, stop_when

from imagenet_jax import hosts, sources
from imagenet_jax.errors import SaveError, UserError

# One device of its own each, so that two hosts and one host of two devices cut the batch alike.
SMALL = (*TINY, '--config.model.norm=sync', '--config.log_steps=1', '--config.eval_steps=6',
         '--config.schedule.name=constant', '--config.schedule.warmup_epochs=0',
         '--config.optimizer.learning_rate=0.001', '--config.eval_batch_size=128')


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(('localhost', 0))
        return probe.getsockname()[1]


def processes_of(workdir, *arguments, count=2):
    """Starts `count` processes of one run."""
    address = f'--config.distributed.address=localhost:{free_port()}'
    return [start(workdir, address, f'--config.distributed.count={count}', f'--config.distributed.rank={rank}',
                  *arguments, base=SMALL) for rank in range(count)]


@pytest.mark.runs
def test_two_hosts_stop_together_resume_train_as_one_and_may_become_one(tmp_path):
    two, one = tmp_path / 'two', tmp_path / 'one'
    processes = processes_of(two, '--config.steps=4000')
    stop_when(processes[1], lambda: len(rows(two)) >= 3, signal.SIGTERM)
    for process in processes:
        finish(process, 143)
    stopped = saved(two)[-1]
    assert stopped == rows(two)[-1]['step']
    for process in processes_of(two, f'--config.steps={stopped + 2}'):
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


def test_without_hosts_nothing_is_joined(monkeypatch):
    monkeypatch.setattr(jax.distributed, 'initialize', None)
    hosts.join()


@pytest.mark.parametrize(('given', 'message'), [
    ({'count': 2}, 'need config.distributed.address'), ({'rank': 0}, 'need config.distributed.address'),
    ({'address': 'localhost:1', 'count': 2, 'rank': 2}, r'config.distributed.rank=2 must be in 0\.\.count-1'),
    ({'address': 'localhost:1', 'count': 2, 'rank': 0, 'timeout': 1}, 'timeout=1 must be in 5'),
    ({'address': 'localhost:1'}, r'rank=-1 must be in 0\.\.count-1, and config.distributed.count=0')])
def test_half_given_hosts_are_an_error(given, message):
    with pytest.raises(UserError, match=message):
        hosts.join(**given)


@pytest.mark.parametrize(('given', 'expected'), [
    ({'address': 'far:1', 'count': 2, 'rank': 1}, ('far:1', 2, 1)), ({'detect': True}, ())])
def test_hosts_are_joined_and_keep_their_signals(given, expected, monkeypatch):
    calls, settings = [], {}
    monkeypatch.setattr(jax.distributed, 'initialize', lambda *arguments, **_: calls.append(arguments))
    monkeypatch.setattr(jax.config, 'update', settings.__setitem__)
    for name in ('Peers', '_explain_aborts'):
        monkeypatch.setattr(hosts, name, lambda *_: None)
    monkeypatch.setattr(hosts, '_peers', None)
    hosts.join(**given)
    assert calls == [expected] and settings == {'jax_enable_preemption_service': False}


def test_hosts_that_cannot_be_joined_are_an_error(monkeypatch):
    def initialize(*_, **__):
        raise RuntimeError('no answer')
    monkeypatch.setattr(jax.distributed, 'initialize', initialize)
    monkeypatch.setattr(jax.config, 'update', lambda *_: None)
    monkeypatch.setattr(hosts, '_explain_aborts', lambda: None)
    with pytest.raises(UserError, match='cannot join the other hosts: no answer'):
        hosts.join(detect=True)


class Store:
    """The key-value store of the coordination service, and a clock for it."""

    def __init__(self):
        self.entries, self.changed = {}, threading.Condition()

    def key_value_set(self, key, value, allow_overwrite=False):
        with self.changed:
            assert allow_overwrite or key not in self.entries
            self.entries[key] = value
            self.changed.notify_all()

    def key_value_dir_get(self, key):
        return [(name, value) for name, value in self.entries.items() if name.startswith(f'{key}/')]

    def blocking_key_value_get(self, key, milliseconds):
        with self.changed:
            if not self.changed.wait_for(lambda: key in self.entries, milliseconds / 1000):
                raise RuntimeError('DEADLINE_EXCEEDED')
            return self.entries[key]


@pytest.fixture
def watches(monkeypatch):
    """Makes so many processes' watches of one store, whose threads do nothing."""
    for name in ('_beat', '_look'):
        monkeypatch.setattr(hosts.Peers, name, lambda self: None)
    monkeypatch.setattr(hosts.atexit, 'register', lambda *_: None)

    def make(count, timeout=60):
        store = Store()
        return store, [hosts.Peers(store, rank, count, timeout) for rank in range(count)]
    return make


def test_silence_is_a_loss_and_the_store_s_own_comes_first(watches):
    store, (first, second, _) = watches(3)
    now = time.monotonic()
    store.key_value_set('imagenet_jax/life/beat/2', '1')
    for watch in (first, second):
        assert watch.why_over(now + 50) is None
    line, code = first.why_over(now + 100)
    assert code == hosts.EXIT_LOST == 75 and re.search(r'heard of rank 1 \(process \d+ on .*\) for 60 s', line)
    assert 'heard of rank 0' in second.why_over(now + 100)[0]
    second._answered = now + 90  # rank 0 answers, but does not beat
    second._heard[0] = now + 90
    assert 'heard of rank 2' in second.why_over(now + 100)[0]


def test_a_beat_counts_where_it_is_another(watches):
    store, (first, _) = watches(2)
    at = first._heard[1] = -1000.0
    store.key_value_set('imagenet_jax/life/beat/1', '7')
    first._listen(store.key_value_dir_get('imagenet_jax/life'))
    assert first._heard[1] > at
    first._heard[1] = at
    first._listen(store.key_value_dir_get('imagenet_jax/life'))
    assert first._heard[1] == at


def test_who_leaves_is_not_lost_and_who_fails_is_quoted(watches):
    store, (first, second, third) = watches(3)
    second.leave()
    third.leave('config.x is wrong', 1)
    third.leave()  # what was said first stands
    first._listen(store.key_value_dir_get('imagenet_jax/life'))
    line, code = first.why_over(time.monotonic())
    assert code == 1 and re.fullmatch(r'rank 2 \(process \d+ on .*\) ended: config.x is wrong', line)
    first._ends.pop(2)
    first._heard[2] = time.monotonic() + 1000
    assert first.why_over(time.monotonic() + 1000) is None


def test_who_ends_at_once_lets_the_others_read_why_first(watches, monkeypatch):
    """As where a disk is full: the process goes without what is registered for its end, and the store with rank 0."""
    _, (first, second) = watches(2)
    slept, registered = [], []
    monkeypatch.setattr(hosts.time, 'sleep', slept.append)
    monkeypatch.setattr(hosts.atexit, 'register', lambda *arguments: registered.append(arguments))
    for peers, seconds in ((second, 0), (first, 5)):
        monkeypatch.setattr(hosts, '_peers', peers)
        with pytest.raises(SaveError), hosts.telling():
            raise SaveError('no space')
        assert sum(slept) == seconds and not registered


def test_what_differs_is_said_in_every_process(watches):
    _, all_three = watches(3)
    entries = [{'config.epochs': 3, 'jax': '1'}, {'config.epochs': 3, 'jax': '1'}, {'config.epochs': 4}]
    errors = []

    def compare(watch, entry):
        try:
            watch.compare('same', {'x': 1.5})
            watch.compare('options', entry)
        except UserError as error:
            errors.append(str(error))
    threads = [threading.Thread(target=compare, args=pair) for pair in zip(all_three, entries, strict=True)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == ['the processes of a run must have the same options, data and versions: config.epochs is 3 in '
                      "rank 0 and 4 in rank 2, jax is '1' in rank 0 and None in rank 2"] * 3


def end(processes, timeout=120) -> list[tuple[int, str]]:
    """Exit code and error lines of each."""
    outputs = [process.communicate(timeout=timeout)[0] for process in processes]
    return [(process.returncode, [line for line in output.splitlines() if line.startswith('error: ')])
            for process, output in zip(processes, outputs, strict=True)]


QUICK = ('--config.distributed.timeout=5', '--config.distributed.start_timeout=60')


@pytest.mark.slow
@pytest.mark.parametrize(('rank', 'number'), [(0, signal.SIGKILL), (1, signal.SIGKILL), (0, signal.SIGSTOP),
                                              (1, signal.SIGSTOP)])
def test_the_other_ends_with_one_line_where_one_is_lost(rank, number, tmp_path):
    processes = processes_of(tmp_path, '--config.steps=100000', *QUICK)
    stop_when(processes[rank], lambda: len(rows(tmp_path)) >= 3, number)
    (code, errors), = end([processes[1 - rank]])
    os.killpg(processes[rank].pid, signal.SIGKILL)
    processes[rank].communicate()
    assert code == hosts.EXIT_LOST and len(errors) == 1
    assert f'rank {rank}' in errors[0] and 'newest checkpoint' in errors[0]


@pytest.mark.slow
def test_one_that_does_not_come_and_one_with_other_options(tmp_path):
    only = processes_of(tmp_path / 'late', '--config.distributed.start_timeout=5')
    os.killpg(only[1].pid, signal.SIGKILL)
    (code, errors), _ = end(only)
    assert code == hosts.EXIT_LOST and len(errors) == 1 and 'not all processes came within 5 s' in errors[0]

    for given, said in (((), ('--config.seed=7',)), 'config.seed is 0 in rank 0 and 7 in rank 1'), \
            (((), ('--config.data.format=folder',)), "config.data.format is 'digits' in rank 0 and 'folder' in rank 1"):
        address = f'--config.distributed.address=localhost:{free_port()}'
        processes = [start(tmp_path / 'other', address, '--config.distributed.count=2', *more, *QUICK,
                           f'--config.distributed.rank={rank}', base=SMALL) for rank, more in enumerate(given)]
        for code, errors in end(processes):
            assert code == 1 and len(errors) == 1 and said in errors[0], errors


@pytest.mark.slow
def test_bad_samples_of_all_hosts_end_all_hosts(tmp_path):
    """Four of 64 are bad, which no host sees alone; 3 are allowed."""
    for split in ('train', 'val'):
        image_folder(tmp_path / 'data', {f'{split}/ant/{i:02d}.JPEG': b'' if i in (0, 17, 40, 63) and split == 'train'
                                         else jpeg(i) for i in range(64)})
    processes = processes_of(
        tmp_path / 'run', '--config.data.format=folder', f'--config.data.path={tmp_path / "data"}', *QUICK,
        '--config.data.train_split=train', '--config.data.eval_split=val', '--config.model.num_classes=1',
        '--config.batch_size=16', '--config.data.max_bad_fraction=0.05', '--config.steps=4000')
    ended = end(processes)
    assert [code for code, _ in ended] == [1, 1] and ended[0][1] == ended[1][1]
    assert '4 of 64 samples cannot be read' in ended[0][1][0]


def supervised(workdir, steps, kill=None):
    """Runs two processes, and all again where one fails, as a scheduler does; the first time one is killed."""
    for attempt in range(5):
        processes = processes_of(workdir, f'--config.steps={steps}', *QUICK)
        if kill is not None and not attempt:
            stop_when(processes[kill], lambda: len(rows(workdir)) >= steps // 2)
        codes = [code for code, _ in end(processes)]
        if not any(codes):
            return attempt
        assert all(code in (0, hosts.EXIT_LOST, -signal.SIGKILL) for code in codes)
    raise AssertionError('it never ended well')


@pytest.mark.slow
def test_killed_and_started_again_it_ends_as_if_undisturbed(tmp_path):
    assert supervised(tmp_path / 'calm', 60) == 0
    for rank in (0, 1):
        workdir = tmp_path / str(rank)
        assert supervised(workdir, 60, kill=rank) == 1
        assert contents(workdir, 60) == contents(tmp_path / 'calm', 60)
        assert numbers(workdir) == numbers(tmp_path / 'calm')


def test_other_data_has_another_fingerprint(tmp_path):
    files = {'train/ant/0.JPEG': b'', 'train/bee/1.JPEG': b'', 'train/bee/2.JPEG': b''}
    found = []
    for i, other in enumerate((files, files, files | {'train/ant/3.JPEG': b''},
                               {name.replace('bee/1', 'ant/1'): b'' for name in files},
                               {name.replace('bee/1', 'bee/7'): b'' for name in files},
                               {name.replace('bee', 'cat'): b'' for name in files})):
        image_folder(tmp_path / str(i), other)
        found.append(sources.create('folder', str(tmp_path / str(i)), 'train', 2, 8).fingerprint())
    assert found[0] == found[1] and len({tuple(each.values()) for each in found}) == 5
    assert found[0]['images'] == 3 and json.loads(json.dumps(found[0])) == found[0]
