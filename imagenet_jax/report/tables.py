"""The lines of a report as Markdown for a terminal, and as CSV."""

import csv
from collections.abc import Sequence
from pathlib import Path

from imagenet_jax.errors import writing
from imagenet_jax.report import SCORES, Difference, Measured

# What is said once where every line has the same.
_FACTS = ('model', 'epochs', 'dtype', 'devices x batch', 'learning rate', 'tricks', 'parameters', 'MACs', 'n')
_COLUMNS = ('run', *_FACTS[:-1], *SCORES.values(), 'n', 'difference', 'EMA difference',
            'hours', 'images/s')
_LONGEST = 32  # characters of a cell of tricks, so that a table fits a terminal
_UNITS = ((1e9, 'G'), (1e6, 'M'), (1e3, 'k'))


def titles(lines: Sequence[dict]) -> list[str]:
    """Of the columns that any line has something in, in their order."""
    return [title for title in _COLUMNS if any(cell(title, line.get(title)) != '-' for line in lines)
            and (title != 'difference' or len(lines) > 1)]


def cell(title: str, value) -> str:
    """A value as it is printed; '-' where there is none."""
    if value is None or value == [] or value == '':
        return '-'
    if isinstance(value, Measured):
        return f'{value.mean:.2f}' + ('' if value.deviation is None else f' ± {value.deviation:.2f}')
    if isinstance(value, Difference):
        if value.real is None:
            return '? (one seed)'
        mark = ' p' if value.paired else ''
        return f'{value.value:+.2f} ± {value.error:.2f}{mark}' if value.real else f'none ± {value.error:.2f}{mark}'
    if isinstance(value, list):
        return ', '.join(value)
    if title in ('parameters', 'MACs'):
        return next((f'{value / size:.3g}{unit}' for size, unit in _UNITS if value >= size), str(value))
    if isinstance(value, float):
        return f'{value:,.0f}' if title == 'images/s' else f'{value:.3g}' if value < 100 else f'{value:.0f}'
    return str(value)


def notes(lines: Sequence[dict], base: str, best: bool) -> list[str]:
    """What a reader has to know of the numbers."""
    which = 'the best evaluation of each run, picked on the very images it is measured on' if best else \
        'the last evaluation of each run'
    said = [f'Scores in percent: {which}; mean ± standard deviation over n seeds.']
    compared = [f'Difference to {base}: ± its standard error, p: paired seed by seed; none: below two standard errors.']
    return said + compared * (len(lines) > 1)


def markdown(lines: Sequence[dict]) -> str:
    """The table, aligned; what is the same in every line stands above it."""
    shown = {title: [cell(title, _short(line.get(title))) for line in lines] for title in titles(lines)}
    same = {title: cells[0] for title, cells in shown.items() if title in _FACTS and len(set(cells)) == 1}
    columns = {title: cells for title, cells in shown.items() if title not in same}
    widths = {title: max(len(title), *map(len, cells)) for title, cells in columns.items()}
    said = ', '.join(f'{title} {text}' for title, text in same.items())
    above = [f'The same in all: {said}.', ''] if said else []
    rules = ['-' * width for width in widths.values()]
    table = ['| ' + ' | '.join(text.ljust(width) for text, width in zip(line, widths.values(), strict=True)) + ' |'
             for line in (list(columns), rules, *zip(*columns.values(), strict=True))]
    return '\n'.join(above + table)


def _short(value):
    """Of a list no more than a cell holds, the first at least."""
    if not isinstance(value, list):
        return value
    kept = len(value)
    while kept > 1 and len(', '.join(value[:kept])) > _LONGEST:
        kept -= 1
    return value[:kept] + [f'{len(value) - kept} more'] * (kept < len(value))


def write_csv(path: Path, lines: Sequence[dict]) -> None:
    """Every number as it is, a deviation or an error in a column of its own. Raises UserError."""
    flat = [dict(pair for title in titles(lines) for pair in _numbers(title, line.get(title))) for line in lines]
    with writing(path), path.open('w', newline='') as file:
        writer = csv.DictWriter(file, list(dict.fromkeys(name for line in flat for name in line)))
        writer.writeheader()
        writer.writerows(flat)


def _numbers(title: str, value) -> list[tuple[str, object]]:
    if isinstance(value, Measured):
        return [(title, value.mean), (f'{title} deviation', value.deviation)]
    if title.endswith('difference'):
        value = value if isinstance(value, Difference) else Difference(None, None, None)
        return [(title, value.value), (f'{title} standard error', value.error), (f'{title} paired', value.paired)]
    return [(title, ', '.join(value) if isinstance(value, list) else value)]
