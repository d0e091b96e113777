"""Threads or processes that fill batches with samples, in order, some batches ahead."""

import collections
import dataclasses
import multiprocessing
import os
import signal
import sys
import traceback
import weakref
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from multiprocessing import resource_tracker

import numpy as np

from imagenet_jax.errors import UserError

# Batches under construction ahead of the one in use, per process or per worker.
_AHEAD = 2
# Images that a thread takes at a time: handing one over costs about as much as cropping pixels that need no decoding.
_ROWS = 8


@dataclasses.dataclass(frozen=True)
class Workers:
    """Who decodes: `processes` workers, or where 0 this process's `threads` (0: one a core)."""
    processes: int = 0
    threads: int = 0

    def __post_init__(self):
        if self.processes < 0 or self.threads < 0:
            raise UserError(f'data.processes {self.processes} and data.threads {self.threads} must not be negative')


def load(samples: Sequence[dict], size: int, start: int, stop: int | None, workers: Workers) -> Iterator[dict]:
    """Batches `start` to `stop` (None: endless) of `size` samples each, as arrays that belong to the caller.

    Args:
      samples: by position, dicts of numpy values whose names, shapes and dtypes are always the same; a function of the
        position alone. Pickles, for processes.
      size: samples in a batch.
      start: number of the first batch.
      stop: number after the last.
      workers: who calls `samples`; does not change what comes.
    """
    if workers.processes:
        return _from_processes(samples, size, start, stop, workers.processes)
    return _from_threads(samples, size, start, stop, workers.threads or os.cpu_count())


def _in_order(begin: Callable, finish: Callable, start: int, stop: int | None, ahead: int) -> Iterator[dict]:
    """What `finish` makes of what `begin` answers to start, start + 1, ..., with `ahead` of them begun."""
    step, begun = start, collections.deque()
    while True:
        while len(begun) < ahead and (stop is None or step < stop):
            begun.append(begin(step))
            step += 1
        if not begun:
            return
        yield finish(begun.popleft())


def _fill(batch: dict, samples: Sequence[dict], first: int, rows: range) -> None:
    """Writes samples[first + row] into each row."""
    for row in rows:
        for name, value in samples[first + row].items():
            batch[name][row] = value


def _from_threads(samples, size, start, stop, threads):
    """Reading, decoding and resizing run outside the interpreter lock."""
    example = samples[start * size]
    share = min(_ROWS, -(-size // threads))
    pool = ThreadPoolExecutor(threads, thread_name_prefix='data')

    def begin(step):
        batch = {name: np.empty((size, *value.shape), value.dtype) for name, value in example.items()}
        return batch, [pool.submit(_fill, batch, samples, step * size, range(row, min(row + share, size)))
                       for row in range(0, size, share)]

    def finish(begun):
        batch, parts = begun
        for part in parts:
            part.result()
        return batch

    try:
        yield from _in_order(begin, finish, start, stop, 1 + _AHEAD)
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def _from_processes(samples, size, start, stop, processes):
    """Batch t is worker t % processes's."""
    example, workers = samples[start * size], []

    def begin(step):
        workers[step % processes].ask(step)
        return workers[step % processes]

    def kill():
        for worker in workers:
            worker.kill()

    end = weakref.finalize(begin, kill)  # and at the interpreter's exit, where the caller closes nothing
    try:
        for _ in range(processes):
            workers.append(_Process(samples, size, example))
        yield from _in_order(begin, _Process.answer, start, stop, processes * _AHEAD)
    finally:
        end()


class _Process:
    """One worker process, which fills `_AHEAD` batches of shared memory in turn.

    The memory has no name, so that it is given back however the processes end.
    """

    def __init__(self, samples: Sequence[dict], size: int, example: dict):
        context = multiprocessing.get_context('spawn')
        self._view = partial(_views, size, example)
        slots = [{name: context.RawArray('B', size * value.nbytes) for name, value in example.items()}
                 for _ in range(_AHEAD)]
        self._batches = collections.deque(map(self._view, slots))
        self._pipe, pipe = context.Pipe()
        self._process = context.Process(target=_work, args=(pipe, samples, size, self._view, slots), daemon=True)
        # Ctrl-C and a scheduler's SIGTERM reach the whole process group; the parent decides when workers end. Starting
        # Python's resource tracker, which the first process would do, unblocks them.
        resource_tracker.ensure_running()
        before = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT, signal.SIGTERM))
        try:
            self._process.start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        pipe.close()  # the worker's end is in the worker alone now: when one is gone, the other's next word fails

    def ask(self, step: int) -> None:
        """Has it fill the next of its batches."""
        try:
            self._pipe.send(step)
        except OSError as error:
            raise self._ended() from error

    def answer(self) -> dict:
        """A copy of the batch asked for longest ago."""
        try:
            error = self._pipe.recv()
        except (EOFError, OSError) as gone:
            raise self._ended() from gone
        if error:
            raise error
        self._batches.rotate(-1)
        return {name: value.copy() for name, value in self._batches[-1].items()}

    def _ended(self) -> UserError:
        self._process.join(5)
        return UserError(f'data worker {self._process.pid} has ended, with exit code {self._process.exitcode}; '
                         'what it said is above. -9 and -7 mostly mean that memory ran out: set fewer data.processes')

    def kill(self) -> None:
        """Ends it at once: it holds nothing that could be lost."""
        self._process.kill()
        self._process.join()
        self._pipe.close()


def _views(size: int, example: dict, slot: dict) -> dict:
    """A slot's shared memory as the arrays of a batch."""
    return {name: np.frombuffer(slot[name], value.dtype).reshape(size, *value.shape)
            for name, value in example.items()}


def _work(pipe, samples, size, view, slots) -> None:
    """A worker's life: a step comes, its batch is filled, and None or an error goes back."""
    if 'jax' in sys.modules:  # no worker may take memory of a GPU
        sys.modules['jax'].config.update('jax_platforms', 'cpu')
    batches = collections.deque(map(view, slots))
    try:
        while True:
            pipe.send(_try_to_fill(batches[0], samples, pipe.recv() * size, range(size)))
            batches.rotate(-1)
    except (EOFError, OSError):  # the parent is gone
        return


def _try_to_fill(*arguments) -> Exception | None:
    try:
        return _fill(*arguments)
    except UserError as error:
        return error
    except Exception:
        return RuntimeError(f'in a data worker:\n{traceback.format_exc()}')
