"""A run's rows: metrics.jsonl, and TensorBoard's event files beside."""

import contextlib
import json
import logging
import shutil
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image

from imagenet_jax.errors import UserError, replacing, writing
from imagenet_jax.metrics import board
from imagenet_jax.metrics.results import finite

log = logging.getLogger(__name__)

# What TensorBoard shows in a group of its own: what a row of training has beside what is learnt.
_OF_THE_RUN = {f'train/{name}': f'run/{name}'
               for name in ('epoch', 'learning_rate', 'loss_scale', 'bad_steps', 'bad_samples', 'input_wait',
                            'model_flops_utilization')} | {
                   'eval/bad_samples': 'run/eval_bad_samples'}


class MetricWriter:
    """Writes a run's rows, in the one process that should.

    Args:
      workdir: the run's folder.
      resume_step: the step that this start resumes from, or None for a new run. Rows past it are dropped, since their
        steps come again; of TensorBoard's too.
      score: the number of an evaluation whose best TensorBoard shows of the run.

    Attributes:
      workdir: the run's folder.
      rows: what is kept of earlier starts.

    Each row has `seconds`, of wall time in all starts that led to it, from the writer's beginning in each.

    Raises:
      UserError: here and when anything is written: it cannot be.
    """

    def __init__(self, workdir: Path, resume_step: int | None, score: str = 'top1'):
        self._score = score
        self.workdir, self._path = Path(workdir), Path(workdir) / 'metrics.jsonl'
        self._next = 0 if resume_step is None else resume_step + 1
        self.rows = [] if resume_step is None else _kept_rows(self._path, resume_step)
        self._began = time.monotonic() - max((row['seconds'] for row in self.rows if 'seconds' in row), default=0)
        self._open()
        self._board = board.Board(self.workdir, self._next)

    @property
    def seconds(self) -> float:
        """Of wall time until now, in all starts."""
        return time.monotonic() - self._began

    def begin_board(self) -> None:
        """Opens TensorBoard's files, which takes processor time: once the devices have something to do."""
        self._board.begin()

    def _open(self):
        with replacing(self._path) as file:
            file.write_text(''.join(map(_line, self.rows)))
        with writing(self._path):
            self._file = self._path.open('a')

    def write(self, step: int, row: Mapping[str, float], best: float | None = None) -> None:
        """One row of scalars, in which a value that is not finite becomes null; and for TensorBoard the best score.

        The evaluation of the step that a run resumes from, which a signal broke off, goes into the row of that step.
        """
        entry = {'step': step, 'seconds': round(self.seconds, 1), **row}
        if self.rows and self.rows[-1]['step'] == step:
            self.rows[-1] |= entry
            self._file.close()
            self._open()
        else:
            with writing(self._path):
                self._file.write(_line(entry))
                self._file.flush()
        shown = {_OF_THE_RUN.get(name, name): value for name, value in row.items() if value is not None}
        self._board.write_scalars(step, shown | ({} if best is None else {f'best/{self._score}': best}))

    def write_image(self, step: int, name: str, image: np.ndarray, file: str = '') -> None:
        """A picture, uint8 (H, W, 3), for TensorBoard; where a file is named, also there in the run's folder."""
        self._board.write_images(step, {name: image[None]})
        if file:
            path = self.workdir / file
            with replacing(path) as partial:
                Image.fromarray(image).save(partial, path.suffix[1:])

    def write_config(self, flat: Mapping[str, object]) -> None:
        """For TensorBoard: the config as a table of text, and as hyperparameters of a trial that has the folder's name
        and the best score for its result."""
        flat = {k: v for k, v in flat.items() if not k.startswith('run.class_words')}  # one a class
        table = '\n'.join(['| option | value |', '| --- | --- |', *(f'| {k} | {v} |' for k, v in flat.items())])
        self._board.write_texts(self._next, {'config': table, 'message': str(flat['message'])})
        options = {k: v if isinstance(v, (bool, int, float, str)) else str(v) for k, v in flat.items()
                   if k != 'run.class_names'}  # a column of a table
        self._board.write_trial(self._next, options, self._score, str(self.workdir))

    def close(self) -> None:
        """Flushes what TensorBoard has not seen."""
        with contextlib.suppress(OSError):  # each row was flushed: nothing is left but what could not be written
            self._file.close()
        self._board.close()


def _kept_rows(path: Path, resume_step: int) -> list[dict]:
    """The rows up to a step, one a step, the last with the mark of resuming; what is damaged is kept beside."""
    found, damaged = _rows(path)
    if damaged:
        aside = path.with_suffix('.damaged.jsonl')
        with writing(aside):
            shutil.copyfile(path, aside)
        log.warning('%s as it was found is kept as %s', path, aside.name)
    rows = {}
    for row in [*found, {'step': resume_step, 'resume/step': resume_step}]:
        if row['step'] <= resume_step:
            rows[row['step']] = rows.get(row['step'], {}) | row
    return [rows[step] for step in sorted(rows)]


def read_rows(path: Path) -> list[dict]:
    """The rows of metrics.jsonl; lines that are torn, or are none, are left out with a warning.

    Raises:
      UserError: it cannot be read.
    """
    return _rows(path)[0]


def _rows(path: Path) -> tuple[list[dict], int]:
    """The rows, and how many lines are none."""
    try:
        lines = path.read_bytes().splitlines() if path.exists() else []
    except OSError as error:
        raise UserError(f'cannot read {path}: {error.strerror}; move it away') from error
    rows = [_row(line) for line in lines]
    if torn := [number for number, row in enumerate(rows, 1) if row is None]:
        log.warning('%s: %d of %d rows are damaged and left out, the first in line %d', path, len(torn), len(lines),
                    torn[0])
    return [row for row in rows if row is not None], len(torn)


def _row(line: bytes) -> dict | None:
    """None where the line holds none."""
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return row if _is_row(row) else None


def _is_row(row) -> bool:
    return (isinstance(row, dict) and type(row.get('step')) is int
            and all(value is None or isinstance(value, (int, float)) for value in row.values()))


def _line(row: Mapping) -> str:
    return json.dumps(finite(dict(row))) + '\n'
