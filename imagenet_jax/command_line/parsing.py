"""What the parsers of most commands have alike."""

import argparse
import re
from collections.abc import Callable
from pathlib import Path

from imagenet_jax.errors import UserError, expanded

SHAPE = {'formatter_class': argparse.RawDescriptionHelpFormatter, 'allow_abbrev': False}


class Parser(argparse.ArgumentParser):
    """Refuses in one line, as everything else is refused; subparsers do likewise."""

    def error(self, message):
        self.exit(2, f'error: {message}; {self.prog} --help says more\n')


def parser(name: str, usage: str) -> Parser:
    """A command's parser, still without arguments; `usage` is shown as it is written."""
    return Parser(prog=f'python -m imagenet_jax {name}', description=usage, **SHAPE)


def path(text: str) -> Path:
    """~ is the user's own, also where the shell leaves it alone, as in --output=~/x."""
    try:
        return expanded(text)
    except UserError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def whole(least: int, most: int = 2**31 - 1, words: str = 'must') -> Callable[[str], int]:
    """What reads a whole number in that range, for argparse; `words` go before 'be a whole number' in a refusal."""
    def read(text):
        # Longer ones are not for int(), which refuses thousands of digits in its own way.
        if re.fullmatch(r'[0-9]{1,20}', text) and least <= int(text) <= most:
            return int(text)
        raise argparse.ArgumentTypeError(f'{text[:40]!r} {words} be a whole number in {least}..{most}')
    return read


count, positive = whole(0), whole(1)
side = whole(1, 65_535, 'is no number of pixels: it must')  # of an image
side_or_none = whole(0, 65_535)  # 0: the option is not used


def sides(text: str) -> tuple[int, ...]:
    """Some, such as 224,256, for argparse."""
    return tuple(map(side, text.split(',')))


def fraction(text: str) -> float:
    """In 0..1, for argparse."""
    try:
        if 0 <= float(text) <= 1:
            return float(text)
    except ValueError:
        pass
    raise argparse.ArgumentTypeError(f'{text[:40]!r} must be a fraction, in 0..1')
