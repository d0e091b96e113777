"""Measures a trained model on its run's evaluation split, or on any other data set, with every device.

    python -m imagenet_jax evaluate --checkpoint runs/resnet50
    python -m imagenet_jax evaluate --checkpoint runs/resnet50 --best --ema --size 288 --resize 320
    python -m imagenet_jax evaluate --checkpoint runs/resnet50 --format parquet --path data/imagenet --split validation
    python -m imagenet_jax evaluate --checkpoint weights/resnet50 --format folder --path data/imagenet --split val

--format, --path and --split are the run's where not given; an import needs them. Labels of another data set are matched
with the model's by class name, or where all names are whole numbers by these; a name that the model does not know is
refused, and so are fewer classes than it has without names. An unreadable image counts as wrong.
"""

import json
import logging
import sys
from functools import partial

import jax
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P
from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from imagenet_jax import data as data_section
from imagenet_jax import sources, step
from imagenet_jax.command_line import checkpoints, data_sets, parsing
from imagenet_jax.data import Data
from imagenet_jax.evaluation import Evaluator
from imagenet_jax.metrics.results import finite
from imagenet_jax.options import apply
from imagenet_jax.task import Result
from imagenet_jax.trained import renumber
from imagenet_jax.use.classifier import Classifier


def main() -> None:
    """The whole command."""
    parser = data_sets.parser('evaluate', __doc__, required=False)
    checkpoints.add_arguments(parser, alone=False)
    parser.add_argument('--split', metavar='S', help="the run's evaluation split where not given")
    parser.add_argument('--batch-size', metavar='N', type=parsing.whole(1, 2**20), default=256,
                        help='on all devices together, rounded up to a multiple of them; changes no result')
    parser.add_argument('--by-number', action='store_true',
                        help="labels without names are the model's numbers, even where there are fewer than it has")
    parser.add_argument('--json', action='store_true', help='print the result as JSON')
    _evaluate(parser.parse_args())


def _evaluate(arguments) -> None:
    classifier = checkpoints.load(arguments)
    data = apply(data_section.read, data_sets.section(arguments, classifier), 'data')
    split = data.eval_split if arguments.split is None else arguments.split
    own = arguments.format is None and not arguments.path  # labels that the run was trained on
    source = _open(data, split, classifier, arguments.by_number or own)
    result = _measure(classifier, source, data, arguments.batch_size)
    names = classifier.class_names or range(classifier.num_classes)
    per_class = {measure: dict(zip(map(str, names), map(float, values), strict=True))
                 for measure, values in result.per_class.items()}
    if arguments.json:
        where = {'checkpoint': ' '.join(map(str, arguments.checkpoint)), 'format': data.format, 'path': data.path,
                 'split': split, 'images': len(source)}
        print(json.dumps(finite(where | result.scalars | per_class), indent=2))
        return
    titles = {'top1': 'top-1', 'top5': 'top-5', 'mean_average_precision': 'mean average precision', 'loss': 'loss'}
    print(f'{data.path or data.format}, split {split!r}: {len(source):,} images, '
          f'{result.scalars["bad_samples"]:,} unreadable')
    for name, title in titles.items():
        if name in result.scalars:
            print(f'{title:22} {result.scalars[name]:.4f}')
    for values in per_class.values():
        for name, value in values.items():
            print(f'  {name:20} {value:.4f}')


def _open(data: Data, split: str, classifier: Classifier, by_number: bool) -> sources.Source:
    """The split, its labels in the model's order. Raises UserError."""
    classes = classifier.num_classes
    # Synthetic labels are drawn from as many classes as the model has; of others it is the names that decide.
    source = data.open(split, classes if data.format == 'synthetic' else None, classifier.view.size)
    classifier.task.check(source)
    return renumber(source, classifier.class_names, classes, by_number)


def _measure(classifier: Classifier, source: sources.Source, data: Data, batch_size: int) -> Result:
    mesh, devices = step.make_mesh(), jax.device_count()
    evaluator = Evaluator(
        answer=classifier.answer, task=classifier.task, view=classifier.view, source=source,
        batch_size=max(1, -(-batch_size // devices)) * devices, workers=data.workers, mesh=mesh,
        bad_samples=partial(data.bad_samples, source), remedy=f'lower --batch-size, now {batch_size}')
    variables = jax.device_put(classifier.arguments, NamedSharding(mesh, P()))
    show = partial(tqdm, total=len(evaluator), unit='batch', disable=not sys.stderr.isatty())
    with logging_redirect_tqdm([logging.getLogger('imagenet_jax')]):
        return evaluator(variables, show)
