"""Files that an evaluation may be written to, and the options that ask for them."""

import argparse
from collections.abc import Sequence

from imagenet_jax.command_line import outputs, parsing
from imagenet_jax.errors import UserError, replacing
from imagenet_jax.evaluation import Evaluator
from imagenet_jax.metrics.evaluation_result import Result
from imagenet_jax.metrics.pictures import reliability_image
from imagenet_jax.task import Task
from imagenet_jax.use import confusion, image_table

OPTIONS = ('confusion', 'pairs', 'reliability', 'by_image')


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds them."""
    parser.add_argument('--confusion', metavar='FILE', type=parsing.path, action='append', default=[],
                        help='write the confusion matrix, as .png or .csv; may be given again')
    parser.add_argument('--pairs', metavar='FILE.png', type=parsing.path,
                        help='show the most confused pairs of classes, and write a picture with images of each')
    parser.add_argument('--reliability', metavar='FILE.png', type=parsing.path,
                        help='write a reliability diagram: accuracy by confidence')
    parser.add_argument('--by-image', metavar='FILE', type=parsing.path,
                        help="write each image's key, label, likeliest classes and probabilities, as .parquet or .csv")
    parser.add_argument('--top', metavar='N', type=parsing.positive, help='classes an image in it; 5 where not given')


def check(arguments: argparse.Namespace) -> None:
    """Raises UserError where one cannot be written, before anything else is done."""
    if arguments.top and not arguments.by_image:
        raise UserError('--top says how many classes an image has in the file of --by-image: give that too')
    outputs.check([*(('--confusion', path, ('.png', '.csv')) for path in arguments.confusion),
                   ('--pairs', arguments.pairs, ('.png',)), ('--reliability', arguments.reliability, ('.png',)),
                   ('--by-image', arguments.by_image, image_table.ENDINGS)])


def check_task(arguments: argparse.Namespace, task: Task) -> None:
    """Raises UserError where a model's task has no such thing."""
    if task.multi_label and (arguments.confusion or arguments.pairs or arguments.reliability):
        raise UserError('--confusion, --pairs and --reliability are for models of one class an image, and this one is '
                        'for images of several; --by-image is for both')


def top(arguments: argparse.Namespace) -> int:
    """How many classes of each image they need."""
    return (arguments.top or 5) if arguments.by_image else 0


def write(arguments: argparse.Namespace, evaluator: Evaluator, result: Result, names: Sequence[str]) -> None:
    """Writes those that are asked for, each whole or not at all; `names`, one a class."""
    for path in arguments.confusion:
        confusion.write(path, result.confusion, names)
    if arguments.reliability:
        with replacing(arguments.reliability) as partial:
            confusion.write_picture(partial, reliability_image(result.calibration))
    if arguments.by_image:
        image_table.write(arguments.by_image, image_table.table(evaluator.source, result, names))
    if arguments.pairs and (picture := confusion.examples(evaluator, result, names)) is not None:
        with replacing(arguments.pairs) as partial:
            confusion.write_picture(partial, picture)
