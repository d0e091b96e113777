"""What a run shows while it trains: means and speed since the last row; a bar or plain lines."""

import contextlib
import logging
import math
import sys
import time
from collections.abc import Mapping
from datetime import timedelta

import jax
import numpy as np
from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm


class Meter:
    """Averages of train-step metrics between two rows, and the speed, pauses left out.

    Args:
      batch_size: images a step.

    Attributes:
      bad_in_a_row: the longest run of steps without a finite loss and gradient, as far as metrics have been read.
    """
    # Steps that may be in flight: enough to keep devices busy, few enough that batches do not pile up on them.
    in_flight = 2

    def __init__(self, batch_size: int):
        self._batch_size = batch_size
        self._rows: list[dict] = []
        self._waiting: list[dict] = []
        self._steps, self._seconds, self._since = 0, 0.0, None
        self.bad_in_a_row = 0

    def add(self, metrics: dict) -> None:
        """Takes a step's metrics, still being computed, and waits for those of the step `in_flight` before."""
        self._waiting.append(metrics)
        self._steps += self._since is not None
        while len(self._waiting) > self.in_flight:
            self._read()

    def _read(self):
        row = jax.tree.map(float, jax.device_get(self._waiting.pop(0)))
        self._rows.append(row)
        self.bad_in_a_row = max(self.bad_in_a_row, int(row['bad_in_a_row']))

    def pause(self) -> None:
        """Waits for the steps in flight and stops the clock."""
        while self._waiting:
            self._read()
        if self._since is not None:
            self._seconds += time.perf_counter() - self._since
            self._since = None

    def resume(self) -> None:
        """Starts the clock, where it stands."""
        if self._since is None:
            self._since = time.perf_counter()

    def row(self) -> dict[str, float]:
        """The row since the last one: means over the finite steps, counters as they are now. Pauses."""
        self.pause()
        good = [r for r in self._rows if r['bad_in_a_row'] == 0]
        row = {f'train/{name}': float(np.mean([r[name] for r in good])) if good else math.nan
               for name in ('loss', 'accuracy', 'grad_norm')}
        row |= {f'train/{name}': self._rows[-1][name] for name in ('learning_rate', 'loss_scale', 'bad_steps')}
        if self._steps:
            row['train/images_per_s'] = self._steps * self._batch_size / self._seconds
        self._rows, self._steps, self._seconds = [], 0, 0.0
        return row


class Progress:
    """A bar on a terminal, else a plain line a row.

    Args:
      start: steps already made.
      total: steps of the run.
      active: whether this process shows anything.
    """

    def __init__(self, start: int, total: int, active: bool):
        self._total, self._start, self._active = total, start, active
        self._began = time.monotonic()
        self._bar = tqdm(total=total, initial=start, unit='step', disable=not active or not sys.stderr.isatty(),
                         dynamic_ncols=True)
        self._log = (contextlib.nullcontext() if self._bar.disable
                     else logging_redirect_tqdm([logging.getLogger('imagenet_jax')]))
        self._log.__enter__()

    def advance(self) -> None:
        """One step made."""
        self._bar.update()

    def show(self, step: int, row: Mapping[str, float]) -> None:
        """Shows a row of metrics."""
        text = '  '.join(f'{name.split("/", 1)[-1] if name.startswith("train/") else name} {value:.5g}'
                         for name, value in row.items() if isinstance(value, float))
        if not self._bar.disable:
            rate = row.get('train/images_per_s')
            self._bar.set_postfix_str(f'loss {row["train/loss"]:.4g}' + (f', {rate:.0f} images/s' if rate else '')
                                      if 'train/loss' in row else self._bar.postfix or '')
            if any(name.startswith('eval/') for name in row):
                self._bar.write(f'step {step}  {text}')
        elif self._active:
            left = (time.monotonic() - self._began) / max(1, step - self._start) * (self._total - step)
            print(f'step {step}/{self._total}  {text}  {timedelta(seconds=round(left))} left', flush=True)

    def close(self) -> None:
        """Leaves the bar as it stands."""
        self._log.__exit__(None, None, None)
        self._bar.close()
