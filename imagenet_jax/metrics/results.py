"""What a run has come to: its last evaluation and its best, over all its starts; summary.json."""

import json
import math
from collections.abc import Iterable, Mapping
from pathlib import Path

from imagenet_jax.errors import replacing


class Results:
    """The last evaluation of a run and the best ones: by the score of its weights, and by that of the averaged.

    Of equals the later is the best, as of checkpoints.

    Args:
      score: the number of an evaluation that decides, such as top1.
      about: of the run: its model, parameters, steps and epochs.
      rows: of metrics.jsonl, up to where this start goes on from.

    Attributes:
      last, best, best_ema: an evaluation's numbers, by names such as top1 and ema_top1, and its step; {} where there is
        none.
      step: that the run has come to.
    """

    def __init__(self, score: str, about: Mapping, rows: Iterable[Mapping] = ()):
        self.score, self._about = score, about
        self.last, self.best, self.best_ema = {}, {}, {}
        self.step = 0
        for row in rows:
            self.add(row)

    def add(self, row: Mapping) -> None:
        """Takes a row: its step, and an evaluation's numbers as eval/top1."""
        self.step = row['step']
        numbers = {name.removeprefix('eval/'): value for name, value in row.items() if name.startswith('eval/')}
        if not numbers:
            return
        self.last = {'step': row['step']} | numbers
        self.best = self._better(self.best, self.score)
        self.best_ema = self._better(self.best_ema, f'ema_{self.score}')

    def _better(self, best: dict, name: str) -> dict:
        value = self.last.get(name)
        return self.last if value is not None and value >= best.get(name, -math.inf) else best

    def write(self, workdir: Path, seconds: float, finished: bool = False) -> None:
        """Writes summary.json whole or not at all; numbers that are not finite are null.

        Args:
          workdir: the run's folder.
          seconds: of wall time, of all starts.
          finished: whether the run has come to its end.

        Raises:
          UserError: it cannot be written.
        """
        summary = {**self._about, 'step': self.step, 'epoch': self._epoch(self.step), 'seconds': round(seconds, 1),
                   'finished': finished, 'score': self.score}
        for name in ('last', 'best', 'best_ema'):
            numbers = getattr(self, name)
            epoch = {'epoch': self._epoch(numbers['step'])} if numbers else {}
            summary[name] = numbers | epoch
        with replacing(Path(workdir) / 'summary.json') as file:
            file.write_text(json.dumps(finite(summary), indent=2) + '\n')

    def _epoch(self, step: int) -> float:
        return round(step * self._about['epochs'] / self._about['steps'], 3)

    def lines(self) -> list[str]:
        """For a person to read: of the weights, and of the averaged ones where there are any."""
        told = [f'{name} {_shown(self.last[name])}, best {_shown(best.get(name))} at step {best.get("step")}'
                for name, best in ((self.score, self.best), (f'ema_{self.score}', self.best_ema)) if name in self.last]
        return told or ['no evaluation']


def finite(value):
    """For JSON, which knows no NaN: null where a number is not finite, in dicts too."""
    if isinstance(value, dict):
        return {name: finite(one) for name, one in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _shown(value: float | None) -> str:
    return 'not finite' if value is None or not math.isfinite(value) else f'{value:.4f}'
