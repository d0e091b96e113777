"""An image's likeliest classes as lines of text, with bars on a terminal."""

import shutil
import sys
import unicodedata
from collections.abc import Sequence

from imagenet_jax.class_names import titled

_BAR, _WIDTH = 24, 80  # columns: of the longest bar, and of a line at most
_EIGHTHS = ' ▏▎▍▌▋▊▉█'
# Of characters that would move the cursor, or colour what follows: of controls, lone halves of pairs, ends of lines.
_UNSEEN = ('Cc', 'Cs', 'Zl', 'Zp')


def lines(name: str, classes: Sequence[dict]) -> list[str]:
    """The image's name and a line a class; bars where standard output is a terminal, the same numbers where not."""
    terminal = sys.stdout.isatty()
    width = min(_WIDTH, shutil.get_terminal_size().columns)
    said = [f'  {one["probability"]:.4f}  {_bar(one["probability"]) if terminal else ""}'
            for one in classes]
    names = [printable(titled(one)) for one in classes]
    if terminal:
        names = [cut(text, max(8, width - _BAR - 12)) for text in names]
    return [printable(name), *(start + text for start, text in zip(said, names, strict=True)),
            *([] if classes else ['  no class to name'])]


def _bar(part: float) -> str:
    eighths = round(part * _BAR * 8)
    text = '█' * (eighths // 8) + _EIGHTHS[eighths % 8] * (eighths % 8 > 0)
    try:
        text.encode(sys.stdout.encoding or 'ascii')
    except UnicodeEncodeError:
        text = '#' * round(part * _BAR)
    return f'{text:{_BAR}}  '


def cut(text: str, width: int) -> str:
    """No more columns than that, its end left out where it would take more."""
    if columns(text) <= width:
        return text
    while columns(text) > width - 1:
        text = text[:-1]
    return f'{text}…'


def columns(text: str) -> int:
    """That a text takes on a terminal: two for a wide character, none for one that is set onto the one before."""
    return sum(0 if unicodedata.combining(char) or unicodedata.category(char) in ('Mn', 'Me', 'Cf') else
               1 + (unicodedata.east_asian_width(char) in 'WF') for char in text)


def printable(text: str) -> str:
    """With what would not be seen, but would be obeyed, written as Python writes it."""
    return ''.join(char.encode('unicode_escape').decode() if unicodedata.category(char) in _UNSEEN else char
                   for char in text)
