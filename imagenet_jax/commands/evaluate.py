"""Measures a trained model on its run's evaluation split, or on any other data set, with every device.

    python -m imagenet_jax evaluate --checkpoint runs/resnet50
    python -m imagenet_jax evaluate --checkpoint runs/resnet50 --best --ema --size 288 --resize 320
    python -m imagenet_jax evaluate --checkpoint runs/resnet50 --format parquet --path data/imagenet --split validation
    python -m imagenet_jax evaluate --checkpoint weights/resnet50 --format folder --path data/imagenet --split val

--format, --path and --split are the run's where not given; an import needs them. Labels of another data set are matched
with the run's by class name; a name that the model does not know is refused. An unreadable image counts as wrong.
"""

import contextlib
import json
import logging
import math
import sys

import jax
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P
from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from imagenet_jax import input_pipeline, sources, step
from imagenet_jax.command_line import checkpoints, data_sets, parsing
from imagenet_jax.errors import UserError
from imagenet_jax.evaluate import evaluate
from imagenet_jax.options import apply, key_value
from imagenet_jax.trained import Trained, renumber


def main() -> None:
    """The whole command."""
    parser = data_sets.parser('evaluate', __doc__, required=False)
    checkpoints.add_arguments(parser)
    parser.add_argument('--split', metavar='S', help="the run's evaluation split where not given")
    parser.add_argument('--batch-size', metavar='N', type=parsing.count, default=256,
                        help='on all devices together, rounded up to a multiple of them; changes no result')
    parser.add_argument('--json', action='store_true', help='print the result as JSON')
    _evaluate(parser.parse_args())


def _evaluate(arguments) -> None:
    trained = checkpoints.load(arguments)
    section = _section(arguments, trained)
    source, workers, bad = apply(_open, section, 'data', trained=trained)
    result = _measure(trained, source, workers, bad, arguments.batch_size)
    if arguments.json:
        where = {'checkpoint': str(arguments.checkpoint), 'format': section['format'], 'path': section['path'],
                 'split': section['eval_split']}
        print(json.dumps(where | {name: _finite(value) for name, value in result.items()}, indent=2))
        return
    names = {'top1': 'top-1', 'top5': 'top-5', 'mean_average_precision': 'mean average precision', 'loss': 'loss'}
    print(f'{section["path"] or section["format"]}, split {section["eval_split"]!r}: {result["images"]:,} images, '
          f'{result["bad_samples"]:,} unreadable')
    for key, name in names.items():
        if key in result:
            print(f'{name:22} {result[key]:.4f}')
    for name, value in result.get('average_precision', {}).items():
        print(f'  {name:20} {value:.4f}')


def _finite(value):
    """For JSON, which knows no NaN: null."""
    if isinstance(value, dict):
        return {name: _finite(one) for name, one in value.items()}
    return value if math.isfinite(value) else None


def _section(arguments, trained: Trained) -> dict:
    """The section `data` of the run, changed as the command line says, or all of it from there."""
    given = {'path': arguments.path or None, 'eval_split': arguments.split, 'threads': arguments.workers or None}
    given = {name: value for name, value in given.items() if value is not None}
    given |= dict(map(key_value, arguments.option))
    if arguments.format is None:
        if 'data' not in trained.entry:
            raise UserError(f'{arguments.checkpoint} is an import, which has no data of its own: give --format, --path '
                            'and --split')
        return trained.entry['data'] | given
    if arguments.split is None:
        raise UserError('which split? --format needs --split too')
    return {'format': arguments.format, 'path': ''} | given


def _open(*, trained: Trained, format: str, path: str, eval_split: str, train_split: str = '', processes: int = 0,
          threads: int = 0, on_error: str = 'skip', max_bad_fraction: float = 0.1, **options):
    """(source in the model's order, workers, bad samples) of the section `data`. Raises UserError."""
    del train_split
    classes = trained.model.num_classes
    source = sources.create(format, path, eval_split, classes if format == 'synthetic' else None, trained.view.size,
                            **options)
    kind = 'sigmoid' if source.labels.ndim == 2 else 'softmax'
    if kind != trained.loss:
        several, one = 'may have several classes', 'has one class'
        raise UserError(f'an image of the data {several if kind == "sigmoid" else one}, and to the model, trained with '
                        f'loss {trained.loss}, it {several if trained.loss == "sigmoid" else one}')
    source = renumber(source, trained.class_names, classes)
    return (source, input_pipeline.Workers(processes, threads),
            input_pipeline.BadSamples(source, on_error, max_bad_fraction))


def _measure(trained: Trained, source, workers, bad, batch_size: int) -> dict:
    mesh, devices = step.make_mesh(), jax.device_count()
    batch_size = max(1, -(-batch_size // devices)) * devices
    eval_step = step.make_eval_step(trained.model, trained.normalize, mesh, loss=trained.loss)
    variables = jax.device_put(trained.variables, NamedSharding(mesh, P()))
    batches = input_pipeline.eval_batches(source, trained.view, batch_size, workers)
    with (contextlib.closing(input_pipeline.to_devices(batches, mesh)) as pairs,
          logging_redirect_tqdm([logging.getLogger('imagenet_jax')]),
          tqdm(pairs, total=-(-len(source) // batch_size), unit='batch', disable=not sys.stderr.isatty()) as shown):
        result = evaluate(eval_step, variables, shown, len(source), bad.check)
    result.pop('confusion', None)
    if 'average_precision' in result:
        names = trained.class_names or range(trained.model.num_classes)
        result['average_precision'] = dict(zip(map(str, names), map(float, result['average_precision']), strict=True))
    return {'images': len(source), **result}
