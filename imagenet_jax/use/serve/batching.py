"""Images of requests that wait together, answered in one batch by the one thread that computes."""

import dataclasses
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from typing import Any

import numpy as np

# (batch, uint8 (N, ...)) -> one row for each image, N being one of the sizes that were compiled.
Model = Callable[[np.ndarray], np.ndarray]


@dataclasses.dataclass(frozen=True, eq=False)
class _Waiting:
    """An image for the model of that name, or with `name` None a function that is called alone."""
    name: str | None
    what: Any
    gone: Callable[[], bool]
    since: float
    answer: Future

    def begin(self) -> bool:
        """Whether it is to be computed; from then on it cannot be cancelled."""
        if self.gone():
            self.answer.cancel()
        return self.answer.set_running_or_notify_cancel()


class Batcher:
    """Hands each model what waits for it, oldest first, in batches of a few sizes.

    The first of a batch waits at most `max_wait` seconds for others, and for none where none is on its way; while the
    device is busy they gather anyhow.
    """

    def __init__(self, models: Mapping[str, Model], sizes: Mapping[str, tuple[int, ...]], most: int, max_wait: float,
                 count: Callable[[int], None] = lambda images: None, coming: Callable[[], float] = lambda: math.inf):
        """
        Args:
          models: what answers a batch.
          sizes: those that each model's batches may have, rising; a batch is filled up with zeros to the next.
          most: images a batch.
          max_wait: seconds.
          count: called with the images of each batch.
          coming: tells how many images there are, those that wait here among them.
        """
        self._models, self._sizes, self._most, self._max_wait, self._count = models, sizes, most, max_wait, count
        self._coming = coming
        self._queue, self._changed, self._closed = deque(), threading.Condition(), False
        self._thread = threading.Thread(target=self._work, name='device', daemon=True)
        self._thread.start()

    @property
    def alive(self) -> bool:
        """Whether it answers."""
        return self._thread.is_alive()

    def submit(self, name: str, pixels: np.ndarray, gone: Callable[[], bool] = lambda: False) -> Future:
        """The model's row for one image, cancelled where `gone` says so before it is its turn."""
        return self._enter(name, pixels, gone)

    def call(self, function: Callable[[], Any], gone: Callable[[], bool] = lambda: False) -> Future:
        """What the function gives, called by the thread that computes; cancelled likewise."""
        return self._enter(None, function, gone)

    def close(self, seconds: float = 0.2) -> None:
        """Ends after the batch that is being computed, for which it waits so long; what waits is cancelled."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join(seconds)

    def _enter(self, name, what, gone) -> Future:
        waiting = _Waiting(name, what, gone, time.monotonic(), Future())
        with self._changed:
            if self._closed:
                waiting.answer.cancel()
            else:
                self._queue.append(waiting)
                self._changed.notify()
        return waiting.answer

    def _work(self) -> None:
        while batch := self._next():
            if wanted := [each for each in batch if each.begin()]:
                self._answer(wanted)
        with self._changed:
            for each in self._queue:
                each.answer.cancel()
            self._queue.clear()

    def _next(self) -> list[_Waiting]:
        """A call, or images for one model; [] where it is closed."""
        with self._changed:
            self._changed.wait_for(lambda: self._queue or self._closed)
            while not self._closed:
                first = self._queue[0]
                chosen = [first] if first.name is None else [
                    each for each in self._queue if each.name == first.name][:self._most]
                left = first.since + self._max_wait - time.monotonic()
                alone = len(self._queue) >= self._coming()
                if first.name is None or len(chosen) == self._most or alone or left <= 0:
                    taken = set(chosen)
                    self._queue = deque(each for each in self._queue if each not in taken)
                    return chosen
                self._changed.wait(left)
            return []

    def _answer(self, batch: list[_Waiting]) -> None:
        try:
            if batch[0].name is None:
                found = [batch[0].what()]
            else:
                self._count(len(batch))
                size = next(size for size in self._sizes[batch[0].name] if size >= len(batch))
                images = np.zeros((size, *batch[0].what.shape), np.uint8)
                for row, each in zip(images, batch, strict=False):
                    row[:] = each.what
                found = self._models[batch[0].name](images)
        except Exception as error:  # memory, above all: those who wait are told, and the next batch may do
            for each in batch:
                each.answer.set_exception(error)
            return
        for each, row in zip(batch, found, strict=False):
            each.answer.set_result(row)


def batch_sizes(most: int, devices: int) -> tuple[int, ...]:
    """Those to compile for up to so many images: powers of two, each dividing among the devices."""
    sizes = [devices]
    while sizes[-1] < most:
        sizes.append(min(2 * sizes[-1], -(-most // devices) * devices))
    return tuple(sizes)
