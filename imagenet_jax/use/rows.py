"""Rows of results: a CSV file that grows as they come, and a table for a terminal."""

import csv
import io
import logging
import os
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path

from imagenet_jax.errors import UserError, replacing, writing
from imagenet_jax.terminal import columns, printable

log = logging.getLogger(__name__)

_WIDTH = 80  # columns of a terminal


class ResultsFile:
    """A CSV file of rows, each added when it is there, so that a kill loses none that was done.

    Args:
      path: of the file, which may be there already; None: rows are kept, and nothing is written.
      columns: titles, in their order. A row may lack some of them, and has no others.
      texts: those of them that are no numbers.

    Attributes:
      rows: the file's, then those that were added. A last line that a kill cut short is no row.

    Raises:
      UserError: the file cannot be read or written, or has other columns.
    """

    def __init__(self, path: Path | None, columns: Sequence[str], texts: Collection[str]):
        self._path, self._columns, self._texts, self.rows = path, columns, texts, []
        if path is None:
            return
        if os.path.lexists(path):
            self.rows = self._read()
        self.rewrite()

    def add(self, row: Mapping) -> None:
        """Raises UserError where it cannot be written."""
        self.rows.append(dict(row))
        if self._path is not None:
            with writing(self._path), self._path.open('a', encoding='utf-8', errors='surrogateescape',
                                                      newline='') as file:
                file.write(self._lines([row]))

    def rewrite(self, key: Callable[[Mapping], object] = lambda row: 0) -> None:
        """Writes the file anew, sorted, whole or not at all."""
        self.rows.sort(key=key)
        if self._path is not None:
            with replacing(self._path) as partial:
                partial.write_bytes((','.join(self._columns) + '\n' + self._lines(self.rows)).encode(
                    'utf-8', 'surrogateescape'))

    def _lines(self, rows) -> str:
        text = io.StringIO()
        csv.DictWriter(text, self._columns, lineterminator='\n').writerows(rows)
        return text.getvalue()

    def _read(self) -> list[dict]:
        if not self._path.is_file():
            raise UserError(f'{self._path} is no file: results cannot be written there')
        try:
            text = self._path.read_bytes().decode('utf-8', 'surrogateescape')
            whole, _, last = text.rpartition('\n')
            head, *lines = csv.reader(io.StringIO(whole + '\n', newline='')) if whole else [[]]
        except OSError as error:
            raise UserError(f'{self._path} cannot be read: {error.strerror}') from error
        except csv.Error as error:
            raise UserError(f'{self._path} is no CSV file: {error}; give the name of a new one') from error
        if last:
            log.warning('%s: its last line does not end, and is left out: %s', self._path, printable(last[:60]))
        if text and head != list(self._columns):
            raise UserError(f'{self._path} has other columns than these results ({", ".join(head)[:80]!r}): give the '
                            'name of a new file')
        if wrong := [line for line in lines if len(line) != len(head)]:
            raise UserError(f'{self._path} has a row of {len(wrong[0])} cells under {len(head)} titles: mend it, or '
                            'give the name of a new file')
        return [{name: value if name in self._texts else _number(value)
                 for name, value in zip(head, line, strict=True)} for line in lines]


def _number(text: str) -> float | None:
    try:
        return int(text) if text.lstrip('-').isdecimal() else float(text)
    except ValueError:
        return None


def aligned(titles: Sequence[str], lines: Sequence[Sequence[str]], texts: int) -> str:
    """A table that fits a terminal's columns.

    Args:
      titles: of the columns.
      lines: a cell for each; a column that is empty in all is left out.
      texts: so many first columns stand to the left, the others to the right. A cell of the first that the others
        leave no room for has a line of its own, before theirs.
    """
    kept = [at for at in range(len(titles)) if at < texts or any(line[at] for line in lines)]
    table = [[printable(line[at]) for at in kept] for line in (titles, *lines)]
    widths = [max(map(columns, column)) for column in zip(*table, strict=True)]
    room = max(columns(table[0][0]), _WIDTH - sum(widths[1:]) - len(widths) + 1)
    widths[0] = max(columns(line[0]) for line in table if columns(line[0]) <= room)
    shown = []
    for first, *rest in table:
        if columns(first) > room:
            shown.append(first)
            first = ''
        cells = zip((first, *rest), widths, strict=True)
        pads = [(cell, ' ' * (width - columns(cell))) for cell, width in cells]
        shown.append(' '.join(cell + pad if at < texts else pad + cell for at, (cell, pad) in enumerate(pads)).rstrip())
    return '\n'.join(shown)
