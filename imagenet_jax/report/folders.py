"""One run's folder, read: what was asked for, how far it came, and what it measured."""

import dataclasses
import os
from pathlib import Path

from imagenet_jax import record
from imagenet_jax.errors import UserError, first_line
from imagenet_jax.metrics.run_log import read_rows

# What each of them in a folder says: here is a run, or was to be one.
_MARKS = {'config.json', 'metrics.jsonl', 'train.log'}
_BELOW_A_RUN = {'checkpoints', 'damaged_checkpoints'}


@dataclasses.dataclass(frozen=True)
class RunFolder:
    """A run as it lies on disk.

    Attributes:
      path: the folder.
      entry: config.json in today's form, {} where it is missing, damaged or no run's.
      rows: those of metrics.jsonl.
      fault: why there is no entry, '' where there is one.
    """
    path: Path
    entry: dict
    rows: list[dict]
    fault: str = ''

    @property
    def step(self) -> int:
        """Of the last row."""
        return self.rows[-1]['step'] if self.rows else 0

    @property
    def steps(self) -> int:
        """Of the whole run; 0 where there is no entry."""
        entry = self.entry
        return record.planned_steps(entry.get('steps', 0), entry['epochs'], entry['run']['train_examples'],
                                    entry['batch_size']) if entry else 0

    @property
    def epoch(self) -> float:
        """At its last row."""
        return self.epoch_at(self.rows[-1])

    def epoch_at(self, row: dict) -> float:
        """How often a row's run has seen the training split."""
        return row['step'] * self.entry['batch_size'] / self.entry['run']['train_examples']

    @property
    def seconds(self) -> float | None:
        """Of wall time up to the last row; None where rows have none, as those of earlier versions."""
        return next((row['seconds'] for row in reversed(self.rows) if 'seconds' in row), None)

    @property
    def whole_seconds(self) -> float | None:
        """That the whole run takes: what it took, or will at the speed between its rows; None while there is none."""
        timed = [row for row in self.rows if 'seconds' in row]
        if self.finished or not timed or timed[0]['step'] == timed[-1]['step']:
            return self.seconds if self.finished else None
        # Not from the start on: the first row has the time of compiling in it.
        first, last = timed[0], timed[-1]
        speed = (last['seconds'] - first['seconds']) / (last['step'] - first['step'])
        return last['seconds'] + speed * (self.steps - last['step'])

    @property
    def finished(self) -> bool:
        """Whether it came to its end. Runs of earlier versions do not say so: there the last step does."""
        run = self.entry.get('run', {})
        return bool(run.get('finished') or (self.entry and 'parameters' not in run and self.step >= self.steps))

    @property
    def evaluations(self) -> list[dict]:
        """The rows that have one."""
        return [row for row in self.rows if any(name.startswith('eval/') for name in row)]

    @property
    def problem(self) -> str:
        """Why it has no result, '' where it has one."""
        if self.finished:
            return '' if self.evaluations else 'finished, but never evaluated'
        said = last_words(self.path / 'train.log')
        why = self.fault or f'not finished: step {self.step} of {self.steps}'
        return f'{why}; train.log ends: {said}' if said else why


def read(path: Path) -> RunFolder:
    """Reads a folder; whatever is wrong with it is its `fault` or `problem`."""
    try:
        entry = record.read(path)
    except (UserError, OSError) as error:
        return RunFolder(path, {}, [], first_line(error))
    if entry is None:
        return RunFolder(path, {}, [], 'no config.json')
    if not {'model', 'epochs', 'run'} <= entry.keys() or not isinstance(entry['run'], dict):
        return RunFolder(path, {}, [], "config.json is no run's: it may be an import's")
    try:
        rows = read_rows(path / 'metrics.jsonl')
    except OSError as error:
        return RunFolder(path, {}, [], f'metrics.jsonl cannot be read: {first_line(error)}')
    return RunFolder(path, entry, rows)


def find(root: Path) -> list[Path]:
    """The folders of runs in a tree, sorted; those of checkpoints are not looked into."""
    found = []
    for folder, below, files in os.walk(root, followlinks=True):
        below[:] = sorted(set(below) - _BELOW_A_RUN)
        if _MARKS & set(files):
            found.append(Path(folder))
    return found


def last_words(log: Path) -> str:
    """The error of the last start that a log tells of, which begins with its command, or else the last line; or ''."""
    try:
        text = log.read_text(errors='replace')
    except OSError:
        return ''
    _, command, rest = text.rpartition('\n$ ')
    lines = [line.strip() for line in rest.splitlines()[bool(command):] if line.strip()]
    errors = [line for line in lines if line.startswith('error: ')]
    return (errors or lines or [''])[-1][:300]
