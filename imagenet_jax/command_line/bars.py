"""An image's likeliest classes as lines of text, with bars on a terminal."""

import shutil
import sys
from collections.abc import Sequence

from imagenet_jax.class_names import titled
from imagenet_jax.terminal import cut, printable

_BAR, _WIDTH = 24, 80  # columns: of the longest bar, and of a line at most
_EIGHTHS = ' ▏▎▍▌▋▊▉█'


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
