"""How long devices have nothing to do while the loop waits for images."""

import contextlib
import queue
import threading
import time

import jax


class Idle:
    """Notes when each step ends, in a thread, since the loop may wait for images then."""

    def __init__(self):
        self._begun = queue.SimpleQueue()
        self._last, self._noted = None, (None, 0.0)
        threading.Thread(target=self._note, daemon=True, name='steps').start()

    def _note(self):
        while (made := self._begun.get()) is not None:
            with contextlib.suppress(Exception):  # of the step: the loop meets it too
                made.block_until_ready()
            self._noted = made, time.perf_counter()

    def add(self, made: jax.Array) -> None:
        """Takes what is there when the step that was started last is done."""
        self._last = made
        self._begun.put(made)

    def seconds(self, began: float) -> float:
        """Of the time from `began`, by time.perf_counter, until now: how long all steps that were started were done."""
        now = time.perf_counter()
        if self._last is not None and not self._last.is_ready():
            return 0.0
        made, ended = self._noted
        if made is not self._last:  # it has ended only now
            return 0.0
        return now - max(began, ended)

    def close(self) -> None:
        """Ends the thread."""
        self._begun.put(None)
