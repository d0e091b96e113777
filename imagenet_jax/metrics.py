"""Average precision; where numbers and pictures go: metrics.jsonl, TensorBoard through clu, a bar or plain lines."""

import contextlib
import json
import logging
import math
import os
import sys
import time
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path

import jax
import numpy as np
from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

log = logging.getLogger(__name__)


def average_precision(scores: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Area under each class's interpolated precision-recall curve, as PASCAL VOC measures it from 2010 on.

    Interpolated: the precision at a recall is the best at that recall or a higher one. Equal scores are retrieved
    together, so that their order in the file does not matter.

    Args:
      scores: (N, K) float, the higher the surer; what is not finite is never retrieved.
      labels: (N, K) of 0 and 1; NaN ("difficult") is left out, as if the image were not there.

    Returns:
      (K,) float64, NaN where a class has no 1.
    """
    return np.array([_average_precision(*columns) for columns in zip(scores.T, labels.T, strict=True)])


def _average_precision(scores, labels) -> float:
    positives = np.count_nonzero(labels == 1)
    if not positives:
        return math.nan
    counted = np.isfinite(scores) & ~np.isnan(labels)
    order = np.argsort(-scores[counted])
    scores, hits = scores[counted][order], labels[counted][order] == 1
    last = np.flatnonzero(np.diff(scores, append=-np.inf))  # of each run of equal scores
    found = hits.cumsum()[last]
    precision = np.maximum.accumulate((found / (last + 1))[::-1])[::-1]
    return float(np.sum(precision * np.diff(found, prepend=0)) / positives)


class MetricWriter:
    """Writes a run's rows, in the one process that should.

    Args:
      workdir: the run's folder.
      resume_step: the step that this start resumes from, or None for a new run. Rows past it are dropped, since their
        steps come again.
    """

    def __init__(self, workdir: Path, resume_step: int | None):
        path = Path(workdir) / 'metrics.jsonl'
        rows = [] if resume_step is None else [row for row in read_rows(path) if row['step'] <= resume_step]
        if resume_step is not None:
            mark = {'step': resume_step, 'resume/step': resume_step}
            # A row of that very step takes the mark, so that no step stands in two rows.
            if rows and rows[-1]['step'] == resume_step and 'resume/step' not in rows[-1]:
                rows[-1] |= mark
            else:
                rows.append(mark)
        partial = path.with_suffix('.jsonl.tmp')
        partial.write_text(''.join(map(_line, rows)))
        os.replace(partial, path)
        self._file = path.open('a')
        self._board = _board(workdir)

    def write(self, step: int, row: Mapping[str, float]) -> None:
        """One row of scalars; a value that is not finite becomes null."""
        self._file.write(_line({'step': step, **row}))
        self._file.flush()
        if self._board:
            self._board.write_scalars(step, {name: value for name, value in row.items() if value is not None})

    def write_image(self, step: int, name: str, image: np.ndarray) -> None:
        """A picture, uint8 (H, W, 3), for TensorBoard."""
        if self._board:
            self._board.write_images(step, {name: image[None]})

    def write_config(self, flat: Mapping[str, object]) -> None:
        """The config as a table of text and as hyperparameters, for TensorBoard."""
        if self._board:
            table = '\n'.join(['| option | value |', '| --- | --- |', *(f'| {k} | {v} |' for k, v in flat.items())])
            self._board.write_texts(0, {'config': table, 'message': str(flat['message'])})
            self._board.write_hparams({k: v if isinstance(v, (bool, int, float, str)) else str(v)
                                       for k, v in flat.items()})

    def close(self) -> None:
        """Flushes what TensorBoard has not seen."""
        self._file.close()
        if self._board:
            self._board.close()


def read_rows(path: Path) -> list[dict]:
    """The rows of metrics.jsonl, up to the first torn one."""
    rows = []
    for line in path.read_text().splitlines() if path.exists() else ():
        try:
            rows.append(json.loads(line))
        except ValueError:
            log.warning('%s: dropped from its torn row %d on', path, len(rows) + 1)
            break
    return rows


def _line(row: Mapping) -> str:
    finite = {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in row.items()}
    return json.dumps(finite) + '\n'


def _board(workdir: Path):
    """clu's TensorBoard writer; None, with one warning, where TensorFlow is missing."""
    os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '2')
    os.environ.setdefault('TF_ENABLE_ONEDNN_OPTS', '0')  # and its notice
    try:
        from clu import metric_writers  # imports TensorFlow: seconds that only the writing process pays
    except ImportError as error:
        log.warning('no TensorBoard event files, metrics.jsonl alone: %s', error)
        return None
    import tensorflow as tf
    tf.config.set_visible_devices([], 'GPU')  # a GPU build would take the memory that JAX needs
    return metric_writers.AsyncWriter(metric_writers.SummaryWriter(str(workdir)))


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
        if self._seconds:
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
        self._log = contextlib.nullcontext() if self._bar.disable else logging_redirect_tqdm([log.parent])
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


def image_grid(images: np.ndarray) -> np.ndarray:
    """uint8 (N, H, W, 3) -> one picture, as near to square as N allows, small images enlarged."""
    zoom = max(1, 64 // images.shape[1])
    images = images.repeat(zoom, axis=1).repeat(zoom, axis=2)
    columns = math.ceil(math.sqrt(len(images)))
    rows = -(-len(images) // columns)
    n, height, width, c = images.shape
    blank = np.zeros((rows * columns - n, height, width, c), images.dtype)
    cells = np.concatenate([images, blank]).reshape(rows, columns, height, width, c)
    return cells.transpose(0, 2, 1, 3, 4).reshape(rows * height, columns * width, c)


def confusion_image(matrix: np.ndarray, class_names: tuple[str, ...]) -> np.ndarray:
    """Confusion matrix (K, K), rows the label, as a picture; each row a fraction of its class, names where they fit."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    figure = Figure(figsize=(8, 7), dpi=100, layout='constrained')
    canvas = FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    shown = axes.imshow(matrix / np.maximum(matrix.sum(1, keepdims=True), 1), vmin=0, vmax=1, cmap='viridis',
                        interpolation='nearest')
    figure.colorbar(shown, label='fraction of the class')
    axes.set(xlabel='predicted', ylabel='label')
    if class_names and len(class_names) <= 40:
        axes.set_xticks(range(len(class_names)), class_names, rotation=90)
        axes.set_yticks(range(len(class_names)), class_names)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()
