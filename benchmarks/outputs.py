"""What a benchmark is to write, checked as its command line is read, and not after minutes of measuring."""

import argparse
from pathlib import Path

from imagenet_jax.command_line.outputs import check
from imagenet_jax.errors import UserError, writing


def file(text: str) -> Path:
    """What argparse may make of an `--output`: a file that can be written.

    Raises:
      argparse.ArgumentTypeError: it cannot.
    """
    try:
        check([('--output', Path(text), ())])
    except UserError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return Path(text)


def folder(text: str) -> Path:
    """What argparse may make of an option: a folder that can be written to, made if it was not there.

    Raises:
      argparse.ArgumentTypeError: it cannot.
    """
    try:
        with writing(Path(text) / 'file'):  # which makes the folder
            pass
    except UserError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return Path(text)
