"""--format, --path, --split and --option, for every command on a data set."""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

from absl import logging as absl_logging

from imagenet_jax import sources
from imagenet_jax.commands import log_to_stderr
from imagenet_jax.errors import UserError
from imagenet_jax.options import key_value


def parser(name: str, usage: str, required: bool = True) -> argparse.ArgumentParser:
    """A command's parser, with all but --split; `required` says whether --format is."""
    made = argparse.ArgumentParser(prog=f'python -m imagenet_jax {name}', description=usage, allow_abbrev=False,
                                   formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument('--format', required=required, choices=[f for f in sources.names() if f != 'synthetic'],
                      help='the layout, as config.data.format')
    made.add_argument('--path', metavar='DIR', default='', help='root of the data set, as config.data.path')
    made.add_argument('--option', metavar='KEY=VALUE', action='append', default=[],
                      help="one of the layout's own options, as config.data.KEY; may be given again")
    made.add_argument('--workers', metavar='N', type=count, default=0, help='that decode at once; 0: one a core')
    return made


def open_split(arguments: argparse.Namespace, split: str) -> sources.Source:
    """Opens one split of what the command line names. Raises UserError."""
    return sources.create(arguments.format, arguments.path, split, **dict(map(key_value, arguments.option)))


def count(text: str) -> int:
    """A number that is not negative, for argparse."""
    if not text.isdigit():
        raise argparse.ArgumentTypeError(f'{text!r} is no count')
    return int(text)


def run(command: Callable[[], int | None]) -> None:
    """Leaves with the command's exit code; after an error, explained in one line, with 1, after Ctrl-C with 130."""
    log_to_stderr()
    absl_logging.set_verbosity(absl_logging.ERROR)  # TFDS narrates
    sys.stdout.reconfigure(errors='backslashreplace')  # names of files need not be text
    try:
        code = command()
    except UserError as error:
        code = f'error: {error}'
    except KeyboardInterrupt:
        code = 130
    sys.stdout.flush()
    sys.exit(code)


def write(path: Path, text: str) -> None:
    """Writes a result. Raises UserError."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    except OSError as error:
        raise UserError(f'cannot write {path}: {error}') from error
