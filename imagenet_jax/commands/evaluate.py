"""Measures a trained model on its run's evaluation split, or on any other data set, with every device.

    python -m imagenet_jax evaluate --checkpoint runs/resnet50
    python -m imagenet_jax evaluate --checkpoint runs/resnet50 --best --ema --size 288 --resize 320
    python -m imagenet_jax evaluate --checkpoint runs/resnet50 --format parquet --path data/imagenet --split validation
    python -m imagenet_jax evaluate --checkpoint weights/resnet50 --format folder --path data/imagenet --split val
    python -m imagenet_jax evaluate --checkpoint runs/resnet50 --confusion matrix.png --by-image images.csv
    python -m imagenet_jax evaluate --checkpoint weights/resnet50 --robustness data/imagenet-a
    python -m imagenet_jax evaluate --checkpoint runs --csv results.csv

--format, --path and --split are the run's where not given; an import needs them. Labels of another data set are matched
with the model's by class name, or where all names are whole numbers by these; a name that the model does not know is
refused, and so are fewer classes than it has without names.

Macro F1 is of the classes that are labelled or predicted, mean class accuracy of those that have images. The expected
calibration error has 15 bins of equal width. An unreadable image counts as wrong in all of them, with confidence 0.

--robustness takes a folder in the layout of ImageNet-V2, -A, -R, -Sketch or -C, or a folder of such folders, instead of
a split. Accuracy on -A and -R is among their 200 classes; the mean corruption error of -C is relative to AlexNet's.

A folder that is no run or import itself and holds some at any depth, or a pattern such as 'runs/resnet*', in quotes,
makes one table of all of them, each measured on its own, best first. What cannot be measured is named and skipped, and
the command leaves with 1. --csv FILE has the columns of timm's results files, and ours; it grows by a row as each is
measured, and the same command again goes on from there.
"""

import argparse
import dataclasses
import json
import sys
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from imagenet_jax import class_names, sources
from imagenet_jax.command_line import checkpoints, data_sets, evaluation_files, measures, parsing, running
from imagenet_jax.errors import UserError
from imagenet_jax.options import apply
from imagenet_jax.terminal import logs_above_bars, printable

if TYPE_CHECKING:
    from imagenet_jax.data import Data
    from imagenet_jax.evaluation import Evaluator
    from imagenet_jax.use.classifier import Classifier
    from imagenet_jax.use.table import Prepared


def main() -> int | None:
    """The whole command."""
    parser = data_sets.parser('evaluate', __doc__, required=False)
    checkpoints.add_arguments(parser, alone=False)
    parser.add_argument('--split', metavar='S', help="the run's evaluation split where not given")
    parser.add_argument('--batch-size', metavar='N', type=parsing.whole(1, 2**20), default=256,
                        help='on all devices together, rounded up to a multiple of them; changes no result')
    parser.add_argument('--by-number', action='store_true',
                        help="labels without names are the model's numbers, even where there are fewer than it has")
    parser.add_argument('--json', action='store_true', help='print the result as JSON')
    parser.add_argument('--real-labels', metavar='FILE', type=parsing.path,
                        help="real.json: accuracy by ReaL labels too, on ImageNet's validation images or some of them")
    parser.add_argument('--robustness', metavar='DIR', type=parsing.path,
                        help='measure on ImageNet-V2, -A, -R, -Sketch, -C or a folder of these, instead of a split')
    parser.add_argument('--csv', metavar='FILE', type=parsing.path,
                        help='make a table of what --checkpoint names, each on its own, and keep it there')
    evaluation_files.add_arguments(parser)
    arguments = parser.parse_args()
    evaluation_files.check(arguments)
    with running.importing():  # JAX, for which help does not wait
        from imagenet_jax.use import table
    if arguments.csv or any(map(table.asked_for, arguments.checkpoint)):
        return _tabulate(arguments)
    return (_evaluate if arguments.robustness is None else _evaluate_robustness)(arguments)


def _tabulate(arguments) -> int:
    _refuse(arguments, ('real_labels', 'robustness', *evaluation_files.OPTIONS),
            'is for one model, and --checkpoint names a folder of them, or --csv makes a table')
    from imagenet_jax.use import table
    models = table.find(arguments.checkpoint)

    def measure(prepared, rate):
        evaluator = _evaluator(prepared.classifier, prepared.source, prepared.data, arguments.batch_size)
        show = _shown('', evaluator, leave=None)
        return evaluator(prepared.classifier.placed, lambda batches: rate(show(batches)))
    rows, skipped = table.measured(
        models, lambda folder: _prepare(argparse.Namespace(**vars(arguments) | {'checkpoint': [folder]})), measure,
        arguments.csv)
    if arguments.json:
        print(json.dumps({'results': rows, 'skipped': skipped}, indent=2))
    elif rows:
        print(table.text(rows))
    if skipped:
        print(f'error: {len(skipped)} of {len(models)} could not be measured: {", ".join(skipped)}', file=sys.stderr)
    return int(bool(skipped))


def _refuse(arguments, names: tuple[str, ...], why: str) -> None:
    for name in names:
        if getattr(arguments, name):
            raise UserError(f'--{name.replace("_", "-")} {why}')


def _prepare(arguments) -> 'Prepared':
    classifier = checkpoints.load(arguments)
    from imagenet_jax import data as data_section
    from imagenet_jax.use.table import Prepared
    data = apply(data_section.read, data_sets.section(arguments, classifier), 'data')
    split = data.eval_split if arguments.split is None else arguments.split
    own = arguments.format is None and not arguments.path  # labels that the run was trained on
    return Prepared(classifier, data, split, _open(data, split, classifier, arguments.by_number or own))


def _evaluate(arguments) -> None:
    classifier, data, split, source = _prepare(arguments)

    from imagenet_jax import inspection
    from imagenet_jax.metrics.results import finite
    from imagenet_jax.use import confusion
    from imagenet_jax.use.real_labels import RealLabels

    evaluation_files.check_task(arguments, classifier.task)
    real = arguments.real_labels and RealLabels(arguments.real_labels, source, classifier.class_names,
                                                classifier.num_classes)
    evaluator = dataclasses.replace(_evaluator(classifier, source, data, arguments.batch_size),
                                    **evaluation_files.kept(arguments, at_least=real is not None))
    with logs_above_bars():
        result = evaluator(classifier.placed, _shown('', evaluator))
    if real:
        result.scalars.update(real.scalars(result))
    names = inspection.classes(source, classifier.num_classes)[:classifier.num_classes]
    evaluation_files.write(arguments, evaluator, result, names)
    where = {'checkpoint': ' '.join(map(str, arguments.checkpoint)), 'format': data.format, 'path': data.path,
             'split': split, 'images': len(source)}
    pairs = confusion.pairs(result)
    if arguments.json:
        print(json.dumps(finite(where | measures.as_dict(result, names, pairs)), indent=2))
    else:
        shown = [printable(class_names.shown(name, classifier.class_words)) for name in names]
        print('\n'.join(measures.lines(where, result, shown, pairs if arguments.pairs else None)))


def _evaluate_robustness(arguments) -> None:
    _refuse(arguments, ('format', 'path', 'split', 'option', 'by_number', 'real_labels', *evaluation_files.OPTIONS),
            'is for a split, and --robustness has images of its own: give one or the other')
    classifier = checkpoints.load(arguments)
    from tqdm import tqdm

    from imagenet_jax import data as data_section
    from imagenet_jax.metrics.results import finite
    from imagenet_jax.use import robustness

    found = robustness.find(arguments.robustness)
    data = apply(data_section.read, {'format': 'folder', 'threads': arguments.workers}, 'data')
    opened = [robustness.open_set(one, classifier.class_names, classifier.num_classes, classifier.exif) for one in
              tqdm(found, unit='set', desc='listing', disable=None)]
    first = next(iter(opened[0].sources.values()))
    classifier.task.check(first)
    evaluator = _evaluator(classifier, first, data, arguments.batch_size)
    asked = arguments.resize or arguments.crop_ratio
    view = classifier.view if asked else robustness.uncropped(classifier.view)
    told = []
    with logs_above_bars():
        for one in robustness.measure(opened, evaluator, classifier.placed, _shown, view):
            told.append(one)
            if not arguments.json:
                print('\n'.join(measures.robustness(one)), flush=True)
    if arguments.json:
        print(json.dumps({'checkpoint': ' '.join(map(str, arguments.checkpoint)),
                          'robustness': list(map(finite, told))}, indent=2))


def _open(data: 'Data', split: str, classifier: 'Classifier', by_number: bool) -> sources.Source:
    """The split, its labels in the model's order. Raises UserError."""
    from imagenet_jax.trained import renumber
    source = data_sets.open_for(classifier, data, split)
    classifier.task.check(source)
    return renumber(source, classifier.class_names, classifier.num_classes, by_number)


def _evaluator(classifier: 'Classifier', source: sources.Source, data: 'Data', batch_size: int) -> 'Evaluator':
    from imagenet_jax.evaluation import Evaluator
    return Evaluator(
        answer=classifier.answer, task=classifier.task, view=classifier.view, source=source,
        batch_size=classifier.rounded(batch_size), workers=data.workers, mesh=classifier.mesh,
        bad_samples=data.bad_samples, remedy=f'lower --batch-size, now {batch_size}')


def _shown(name: str, evaluator: 'Evaluator', **more) -> Callable:
    """A progress bar on a terminal."""
    from tqdm import tqdm
    return partial(tqdm, total=len(evaluator), unit='batch', desc=name or None, disable=None, **more)
