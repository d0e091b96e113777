"""Text on a terminal: how many columns it takes, and what of it may be shown."""

import contextlib
import logging
import unicodedata

# Of characters that would move the cursor, or colour what follows: of controls, lone halves of pairs, ends of lines.
_UNSEEN = ('Cc', 'Cs', 'Zl', 'Zp')


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


def logs_above_bars() -> contextlib.AbstractContextManager:
    """While entered, our log lines go above progress bars, not into them."""
    from tqdm.contrib.logging import logging_redirect_tqdm  # here: help shows no bars
    return logging_redirect_tqdm([logging.getLogger('imagenet_jax')])
