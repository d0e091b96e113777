"""Worker processes give what threads give, and nothing is left of them.

Each start of them takes seconds, so a test asks several things of one.
"""

import itertools
import multiprocessing
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from fixtures_images import image_folder, jpeg
from fixtures_input import AUGMENT, ONE, VIEW, assert_same, take, train
from runs import ROOT

from imagenet_jax import sources, worker_process
from imagenet_jax.errors import UserError
from imagenet_jax.images.train_view import TrainView
from imagenet_jax.input_pipeline import Workers, eval_batches, train_batches


def ended(pid) -> bool:
    """Whether a process is gone, or only waits for its parent to notice."""
    try:
        with open(f'/proc/{pid}/stat') as stat:
            return stat.read().rpartition(')')[2].split()[0] == 'Z'
    except (FileNotFoundError, ProcessLookupError):
        return True


def wait_until(condition, seconds=60):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, 'it did not happen'
        time.sleep(0.05)


def test_one_process_gives_what_threads_give(spoiled, monkeypatch):
    monkeypatch.setattr(worker_process, '_LARGE', 1)  # labels and names reach it in shared memory
    assert len(worker_process.Given(spoiled).memory) == 2
    assert_same(train(spoiled, 7, workers=Workers(processes=1)), train(spoiled, 7))


def test_large_arrays_are_not_copied_to_each_process():
    """Two that unpickle the same see one memory, and cannot change it; small arrays, views and empty ones come too."""
    value = {'labels': np.arange(500_000, dtype=np.int32), 'names': np.full(200_000, b'ant/000.JPEG'),
             'grid': np.asfortranarray(np.arange(600_000.).reshape(600, 1000)), 'part': np.arange(900_000)[::2],
             'few': np.arange(3), 'none': np.empty((0, 4)), 'text': 'as it is'}
    given = worker_process.Given(value)
    assert len(given.pickle) < 4e6 and sum(map(len, given.memory)) == 2_000_000 + 2_400_000 + 4_800_000
    first, second = (worker_process._received(given.pickle, given.memory) for _ in range(2))
    for name, array in value.items():
        np.testing.assert_array_equal(first[name], array)
        assert np.asarray(first[name]).dtype == np.asarray(array).dtype
    for name in ('labels', 'names', 'grid'):
        assert np.shares_memory(first[name], second[name]) and not first[name].flags.writeable


def test_two_processes_resume_ignore_signals_and_end_when_closed(spoiled):
    others = set(multiprocessing.active_children())
    batches = train_batches(spoiled, AUGMENT, 4, 0, 2, Workers(processes=2))
    taken = [next(batches), next(batches)]
    workers = set(multiprocessing.active_children()) - others
    assert len(workers) == 2
    for worker in workers:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1):
            os.kill(worker.pid, number)
    taken += itertools.islice(batches, 14)  # more than lay ready when the signals came
    assert all(worker.is_alive() for worker in workers)
    assert_same(taken, train(spoiled, 18)[2:])
    batches.close()
    wait_until(lambda: all(ended(worker.pid) for worker in workers))


def test_two_processes_evaluate_every_image_once(spoiled):
    assert_same(take(eval_batches(spoiled, VIEW, 4, Workers(processes=2))), take(eval_batches(spoiled, VIEW, 4, ONE)))


class Faulty(TrainView):
    """One with a mistake in it."""

    def __call__(self, image, rng):
        if rng.random() < 0.2:  # of seed 2 not the first, which is tried without processes
            raise ZeroDivisionError('of a kind that no sample explains')
        return AUGMENT(image, rng)


def test_a_mistake_in_a_thread_is_raised(good):
    with pytest.raises(ZeroDivisionError):
        take(train_batches(good, Faulty(8), 4, 0, workers=ONE), 20)


def test_a_mistake_in_a_process_is_raised_with_its_place(good):
    with pytest.raises(RuntimeError, match=r'(?s)in a worker process:.*in __call__.*ZeroDivisionError: of a kind'):
        take(train_batches(good, Faulty(8), 4, 2, workers=Workers(processes=1)), 20)


def test_training_gives_up_in_a_process_as_in_a_thread(tmp_path):
    image_folder(tmp_path, {f'train/ant/{i}.JPEG': jpeg(i) if i < 9 else b'junk' for i in range(400)})
    source = sources.create('folder', str(tmp_path), 'train', 1, 8)
    with pytest.raises(UserError, match='16 samples in a row cannot be read, the first ant/'):
        take(train_batches(source, AUGMENT, 4, 3, workers=Workers(processes=1)), 20)


def test_a_killed_worker_is_an_error_and_not_a_hang(good):
    others, memory = set(multiprocessing.active_children()), shared_memory()
    batches = train_batches(good, AUGMENT, 4, 0, workers=Workers(processes=2))
    next(batches)
    workers = set(multiprocessing.active_children()) - others
    killed = workers.pop()
    os.kill(killed.pid, signal.SIGKILL)
    with pytest.raises(UserError, match=rf'worker process {killed.pid} has ended, with exit code -9'):
        take(batches, 10)
    assert all(ended(worker.pid) for worker in workers) and shared_memory() <= memory


def test_a_stopped_worker_is_an_error_and_not_a_hang(monkeypatch):
    monkeypatch.setattr(worker_process, '_STOPPED_S', 0)
    worker = object.__new__(worker_process.Process)  # its own start takes seconds
    worker._stopped_since = None
    worker.pipe, _other_end = multiprocessing.Pipe()
    with subprocess.Popen(['sleep', '600']) as worker._process:
        try:
            worker.look()
            worker._process.send_signal(signal.SIGSTOP)
            with pytest.raises(UserError, match=f'worker process {worker._process.pid} is stopped, as by SIGSTOP'):
                worker.answer()
        finally:
            worker._process.kill()


def shared_memory() -> set[str]:
    """Names of what is shared, but for semaphores, which other libraries keep."""
    return {name for name in os.listdir('/dev/shm') if not name.startswith('sem.')}


LOOP = """
import multiprocessing, sys, time
from imagenet_jax import sources
from imagenet_jax.images.train_view import TrainView
from imagenet_jax.input_pipeline import Workers, train_batches

if __name__ == '__main__':
    source = sources.create('digits', '', 'train', 10, 8)
    batches = train_batches(source, TrainView(8), 4, 0, workers=Workers(processes=2))
    next(batches), next(batches)
    print(*(worker.pid for worker in multiprocessing.active_children()), flush=True)
    if sys.argv[1] == 'mistake':
        1 / 0
    time.sleep(600)
"""


@pytest.mark.parametrize('end', ['mistake', signal.SIGINT, signal.SIGKILL])
def test_nothing_is_left_of_workers(end, tmp_path):
    script, memory = tmp_path / 'loop.py', shared_memory()
    script.write_text(LOOP)
    here = {'PYTHONPATH': str(ROOT)}  # this checkout, whatever is installed
    with subprocess.Popen([sys.executable, str(script), str(end)], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                          text=True, start_new_session=True, env=os.environ | here) as parent:
        workers = [int(pid) for pid in parent.stdout.readline().split()]
        assert len(workers) == 2
        if end == signal.SIGINT:
            os.killpg(parent.pid, signal.SIGINT)  # as a terminal does: to the workers too
        elif end == signal.SIGKILL:
            parent.kill()
        errors = parent.stderr.read()
    assert {'mistake': 'ZeroDivisionError', signal.SIGINT: 'KeyboardInterrupt', signal.SIGKILL: ''}[end] in errors
    assert errors.count('Traceback') == (end != signal.SIGKILL)
    wait_until(lambda: all(map(ended, workers)))
    assert shared_memory() <= memory


def test_a_worker_that_ends_before_it_begins_is_an_error_and_not_a_hang(tmp_path):
    """As each does in a script without the `if` that multiprocessing asks for."""
    script = tmp_path / 'loop.py'
    script.write_text(LOOP.replace("__name__ == '__main__'", 'True').replace("'train', 10, 8", "'train', 10, 224")
                      .replace('TrainView(8)', 'TrainView(224)'))  # so that much is handed to a worker
    here = {'PYTHONPATH': str(ROOT)}
    ended = subprocess.run([sys.executable, str(script), ''], capture_output=True, text=True, env=os.environ | here,
                           timeout=120)
    assert ended.returncode == 1
    assert 'safe importing of main module' in ended.stderr.lower()
    assert 'has ended, with exit code 1; what it said is above' in ended.stderr


@pytest.mark.slow
@pytest.mark.parametrize('workers', [Workers(threads=2), Workers(processes=2)], ids=['threads', 'processes'])
def test_memory_stays_flat_over_twenty_epochs(workers, tmp_path):
    image_folder(tmp_path, {f'train/ant/{i:03d}.JPEG': jpeg(i, 300, 400) for i in range(120)})
    source = sources.create('folder', str(tmp_path), 'train', 1, 224)
    batches, levels = train_batches(source, TrainView(224), 24, 0, workers=workers), []
    for epoch in range(24):
        for _ in range(5):
            next(batches)
        if epoch >= 3:  # by then every buffer has been in use
            levels.append(resident_bytes())
    batches.close()
    assert max(levels[-5:]) - min(levels[:5]) < 20e6  # an epoch's images are 18 MB, 20 epochs' 360


def resident_bytes() -> int:
    """Memory of this process and its workers."""
    pages = 0
    for pid in (os.getpid(), *(worker.pid for worker in multiprocessing.active_children())):
        with open(f'/proc/{pid}/statm') as statm:
            pages += int(statm.read().split()[1])
    return pages * os.sysconf('SC_PAGE_SIZE')
