"""An evaluation as lines of text, or for JSON."""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from imagenet_jax.terminal import columns

if TYPE_CHECKING:  # help does not wait for JAX
    from imagenet_jax.metrics.evaluation_result import Result
    from imagenet_jax.use.confusion import Pair

_TITLES = {'top1': 'top-1', 'top5': 'top-5', 'mean_average_precision': 'mean average precision', 'loss': 'loss',
           'macro_f1': 'macro F1', 'mean_class_accuracy': 'mean class accuracy',
           'expected_calibration_error': 'expected calibration error', 'real_top1': 'top-1 by ReaL labels',
           'real_images': 'images with ReaL labels', 'mean_corruption_error': 'mean corruption error'}
# Classes that are all shown; of more the worst ten.
_FEW, _WORST = 20, 10


def as_dict(result: 'Result', names: Sequence[str], pairs: 'Sequence[Pair]') -> dict[str, Any]:
    """All that there is for JSON: the scalars, each measure of a class by its name, the most confused pairs."""
    per_class = {measure: dict(zip(names, map(float, values), strict=True))
                 for measure, values in result.per_class.items()}
    told = [{'label': names[pair.label], 'predicted': names[pair.predicted], 'images': pair.images, 'of': pair.of}
            for pair in pairs]
    return result.scalars | per_class | ({} if result.confusion is None else {'most_confused': told})


def lines(where: Mapping[str, Any], result: 'Result', names: Sequence[str],
          pairs: 'Sequence[Pair] | None') -> Iterator[str]:
    """For a person to read.

    Args:
      where: the path, format and split, and how many images.
      result: of the evaluation.
      names: to be shown, one a class.
      pairs: the most confused; None where nobody asked.
    """
    yield (f'{where["path"] or where["format"]}, split {where["split"]!r}: {where["images"]:,} images, '
           f'{result.scalars["bad_samples"]:,} unreadable')
    yield from _scalars(result.scalars)
    for measure, values in result.per_class.items():
        yield from _per_class(measure, dict(zip(names, values.tolist(), strict=True)))
    if pairs is not None:
        yield from _confused(pairs, names)


def _scalars(found: Mapping[str, float | None]) -> Iterator[str]:
    """A line a measure."""
    for name, title in _TITLES.items():
        if (value := found.get(name)) is not None:
            yield f'{title:27} {value:,}' if isinstance(value, int) else f'{title:27} {value:.4f}'


def _per_class(measure: str, values: Mapping[str, float]) -> Iterator[str]:
    """A line a class; of many classes the worst alone."""
    title = measure.replace('_', ' ')
    if len(values) <= _FEW:
        yield f'{title}:'
        found = list(values.items())
    else:
        yield f'{title}, the lowest {_WORST} of {len(values):,} (--json has all):'
        found = sorted(((name, value) for name, value in values.items() if not math.isnan(value)),
                       key=lambda one: one[1])[:_WORST]
    for name, value in found:
        yield f'  {_padded(name, 25)} {value:.4f}'


def _confused(pairs: 'Sequence[Pair]', names: Sequence[str]) -> Iterator[str]:
    """A table of pairs of classes."""
    if not pairs:
        yield 'no image was taken for another class'
        return
    labels = [names[pair.label] for pair in pairs]
    width = max(map(columns, ('label', *labels)))
    yield f'most confused:\n  {"label":{width}}  {"images":>13}  taken for'
    for pair, label in zip(pairs, labels, strict=True):
        yield f'  {_padded(label, width)}  {pair.images:5,} of {pair.of:5,}  {names[pair.predicted]}'


def _padded(text: str, width: int) -> str:
    return text + ' ' * (width - columns(text))


def robustness(found: Mapping) -> Iterator[str]:
    """One set of images; of imagenet-c a table of top-1 errors."""
    restricted = f'; answers among its {found["restricted_to"]} classes' if found['restricted_to'] else ''
    yield (f'{found["set"]}, {found["path"]}: {found["images"]:,} images, {found["bad_samples"]:,} unreadable'
           f'{restricted}')
    yield from _scalars(found)
    if table := found.get('corruptions'):
        if found['mean_corruption_error'] is not None and found['corruptions_counted'] < 15:
            yield f'  of {found["corruptions_counted"]} corruptions; what is published is of 15'
        severities = sorted({severity for row in table.values() for severity in row['errors']})
        yield f'  {"top-1 error, severity":21}{"".join(f"{name:>8}" for name in severities)}    mean  over AlexNet\'s'
        for name, row in table.items():
            cells = ''.join(_cell(row['errors'].get(severity)) for severity in severities)
            yield f'  {name:21}{cells}{_cell(row["error"])}{_cell(row["corruption_error"]):>16}'


def _cell(value: float | None) -> str:
    return f'{"-":>8}' if value is None else f'{value:8.4f}'
