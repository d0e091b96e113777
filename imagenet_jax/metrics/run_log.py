"""A run's rows: metrics.jsonl, and TensorBoard through clu."""

import json
import logging
import math
import os
import shutil
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image

from imagenet_jax.errors import first_line, writing

log = logging.getLogger(__name__)

# What TensorBoard shows in a group of its own: what a row of training has beside what is learnt.
_OF_THE_RUN = {f'train/{name}': f'run/{name}'
               for name in ('epoch', 'learning_rate', 'loss_scale', 'bad_steps', 'bad_samples')} | {
                   'eval/bad_samples': 'run/eval_bad_samples'}


class MetricWriter:
    """Writes a run's rows, in the one process that should.

    Args:
      workdir: the run's folder.
      resume_step: the step that this start resumes from, or None for a new run. Rows past it are dropped, since their
        steps come again.
      score: the number of an evaluation whose best, so far, TensorBoard shows of the run.

    Each row has `seconds`, of wall time in all starts that led to it, from the writer's beginning in each.
    """

    def __init__(self, workdir: Path, resume_step: int | None, score: str = 'top1'):
        self._workdir, self._score = Path(workdir), score
        path = self._workdir / 'metrics.jsonl'
        found = [] if resume_step is None else read_rows(path)
        if resume_step is not None and path.exists() and len(found) < len(path.read_bytes().splitlines()):
            kept = path.with_suffix('.damaged.jsonl')
            shutil.copyfile(path, kept)
            log.warning('%s as it was found is kept as %s', path, kept.name)
        rows = [row for row in found if row['step'] <= resume_step]
        if resume_step is not None:
            mark = {'step': resume_step, 'resume/step': resume_step}
            # A row of that very step takes the mark, so that no step stands in two rows.
            if rows and rows[-1]['step'] == resume_step:
                rows[-1] |= mark
            else:
                rows.append(mark)
        partial = path.with_suffix('.jsonl.tmp')
        partial.write_text(''.join(map(_line, rows)))
        os.replace(partial, path)
        earlier = [row['seconds'] for row in rows if 'seconds' in row]
        self._best = max((row[f'eval/{score}'] for row in rows if row.get(f'eval/{score}') is not None),
                         default=-math.inf)
        self._began = time.monotonic() - (earlier[-1] if earlier else 0)
        self._file = path.open('a')
        self._board = _board(workdir)

    def write(self, step: int, row: Mapping[str, float]) -> None:
        """One row of scalars; a value that is not finite becomes null."""
        self._file.write(_line({'step': step, 'seconds': round(time.monotonic() - self._began, 1), **row}))
        self._file.flush()
        found = row.get(f'eval/{self._score}')
        if found is not None and found > self._best:  # not where it is NaN
            self._best = found
        if self._board:
            shown = {_OF_THE_RUN.get(name, name): value for name, value in row.items() if value is not None}
            best = {} if found is None or math.isinf(self._best) else {self._best_tag: self._best}
            self._board.write_scalars(step, shown | best)

    @property
    def _best_tag(self) -> str:
        return f'best/{self._score}'

    def write_image(self, step: int, name: str, image: np.ndarray, file: str = '') -> None:
        """A picture, uint8 (H, W, 3), for TensorBoard; where a file is named, also there in the run's folder."""
        if self._board:
            self._board.write_images(step, {name: image[None]})
        if file:
            path = self._workdir / file
            partial = path.with_stem(f'.{path.stem}')
            with writing(path):
                Image.fromarray(image).save(partial)
                os.replace(partial, path)

    def write_config(self, flat: Mapping[str, object]) -> None:
        """For TensorBoard: the config as a table of text, and as hyperparameters of a trial that has the folder's name
        and the best score for its result."""
        if self._board:
            table = '\n'.join(['| option | value |', '| --- | --- |', *(f'| {k} | {v} |' for k, v in flat.items())])
            self._board.write_texts(0, {'config': table, 'message': str(flat['message'])})
            self._write_trial({k: v if isinstance(v, (bool, int, float, str)) else str(v) for k, v in flat.items()
                               if k != 'run.class_names'})  # a column of a table

    def _write_trial(self, options: Mapping[str, bool | int | float | str]) -> None:
        """Not clu's write_hparams: that names a trial by a hash, and any number of a run as its result."""
        from tensorboard.plugins.hparams import api  # with the board, and as late
        metric = api.Metric(self._best_tag, display_name=f'best {self._score}')
        for summary in (api.hparams_config_pb([api.HParam(name) for name in options], [metric]),
                        api.hparams_pb(options, trial_id=str(self._workdir))):
            value, = summary.value
            self._board.write_summaries(0, {value.tag: np.float32(0)}, {value.tag: value.metadata})

    def close(self) -> None:
        """Flushes what TensorBoard has not seen."""
        self._file.close()
        if self._board:
            self._board.close()


def read_rows(path: Path) -> list[dict]:
    """The rows of metrics.jsonl; lines that are torn, or are none, are left out with a warning."""
    lines = path.read_bytes().splitlines() if path.exists() else []
    rows = [_row(line) for line in lines]
    if torn := [number for number, row in enumerate(rows, 1) if row is None]:
        log.warning('%s: %d of %d rows are damaged and left out, the first in line %d', path, len(torn), len(lines),
                    torn[0])
    return [row for row in rows if row is not None]


def _row(line: bytes) -> dict | None:
    """None where the line holds none."""
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return row if _is_row(row) else None


def _is_row(row) -> bool:
    return (isinstance(row, dict) and isinstance(row.get('step'), int)
            and all(value is None or isinstance(value, (int, float)) for value in row.values()))


def _line(row: Mapping) -> str:
    finite = {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in row.items()}
    return json.dumps(finite) + '\n'


def _board(workdir: Path):
    """clu's TensorBoard writer; None, with one warning, where TensorFlow is missing or does not work."""
    os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '2')
    os.environ.setdefault('TF_ENABLE_ONEDNN_OPTS', '0')  # and its notice
    try:
        from clu import metric_writers  # imports TensorFlow: seconds that only the writing process pays
        import tensorflow as tf  # isort: skip
        tf.config.set_visible_devices([], 'GPU')  # a GPU build would take the memory that JAX needs
    except Exception as error:  # an installation that does not fit raises anything
        log.warning('no TensorBoard event files, metrics.jsonl alone: %s: %s', type(error).__name__, first_line(error))
        return None
    return metric_writers.AsyncWriter(metric_writers.SummaryWriter(str(workdir)))
