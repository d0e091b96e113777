"""Threads or processes that fill batches with samples, in order, some batches ahead."""

import collections
import dataclasses
import logging
import math
import multiprocessing
import os
import weakref
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from functools import partial
from pathlib import Path

import numpy as np

from imagenet_jax.errors import UserError
from imagenet_jax.options import refuse_above
from imagenet_jax.worker_process import SLOW_S, Given, Process

log = logging.getLogger(__name__)

# Batches under construction ahead of the one in use, per process or per worker.
_AHEAD = 2
# Where Linux lists the control groups of a process.
_GROUPS_OF_THIS = Path('/proc/self/cgroup')
# Images that a thread takes at a time: handing one over costs about as much as cropping pixels that need no decoding.
_ROWS = 8


@dataclasses.dataclass(frozen=True)
class Workers:
    """Who decodes: `processes` workers, or where 0 this process's `threads` (0: one for each of `cores`)."""
    processes: int = 0
    threads: int = 0

    def __post_init__(self):
        for name in ('processes', 'threads'):
            if getattr(self, name) < 0:
                raise UserError(f'config.data.{name}={getattr(self, name)} must not be negative')
        refuse_above(self, 'config.data', processes=4096, threads=4096)

    def __str__(self) -> str:
        what, many = ('process', 'es') if self.processes else ('thread', 's')
        return f'{self.count} {what}{many if self.count > 1 else ""}'

    @property
    def count(self) -> int:
        """How many there are."""
        return self.processes or self.threads or cores()


def cores(groups: Path = Path('/sys/fs/cgroup')) -> int:
    """CPUs that this process may keep busy, 1 at least: not the machine's, but those of its affinity, and no more than
    the quotas of its control groups, as a container or a scheduler sets them, rounded up.

    `groups`: where Linux shows control groups, of either version.
    """
    mine = len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count()
    return max(1, min([mine, *map(math.ceil, _quotas(groups))]))


def _quotas(groups: Path) -> Iterator[float]:
    """In CPUs, of this process's control groups and of those that they lie in."""
    for group, version in control_groups('cpu', groups):
        try:
            if version == 1:
                quota, period = ((group / f'cpu.cfs_{name}_us').read_text() for name in ('quota', 'period'))
            else:
                quota, period = (group / 'cpu.max').read_text().split()
            if quota.strip() not in ('max', '-1'):
                yield int(quota) / int(period)
        except (OSError, ValueError):
            pass  # the root has no quota, and a container does not see what lies above it


def control_groups(controller: str, groups: Path) -> Iterator[tuple[Path, int]]:
    """(folder, version 1 or 2) of this process's groups for a controller, such as cpu, and of those they lie in."""
    try:
        lines = _GROUPS_OF_THIS.read_text().splitlines()
    except OSError:
        return
    for _, controllers, path in (line.split(':', 2) for line in lines):
        if controllers and controller not in controllers.split(','):
            continue
        root = groups / controllers if controllers else groups
        for group in (root / path.lstrip('/'), *(root / path.lstrip('/')).parents):
            yield group, 1 if controllers else 2
            if group == root:
                break


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
    return _from_threads(samples, size, start, stop, workers.threads or cores())


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
            if wait([part], SLOW_S).not_done:
                log.warning('the data threads have filled no batch for %d s: the disk is slow, or does not answer',
                            SLOW_S)
            part.result()
        return batch

    try:
        yield from _in_order(begin, finish, start, stop, 1 + _AHEAD)
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def _from_processes(samples, size, start, stop, processes):
    """Batch t is worker t % processes's."""
    example, given, workers = samples[start * size], Given(samples), []

    def begin(step):
        workers[step % processes].ask(step)
        return workers[step % processes]

    def kill():
        for worker in workers:
            worker.kill()

    end = weakref.finalize(begin, kill)  # and at the interpreter's exit, where the caller closes nothing
    try:
        for _ in range(processes):
            workers.append(_BatchProcess(given, size, example))
        yield from _in_order(begin, _BatchProcess.batch, start, stop, processes * _AHEAD)
    finally:
        end()


class _BatchProcess(Process):
    """Fills `_AHEAD` batches of shared memory in turn, asked by number.

    The memory has no name, so that it is given back however the processes end.
    """

    def __init__(self, samples: Given, size: int, example: dict):
        slots = [{name: multiprocessing.get_context('spawn').RawArray('B', size * value.nbytes)
                  for name, value in example.items()} for _ in range(_AHEAD)]
        view = partial(_view, size, {name: (value.shape, value.dtype) for name, value in example.items()})
        self._batches = collections.deque(map(view, slots))
        super().__init__('set fewer data.processes', _filler, samples, size, view, slots)

    def batch(self) -> dict:
        """A copy of the batch asked for longest ago."""
        self.answer()
        self._batches.rotate(-1)
        return {name: value.copy() for name, value in self._batches[-1].items()}


def _view(size: int, layout: dict, slot: dict) -> dict:
    """A slot's shared memory as the arrays of a batch."""
    return {name: np.frombuffer(slot[name], dtype).reshape(size, *shape) for name, (shape, dtype) in layout.items()}


def _filler(samples: Sequence[dict], size: int, view: Callable, slots: Sequence[dict]) -> Callable[[int], None]:
    """In the worker: fills the batch of a number."""
    batches = collections.deque(map(view, slots))

    def fill(step):
        _fill(batches[0], samples, step * size, range(size))
        batches.rotate(-1)
    return fill
