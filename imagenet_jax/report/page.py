"""A report as one HTML page that needs nothing else: the table, which sorts, and the curves of every run."""

import html
from collections.abc import Sequence

from imagenet_jax.report import SCORES, Group, tables

_COLOURS = ('#1f77b4', '#d62728', '#2ca02c', '#ff7f0e', '#9467bd', '#8c564b', '#e377c2', '#17becf', '#bcbd22', '#555')
_WIDTH, _HEIGHT, _MARGIN = 760, 320, 48  # of a picture, in pixels

_STYLE = '''body { font: 14px sans-serif; margin: 2em } table { border-collapse: collapse }
td, th { border: 1px solid #ccc; padding: 4px 8px; text-align: left } th { cursor: pointer; background: #f4f4f4 }
svg { display: block; font-size: 11px } polyline { fill: none; stroke-width: 1.2 } .grid { stroke: #ddd }'''
# A click on a title sorts by it, another the other way round: by number where there is one, else by text.
_SCRIPT = '''document.querySelectorAll('th').forEach((head, column) => head.onclick = () => {
  const body = document.querySelector('tbody'), sign = head.dataset.up ? -1 : 1;
  const key = row => row.cells[column].dataset.number ?? row.cells[column].textContent;
  head.dataset.up = sign > 0 ? '1' : '';
  [...body.rows].sort((a, b) => sign * (key(a) - key(b) || String(key(a)).localeCompare(key(b)))).forEach(
    row => body.append(row));
});'''


def page(groups: Sequence[Group], lines: Sequence[dict], said: Sequence[str], left_out: Sequence[str]) -> str:
    """The whole page; `said` stands above the table, the runs that are in none below it."""
    titles = tables.titles(lines)
    rows = ''.join('<tr>' + ''.join(_cell(title, line.get(title)) for title in titles) + '</tr>\n' for line in lines)
    head = ''.join(f'<th>{html.escape(title)}</th>' for title in titles)
    legend = ''.join(f'<span style="color: {_colour(i)}">&#9632;</span> {html.escape(group.name)} &nbsp; '
                     for i, group in enumerate(groups))
    measured = [(f'eval/{name}', title, 100) for name, title in SCORES.items()]
    pictures = ''.join(_picture(groups, *each) for each in [*measured, ('train/loss', 'training loss', 1)])
    return (f'<!DOCTYPE html>\n<html lang="en"><meta charset="utf-8"><title>Runs</title><style>{_STYLE}</style>\n'
            f'{_paragraphs(said)}<table><thead><tr>{head}</tr></thead><tbody>\n{rows}</tbody></table>\n'
            f'{_paragraphs(left_out)}<p>{legend}</p>\n{pictures}<script>{_SCRIPT}</script></html>\n')


def _paragraphs(texts) -> str:
    return ''.join(f'<p>{html.escape(text)}</p>\n' for text in texts)


def _cell(title, value) -> str:
    number = getattr(value, 'mean', getattr(value, 'value', value))
    key = f' data-number="{number}"' if isinstance(number, (int, float)) else ''
    return f'<td{key}>{html.escape(tables.cell(title, value))}</td>'


def _colour(number: int) -> str:
    return _COLOURS[number % len(_COLOURS)]


def _picture(groups, name, title, scale) -> str:
    """What rows have by that name, over epochs: a line a run, the colour its group's; '' where none has it."""
    curves = [(i, [(run.epoch_at(row), scale * row[name]) for row in run.rows if row.get(name) is not None])
              for i, group in enumerate(groups) for run in group.runs.values()]
    points = [point for _, curve in curves for point in curve]
    if not points:
        return ''
    right, low, high = max(x for x, _ in points), min(y for _, y in points), max(y for _, y in points)

    def place(x, y):
        return (_MARGIN + x / (right or 1) * (_WIDTH - 2 * _MARGIN),
                _HEIGHT - _MARGIN - (y - low) / (high - low or 1) * (_HEIGHT - 2 * _MARGIN))
    lines, marks = [], []
    for i, curve in curves:
        ends = ' '.join(f'{x:.1f},{y:.1f}' for x, y in (place(*point) for point in curve))
        lines.append(f'<polyline stroke="{_colour(i)}" points="{ends}"/>')
    for part in (0, 0.25, 0.5, 0.75, 1):
        x, y = place(part * right, low + part * (high - low))
        marks += [f'<line class="grid" x1="{_MARGIN}" x2="{_WIDTH - _MARGIN}" y1="{y:.1f}" y2="{y:.1f}"/>',
                  f'<text x="4" y="{y + 4:.1f}">{low + part * (high - low):.4g}</text>',
                  f'<text x="{x - 8:.1f}" y="{_HEIGHT - _MARGIN + 18}">{part * right:.3g}</text>']
    return (f'<h3>{title}, by epochs</h3><svg width="{_WIDTH}" height="{_HEIGHT}">' + ''.join(marks) + ''.join(lines)
            + '</svg>\n')
