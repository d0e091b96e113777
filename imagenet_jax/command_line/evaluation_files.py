"""Files that an evaluation may be written to, and the options that ask for them."""

import argparse
import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING

from imagenet_jax.command_line import outputs, parsing
from imagenet_jax.errors import UserError, replacing

if TYPE_CHECKING:  # help does not wait for JAX
    from imagenet_jax.evaluation import Evaluator
    from imagenet_jax.metrics.evaluation_result import Result
    from imagenet_jax.task import Task

log = logging.getLogger(__name__)

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
                   ('--by-image', arguments.by_image, ('.parquet', '.csv'))])


def check_task(arguments: argparse.Namespace, task: 'Task') -> None:
    """Raises UserError where a model's task has no such thing."""
    if task.multi_label and (arguments.confusion or arguments.pairs or arguments.reliability):
        raise UserError('--confusion, --pairs and --reliability are for models of one class an image, and this one is '
                        'for images of several; --by-image is for both')


def kept(arguments: argparse.Namespace, at_least: int) -> dict[str, int]:
    """What an `Evaluator` has to keep for them: `top`, which is `at_least` so many, and `mistakes`."""
    from imagenet_jax.use.confusion import EXAMPLES
    top = (arguments.top or 5) if arguments.by_image else 0
    return {'top': max(top, at_least), 'mistakes': EXAMPLES if arguments.pairs else 0}


def write(arguments: argparse.Namespace, evaluator: 'Evaluator', result: 'Result', names: Sequence[str]) -> None:
    """Writes those that are asked for, each whole or not at all; `names`, one a class."""
    from imagenet_jax.metrics.pictures import reliability_image
    from imagenet_jax.use import confusion, image_table
    for path in arguments.confusion:
        confusion.write(path, result.confusion, names)
    if arguments.reliability:
        with replacing(arguments.reliability) as partial:
            confusion.write_picture(partial, reliability_image(result.calibration))
    if arguments.by_image:
        image_table.write(arguments.by_image, image_table.table(evaluator.source, result, names))
    if arguments.pairs:
        picture = confusion.examples(evaluator, result, names)
        if picture is None:
            log.warning('--pairs %s: no image was taken for another class, and there is no picture', arguments.pairs)
            return
        with replacing(arguments.pairs) as partial:
            confusion.write_picture(partial, picture)
