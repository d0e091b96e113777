"""What the parsers of most commands have alike."""

import argparse
from pathlib import Path

from imagenet_jax.errors import UserError, expanded

SHAPE = {'formatter_class': argparse.RawDescriptionHelpFormatter, 'allow_abbrev': False}


def parser(name: str, usage: str) -> argparse.ArgumentParser:
    """A command's parser, still without arguments; `usage` is shown as it is written."""
    return argparse.ArgumentParser(prog=f'python -m imagenet_jax {name}', description=usage, **SHAPE)


def path(text: str) -> Path:
    """~ is the user's own, also where the shell leaves it alone, as in --output=~/x."""
    try:
        return expanded(text)
    except UserError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def count(text: str) -> int:
    """A number that is not negative, for argparse."""
    if not text.isdigit():
        raise argparse.ArgumentTypeError(f'{text!r} is no count')
    return int(text)
