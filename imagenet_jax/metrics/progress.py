"""What a run shows while it trains: means and speed since the last row; a bar or plain lines."""

import contextlib
import logging
import math
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from datetime import timedelta

import jax
import numpy as np
from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from imagenet_jax.metrics.idle import Idle

# Of a terminal as it opens.
_COLUMNS = 80
# tqdm's own says the speed too, in steps.
_BAR = '{percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt} [{elapsed}<{remaining}{postfix}]'
# Share of the time that devices may wait for images without a word, and steps that it has to be told of.
_WORTH_TELLING, _WINDOW = 0.03, 20
# Of a row of training, by its name behind train/: how it is shown, what matters most first, until the line is full; and
# the value that goes without saying.
_SHOWN = {'loss': ('loss {:#.4g}', None), 'accuracy': ('acc {:.4f}', None), 'bad_steps': ('bad_steps {:.0f}', 0),
          'bad_samples': ('bad_samples {:.0f}', 0), 'images_per_s': ('{:.0f} img/s', None),
          'learning_rate': ('lr {:.3g}', None), 'loss_scale': ('loss_scale {:g}', 1), 'epoch': ('epoch {:.1f}', None),
          'grad_norm': ('grad_norm {:.3g}', None)}


class Meter:
    """Averages of train-step metrics between two rows, the speed and what the devices waited, pauses left out.

    Args:
      batch_size: images a step.

    Attributes:
      bad_in_a_row: the longest run of steps without a finite loss and gradient, as far as metrics have been read.
      held_up: whether the last row was of enough steps, and its devices waited for images for more than is worth
        telling; never, once `watching` is False.
      peak_seconds: that a step would take if its devices computed nothing but the model at their peak; None where that
        is not known.
    """
    # Steps that may be in flight: enough to keep devices busy, few enough that batches do not pile up on them.
    in_flight = 2
    # Steps whose metrics may lie on the devices, where rows are seldom.
    _unread_at_most = 256

    def __init__(self, batch_size: int):
        self._batch_size = batch_size
        self._rows: list[dict] = []
        self._waiting: list[dict] = []
        self._made: list[dict] = []
        self._idle = Idle()
        self._since = None
        self._restart()
        self.bad_in_a_row, self.peak_seconds = 0, None
        self.held_up, self.watching = False, True

    def _restart(self):
        self._rows, self._steps, self._seconds, self._waited, self._at_peak = [], 0, 0.0, 0.0, 0.0

    def next(self, batches: Iterator[tuple[dict, dict]]) -> tuple[dict, dict]:
        """The next (host batch, batch on the devices); what these wait for it counts, where it has images of a host."""
        began = time.perf_counter()
        host_batch, batch = next(batches)
        if self._since is not None and host_batch:
            self._waited += self._idle.seconds(began)
        return host_batch, batch

    def add(self, metrics: dict) -> None:
        """Takes a step's metrics, still being computed, and waits for those of the step `in_flight` before.

        Of these it looks at bad_in_a_row alone, whose copy was asked for when its step was started; all others are
        fetched together.
        """
        self._idle.add(metrics['bad_in_a_row'])
        metrics['bad_in_a_row'].copy_to_host_async()
        self._waiting.append(metrics)
        if self._since is not None:
            self._steps += 1
            self._at_peak += self.peak_seconds or 0.0
        while len(self._waiting) > self.in_flight:
            self._look()

    def _look(self):
        self._made.append(self._waiting.pop(0))
        self.bad_in_a_row = max(self.bad_in_a_row, int(self._made[-1]['bad_in_a_row']))
        if len(self._made) >= self._unread_at_most:
            self._read()

    def _read(self):
        self._rows += jax.tree.map(float, jax.device_get(self._made))
        self._made = []

    def pause(self) -> None:
        """Waits for the steps in flight and stops the clock."""
        while self._waiting:
            self._look()
        if self._since is not None:
            self._seconds += time.perf_counter() - self._since
            self._since = None

    def resume(self) -> None:
        """Starts the clock, where it stands."""
        if self._since is None:
            self._since = time.perf_counter()

    def row(self) -> dict[str, float]:
        """The row since the last one: means over the finite steps, counters as they are now. Pauses."""
        while self._waiting:
            self._look()
        self._read()
        self.pause()
        good = [r for r in self._rows if r['bad_in_a_row'] == 0]
        row = {f'train/{name}': float(np.mean([r[name] for r in good])) if good else math.nan
               for name in ('loss', 'accuracy', 'grad_norm')}
        row |= {f'train/{name}': self._rows[-1][name] for name in ('learning_rate', 'loss_scale', 'bad_steps')}
        if self._steps:
            row['train/images_per_s'] = self._steps * self._batch_size / self._seconds
            row['train/input_wait'] = waited = self._waited / self._seconds
            self.held_up = self.watching and waited > _WORTH_TELLING and self._steps >= _WINDOW
            if self.peak_seconds is not None:
                row['train/model_flops_utilization'] = self._at_peak / self._seconds
        self._restart()
        return row

    def close(self) -> None:
        """Ends its thread."""
        self._idle.close()


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
                         dynamic_ncols=True, bar_format=_BAR)
        self._log = (contextlib.nullcontext() if self._bar.disable
                     else logging_redirect_tqdm([logging.getLogger('imagenet_jax')]))
        self._log.__enter__()

    def advance(self) -> None:
        """One step made."""
        self._bar.update()

    def show(self, step: int, row: Mapping[str, float]) -> None:
        """Shows a row of metrics, in lines of 80 columns: of training what fits into one, of an evaluation all."""
        said, evaluation = _training(row), evaluation_lines(row, f'step {step}  ')
        if not self._bar.disable:
            if said:
                self._bar.set_postfix_str(', '.join(said[:3]))
            for line in [_filled(f'step {step}', said), *evaluation] if evaluation else ():
                self._bar.write(line)
        elif self._active:
            left = (time.monotonic() - self._began) / max(1, step - self._start) * (self._total - step)
            for line in [_filled(f'step {step}/{self._total}', said, f'  {_clock(left)} left'), *evaluation]:
                print(line, flush=True)

    def close(self) -> None:
        """Leaves the bar as it stands."""
        self._log.__exit__(None, None, None)
        self._bar.close()


def evaluation_lines(row: Mapping[str, float], head: str) -> list[str]:
    """What a row has of an evaluation, in lines of 80 columns that each begin with `head`; [] where it has nothing.

    What is of averaged weights begins a line of its own. Images that could not be
    read are told of where there are some.
    """
    lines = []
    for name, value in row.items():
        if not name.startswith('eval/') or value is None or (name == 'eval/bad_samples' and not value):
            continue
        digits = 'd' if isinstance(value, int) else '#.4g' if name.endswith('loss') else '.4f'
        part = f'{name} {value:{digits}}'
        another = not lines or (name.startswith('eval/ema_') and 'eval/ema_' not in lines[-1])
        if not another and len(lines[-1]) + 2 + len(part) <= _COLUMNS:
            lines[-1] += f'  {part}'
        else:
            lines.append(head + part)
    return lines


def _training(row: Mapping[str, float]) -> list[str]:
    """What a row says of training, what matters most first."""
    found = ((text, row.get(f'train/{name}'), usual) for name, (text, usual) in _SHOWN.items())
    return [text.format(value) for text, value, usual in found if value is not None and value != usual]


def _filled(head: str, parts: Iterable[str], end: str = '') -> str:
    """One line: `head`, as many of the parts as there is room for, `end`."""
    for part in parts:
        if len(head) + 2 + len(part) + len(end) <= _COLUMNS:
            head += f'  {part}'
    return head + end


def _clock(seconds: float) -> str:
    """3:25:45, or with days 1 d 3 h: the fewer columns, the more there is to go."""
    time_left = timedelta(seconds=round(seconds))
    return f'{time_left.days} d {time_left.seconds // 3600} h' if time_left.days else str(time_left)
