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

from imagenet_jax.errors import first_line

log = logging.getLogger(__name__)


class MetricWriter:
    """Writes a run's rows, in the one process that should.

    Args:
      workdir: the run's folder.
      resume_step: the step that this start resumes from, or None for a new run. Rows past it are dropped, since their
        steps come again.

    Each row has `seconds`, of wall time in all starts that led to it, from the writer's beginning in each.
    """

    def __init__(self, workdir: Path, resume_step: int | None):
        path = Path(workdir) / 'metrics.jsonl'
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
        self._last, self._offset = (rows or [{}])[-1], len(''.join(map(_line, rows[:-1])).encode())
        partial = path.with_suffix('.jsonl.tmp')
        partial.write_text(''.join(map(_line, rows)))
        os.replace(partial, path)
        earlier = [row['seconds'] for row in rows if 'seconds' in row]
        self._began = time.monotonic() - (earlier[-1] if earlier else 0)
        self._file = path.open('a')
        self._board = _board(workdir)

    def write(self, step: int, row: Mapping[str, float]) -> None:
        """One row of scalars; a value that is not finite becomes null. The evaluation of the step that a run resumes
        from, which a signal broke off, goes into the row that the step has."""
        earlier = self._last if self._last.get('step') == step else {}
        if earlier:
            self._file.truncate(self._offset)
        self._last = {}
        now = round(time.monotonic() - self._began, 1)
        self._file.write(_line({**earlier, 'step': step, 'seconds': now, **row}))
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
