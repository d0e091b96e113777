"""Many trained models on a data set: one table of results, with the columns of timm's results files."""

import dataclasses
import glob
import itertools
import logging
import math
import os
import time
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import jax
from tqdm import tqdm

from imagenet_jax import contents
from imagenet_jax.data import Data
from imagenet_jax.errors import UserError, beside
from imagenet_jax.metrics.evaluation_result import Result
from imagenet_jax.models import summary
from imagenet_jax.report import folders, tables
from imagenet_jax.sources import Source
from imagenet_jax.terminal import logs_above_bars
from imagenet_jax.use.classifier import Classifier
from imagenet_jax.use.rows import ResultsFile, aligned
from imagenet_jax.weight_files import names_weights

log = logging.getLogger(__name__)

# timm's columns in its order, accuracies in percent and parameters in millions; then ours.
COLUMNS = ('model', 'top1', 'top1_err', 'top5', 'top5_err', 'param_count', 'img_size', 'crop_pct', 'interpolation',
           'name', 'views', 'gmacs', 'mean_average_precision', 'loss', 'images_per_s', 'images', 'bad_samples', 'dtype',
           'format', 'path', 'split', 'fingerprint')
TEXTS = ('model', 'interpolation', 'name', 'views', 'dtype', 'format', 'path', 'split', 'fingerprint')


class Prepared(NamedTuple):
    """A model and the split that it is to be measured on, whose labels are in its order."""
    classifier: Classifier
    data: Data
    split: str
    source: Source


class Rate:
    """Images a second of an evaluation, decoding and all, from its second batch on: the first waits for the compiler.
    Of a single batch it is that of the whole.

    Called with the evaluation's pairs (host batch, device batch), it passes them on.

    Args:
      clock: tells seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.perf_counter):
        self._clock, self._images, self._began = clock, 0, clock()

    def __call__(self, batches: Iterable[tuple[dict, dict]]) -> Iterator[tuple[dict, dict]]:
        for at, pair in enumerate(batches):
            if at == 1:
                self._images, self._began = 0, self._clock()
            self._images += int(pair[0]['mask'].sum())
            yield pair

    def per_second(self) -> float:
        """Up to now."""
        return self._images / max(self._clock() - self._began, 1e-9)


def asked_for(path: Path) -> bool:
    """Whether a path means several models: a pattern, or a folder that is no run itself and holds some at any depth."""
    return _is_pattern(path) or bool(not _is_run(path) and _below(path))


def find(paths: Sequence[Path]) -> dict[str, Path]:
    """The folders of runs and imports that paths mean, by name: relative to the folder that all of them are in.

    Args:
      paths: folders of runs or imports, folders that hold some at any depth, or patterns of either, such as runs/res*.

    Raises:
      UserError: a path, or all that match a pattern, is none of these.
    """
    found, roots = {}, []
    for path in paths:
        matches = map(Path, sorted(glob.glob(str(path), recursive=True))) if _is_pattern(path) else [path]
        runs = {each: [each] if _is_run(each) or names_weights(each) else _below(each) for each in matches}
        if not any(runs.values()):
            raise UserError(f'{path} holds no run and no import'
                            + ('' if os.path.isdir(path) else f'; {beside(path)}'))
        roots += [os.path.abspath(root.parent if below == [root] else root) for root, below in runs.items() if below]
        for run in itertools.chain.from_iterable(runs.values()):
            real = os.path.realpath(run)  # a link to a run that is there too is not another one
            found[real] = run if real == os.path.abspath(run) else found.get(real, run)
    root = os.path.commonpath(roots)
    return dict(sorted((os.path.relpath(os.path.abspath(run), root), run) for run in found.values()))


def _is_pattern(path: Path) -> bool:
    return any(mark in str(path) for mark in '*?[') and not os.path.lexists(path)


def _is_run(folder: Path) -> bool:
    return os.path.isdir(folder / 'checkpoints')


def _below(folder: Path) -> list[Path]:
    # A folder of runs may have a log or the like of its own; what it holds comes right after it.
    found = itertools.pairwise([*folders.find(folder), Path()])
    return [each for each, after in found if each != folder and (_is_run(each) or each not in after.parents)]


def measured(models: Mapping[str, Path], prepare: Callable[[Path], Prepared],
             evaluate: Callable[[Prepared, Rate], Result], path: Path | None) -> tuple[list[dict], dict[str, str]]:
    """Measures models one after the other, whatever becomes of each.

    Args:
      models: name -> folder, from `find`.
      prepare: opens one.
      evaluate: measures it, and hands its batches through the rate.
      path: of a CSV file of the rows, or None. Rows that it has of the same weights, view and data are not made again;
        all others that it has stay.

    Returns:
      The rows of these models, best first, with `COLUMNS`; and name -> why it could not be measured.

    Raises:
      UserError: the file cannot be read or written.
    """
    file, skipped, shown = ResultsFile(path, COLUMNS, TEXTS), {}, []
    there = {(row['name'], row['fingerprint']): row for row in file.rows}
    done = []
    with logs_above_bars():
        for name, folder in tqdm(models.items(), unit='model', disable=None):
            try:
                prepared = prepare(folder)
                known = there.get((name, fingerprint(prepared)))
                row = known or _row(name, prepared, evaluate)
            except UserError as error:
                log.error('%s is skipped: %s', name, error)
                skipped[name] = str(error)
                continue
            shown.append(row)
            if known:
                done.append(name)
            else:
                file.add(row)
    if done:
        log.info('%d of %d are in %s already, of the same weights, view and data, and were not measured again: %s',
                 len(done), len(models), path, ', '.join(done))
    if others := len(file.rows) - len(shown):
        log.info('%s keeps %d rows of other models, weights, views or data', path, others)
    file.rewrite(_order)
    return sorted(shown, key=_order), skipped


def fingerprint(prepared: Prepared) -> str:
    """CRC-32 of all that a result depends on but the images' bytes: weights, model, view, and which data."""
    (trained,), data, split, source = prepared.classifier.members, *prepared[1:]
    view = {field.name: getattr(trained, field.name) for field in dataclasses.fields(trained)
            if field.name not in ('model', 'variables', 'entry')}
    told = (contents.checksum(trained.variables), trained.entry['model'], trained.model.dtype.name, view,
            data.format, os.path.abspath(data.path), split, sorted(data.options.items()), data.holdout, len(source))
    return f'{zlib.crc32(repr(told).encode("utf-8", "surrogateescape")):08x}'


def _row(name: str, prepared: Prepared, evaluate: Callable) -> dict:
    (trained,), data, split, source = prepared.classifier.members, *prepared[1:]
    view = trained.view
    _, multiply_adds = summary.total(summary.layers(trained.model, view.size))
    parameters = sum(leaf.size for leaf in jax.tree.leaves(trained.variables['params']))
    rate = Rate()
    scalars = evaluate(prepared, rate).scalars
    row = {'model': trained.entry['model']['name'], 'param_count': round(parameters / 1e6, 6),
           'img_size': view.size, 'crop_pct': None if view.whole else round(view.size / view.shorter, 3),
           'views': ' '.join([view.views, *map(str, view.scales), *['flip'] * view.flip]),
           'interpolation': view.interpolation, 'name': name, 'gmacs': round(multiply_adds / 1e9, 6),
           'images_per_s': round(rate.per_second(), 1), 'images': len(source), 'bad_samples': scalars['bad_samples'],
           'dtype': trained.model.dtype.name, 'format': data.format, 'path': data.path, 'split': split,
           'fingerprint': fingerprint(prepared)}
    for score in ('top1', 'top5'):
        if score in scalars:
            row |= {score: round(100 * scalars[score], 3), f'{score}_err': round(100 - 100 * scalars[score], 3)}
    row |= {score: round(scalars[score], 6) for score in ('mean_average_precision', 'loss') if score in scalars}
    row = {column: row.get(column) for column in COLUMNS}
    return {column: None if isinstance(value, float) and not math.isfinite(value) else value
            for column, value in row.items()}


def _order(row: Mapping) -> tuple:
    """Best first; those that have no such score last."""
    scores = (row['top1'], row['mean_average_precision'])
    return (*(math.inf if score is None else -score for score in scores), row['name'])


def text(rows: Sequence[Mapping]) -> str:
    """The table, for a terminal of 80 columns: accuracies in percent, mean average precision in 0..1."""
    def fixed(value, digits):
        return '' if value is None else f'{value:,.{digits}f}'
    titles = ('name', 'model', 'params', 'MACs', 'size', 'top-1', 'error', 'top-5', 'mAP', 'img/s')
    return aligned(titles, [
        (row['name'], row['model'], tables.cell('parameters', 1e6 * row['param_count']),
         tables.cell('MACs', 1e9 * row['gmacs']), str(row['img_size']), fixed(row['top1'], 2),
         fixed(row['top1_err'], 2), fixed(row['top5'], 2), fixed(row['mean_average_precision'], 4),
         fixed(row['images_per_s'], 0)) for row in rows], texts=2)
