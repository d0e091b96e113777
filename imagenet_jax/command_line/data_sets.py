"""--format, --path and --option, for every command on a data set; --split is each command's own."""

import argparse
from typing import TYPE_CHECKING

from imagenet_jax import sources
from imagenet_jax.command_line import parsing
from imagenet_jax.errors import UserError
from imagenet_jax.options import key_value

if TYPE_CHECKING:  # help does not wait for JAX
    from imagenet_jax.data import Data
    from imagenet_jax.use.classifier import Classifier


def parser(name: str, usage: str, required: bool = True) -> argparse.ArgumentParser:
    """A command's parser with these arguments; `required` says whether --format is."""
    made = parsing.parser(name, usage)
    made.add_argument('--format', required=required, choices=[f for f in sources.names() if f != 'synthetic'],
                      help='the layout, as config.data.format')
    made.add_argument('--path', metavar='DIR', default='', help='root of the data set, as config.data.path')
    made.add_argument('--option', metavar='KEY=VALUE', action='append', default=[],
                      help="one of the layout's own options, as config.data.KEY; may be given again")
    made.add_argument('--workers', metavar='N', type=parsing.whole(0, 4096), default=0,
                      help='that decode at once; 0: one a core')
    return made


def open_split(arguments: argparse.Namespace, split: str) -> sources.Source:
    """Opens one split of what the command line names. Raises UserError."""
    return sources.create(arguments.format, arguments.path, split, **dict(map(key_value, arguments.option)))


def open_for(classifier: 'Classifier', data: 'Data', split: str) -> sources.Source:
    """A split to show to a model: of synthetic images, whose labels are drawn, with as many classes as it has. Raises
    UserError."""
    classes = classifier.num_classes if data.format == 'synthetic' else None
    return data.open(split, classes, classifier.view.one.size)


def section(arguments: argparse.Namespace, classifier: 'Classifier') -> dict:
    """The section `data` of the model's run, changed as the command line says, or all of it from there. Raises
    UserError."""
    given = {name: value for name, value in (('path', arguments.path), ('threads', arguments.workers)) if value}
    if arguments.workers:  # threads, whatever the run had
        given['processes'] = 0
    given |= {'exif': classifier.exif} | dict(map(key_value, arguments.option))
    if arguments.format is None:
        entry = classifier.members[0].entry
        if 'data' not in entry:
            raise UserError(f'{arguments.checkpoint[0]} is an import, which has no data of its own: give --format, '
                            '--path and --split')
        return entry['data'] | given
    if arguments.split is None:
        raise UserError('which split? --format needs --split too')
    return {'format': arguments.format} | given
