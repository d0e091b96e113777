"""Many runs in one table: groups that differ in nothing but the seed, means, deviations, differences to a base.

Nothing here imports JAX.
"""

import dataclasses
import json
import math
import os
import re
import statistics
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from imagenet_jax import record
from imagenet_jax.errors import UserError, unknown
from imagenet_jax.report.folders import RunFolder

# What is measured, by its name in a row behind eval/ -> its title; the first that a run has is its score.
SCORES = {'top1': 'top-1', 'top5': 'top-5', 'mean_average_precision': 'mAP', 'ema_top1': 'EMA top-1',
          'ema_top5': 'EMA top-5', 'ema_mean_average_precision': 'EMA mAP'}
# Options that change no result, so that runs with different ones are the same.
_FREE = ('seed', 'message', 'run', 'distributed', 'data.path', 'data.images', 'data.processes', 'data.threads',
         'eval_batch_size', 'confusion_epochs', 'misclassified', 'parameter_table', 'resume_unchecked',
         'checkpoint_steps', 'log_steps', 'compilation_cache', 'model.remat')
# Options that have a column of their own.
_SHOWN = ('model.name', 'model.dtype', 'epochs', 'steps', 'batch_size', 'optimizer.learning_rate')


class Measured(NamedTuple):
    """A mean over seeds, and the sample's standard deviation (of n - 1), None of a single one."""
    mean: float
    deviation: float | None


class Difference(NamedTuple):
    """Of two means, in percentage points.

    Attributes:
      value: the group's less the base's.
      error: its standard error, None where either has a single seed.
      paired: whether the error is that of the differences seed by seed, as it is where both have the same seeds; else
        that of two independent means.
    """
    value: float
    error: float | None
    paired: bool

    @property
    def real(self) -> bool | None:
        """Whether it is larger than two standard errors; None: there is no telling."""
        return None if self.error is None else abs(self.value) > 2 * self.error


@dataclasses.dataclass(frozen=True)
class Group:
    """Runs that differ in nothing but the seed.

    Attributes:
      name: their common folder, or the only run's.
      runs: seed -> run.
      options: the config's that are set, flat, without what changes no result.
      scores: of SCORES -> seed -> percent.
    """
    name: str
    runs: Mapping[int, RunFolder]
    options: Mapping[str, object]
    scores: Mapping[str, Mapping[int, float]]

    @property
    def score(self) -> str:
        """What groups are compared by."""
        return next(iter(self.scores))

    def mean(self, values: Iterable[float | None]) -> float | None:
        """None where no run has a value."""
        return statistics.fmean(known) if (known := [value for value in values if value is not None]) else None


def gather(runs: Sequence[RunFolder], best: bool) -> tuple[list[Group], list[tuple[Path, str]]]:
    """Groups in the order of their folders, and each run that is in none with the reason.

    Args:
      runs: as read.
      best: take the evaluation of each run that is best by its score, instead of the last.
    """
    left_out, members = [], {}
    for run in runs:
        problem, scores = run.problem, {}
        if not problem:
            scores = _scores(run, best)
            problem = '' if scores else 'its evaluation holds no finite score'
        if not problem:
            options = _options(run)
            key = json.dumps([options, run.entry['run'].get('devices')], sort_keys=True)
            same = members.setdefault(key, (options, {}, {}))
            seed = run.entry['seed']
            problem = f'the same config and seed as {same[1][seed].path}' if seed in same[1] else ''
        if problem:
            left_out.append((run.path, problem))
        else:
            same[1][seed], same[2][seed] = run, scores
    names = _names([list(found.values()) for _, found, _ in members.values()])
    return [Group(name, found, options, {score: {seed: one[score] for seed, one in scores.items()}
                                         for score in SCORES if all(score in one for one in scores.values())})
            for name, (options, found, scores) in zip(names, members.values(), strict=True)], left_out


def _scores(run: RunFolder, best: bool) -> dict[str, float]:
    rows = [{name: 100 * row[f'eval/{name}'] for name in SCORES if row.get(f'eval/{name}') is not None}
            for row in run.evaluations]
    if best and any(rows):
        return max(filter(None, rows), key=lambda row: next(iter(row.values())))
    return rows[-1]


def _options(run: RunFolder) -> dict[str, object]:
    """Flat, those that are set, without what changes no result, and with the dtype that was computed in."""
    flat = record.flatten(run.entry)
    flat['model.dtype'] = flat.get('model.dtype') or flat.get('run.dtype')
    # Unset options left out: a run of a version that did not have them yet is the same.
    return {name: value for name, value in flat.items() if value is not None and not _under(name, _FREE)}


def _under(name: str, prefixes: tuple[str, ...]) -> bool:
    return any(name == prefix or name.startswith(f'{prefix}.') for prefix in prefixes)


def _names(groups: list[list[RunFolder]]) -> list[str]:
    """A name for each: its first run's folder, as far as they differ, without that of the seed where it is clear so."""
    whole = [os.path.abspath(runs[0].path) for runs in groups]
    short = [re.sub(r'[/_-]?seed_?\d+$', '', path) for path in whole]
    paths = [path if short.count(path) == 1 else own for path, own in zip(short, whole, strict=True)]
    root = os.path.commonpath([os.path.dirname(path) for path in paths]) if paths else ''
    return [os.path.relpath(path, root) for path in paths]


def choose_base(groups: Sequence[Group], name: str | None) -> Group:
    """The group called `name` or, without one, base; else the first. The end of a name will do.

    Raises:
      UserError: there is none of that name, or several are called so.
    """
    wanted = name or 'base'
    found = [group for group in groups if group.name == wanted] or \
        [group for group in groups if Path(group.name).name == wanted]
    if name and len(found) != 1:
        several = f'--base {name} may be {" or ".join(group.name for group in found)}: give the whole name'
        raise UserError(several) if found else unknown('group of runs', name, [group.name for group in groups])
    return (found or groups)[0]


def difference(group: Group, base: Group, averaged: bool = False) -> Difference | None:
    """Between two groups' scores; None where they are measured by different ones, or are the same group.

    Args:
      group, base: the groups.
      averaged: take the group's averaged weights, None without any, and the base's where it has them.
    """
    prefix = 'ema_' * averaged
    ours = group.scores.get(prefix + group.score)
    theirs = base.scores.get(prefix + group.score) or base.scores.get(group.score)
    if group is base or not ours or not theirs:
        return None
    value = statistics.fmean(ours.values()) - statistics.fmean(theirs.values())
    if min(len(ours), len(theirs)) < 2:
        return Difference(value, None, False)
    if ours.keys() == theirs.keys():
        deviation = statistics.stdev(ours[seed] - theirs[seed] for seed in ours)
        return Difference(value, deviation / math.sqrt(len(ours)), True)
    error = math.sqrt(sum(statistics.variance(each.values()) / len(each) for each in (ours, theirs)))
    return Difference(value, error, False)


def describe(group: Group, base: Group) -> dict[str, object]:
    """A line of the table: title -> text, number, `Measured`, `Difference`, or None where it is not known."""
    run = next(iter(group.runs.values()))
    facts, devices = run.entry['run'], run.entry['run'].get('devices')
    row = {
        'run': group.name, 'model': group.options['model.name'],
        'epochs': group.mean(each.epoch for each in group.runs.values()),
        'dtype': group.options.get('model.dtype'),
        'devices x batch': f'{devices} x {run.entry["batch_size"] // devices}' if devices else None,
        'learning rate': group.options.get('optimizer.learning_rate'), 'tricks': tricks(group, base),
        'parameters': facts.get('parameters'), 'MACs': facts.get('multiply_adds')}
    for score, values in group.scores.items():
        deviation = statistics.stdev(values.values()) if len(values) > 1 else None
        row[SCORES[score]] = Measured(statistics.fmean(values.values()), deviation)
    seconds = group.mean(each.seconds for each in group.runs.values())
    speeds = (group.mean(line.get('train/images_per_s') for line in each.rows) for each in group.runs.values())
    return row | {'n': len(group.runs), 'difference': 'base' if group is base else difference(group, base),
                  'EMA difference': difference(group, base, averaged=True),
                  'hours': None if seconds is None else seconds / 3600, 'images/s': group.mean(speeds)}


def tricks(group: Group, base: Group) -> list[str]:
    """The options that are not as the base has them, without those that have a column of their own."""
    return [f'{name}={_value(group.options.get(name))}' for name in sorted(group.options.keys() | base.options.keys())
            if group.options.get(name) != base.options.get(name) and name not in _SHOWN]


def _value(value) -> str:
    if isinstance(value, list):
        return f'({", ".join(map(_value, value))})'
    return 'unset' if value is None else str(value)
