"""models: what there is and how large it is; with a name, that model's layers.

    python -m imagenet_jax models
    python -m imagenet_jax models --json
    python -m imagenet_jax models resnet50
    python -m imagenet_jax models mobilenet_v2 --option width=1.4 --num-classes 10 --image-size 160

Lists each model's parameters, multiply-adds (MACs) of one image at its input size, in convolutions and dense layers
alone, top-1 as others published it (not a result of ours), on ImageNet where nothing else is named, and the recipe that
trains it, as --config takes it. With a name, lists each layer that has parameters, and what it answers for one image.
Everything is counted from the model, traced but not run.
"""

import argparse
import dataclasses
import json
import sys

from tqdm import tqdm

from imagenet_jax import models, runtime
from imagenet_jax.command_line import parsing
from imagenet_jax.models import catalog, summary
from imagenet_jax.options import apply, key_value


def main() -> None:
    """The whole command."""
    parser = _parser()
    arguments = parser.parse_args()
    if not arguments.name and (arguments.option or arguments.num_classes is not None or arguments.image_size):
        parser.error('--image-size, --num-classes and --option are for one model: name it')
    runtime.keep_to_cpu()
    _show_layers(arguments) if arguments.name else _list(arguments.json)


def _parser() -> argparse.ArgumentParser:
    parser = parsing.parser('models', __doc__)
    parser.add_argument('name', metavar='NAME', nargs='?', help='show the layers of this model')
    parser.add_argument('--image-size', metavar='N', type=parsing.side,
                        help="side in pixels; default: the model's own")
    parser.add_argument('--num-classes', metavar='N', type=parsing.whole(0, 10**6),
                        help="where not the model's default")
    parser.add_argument('--option', metavar='KEY=VALUE', action='append', default=[],
                        help='any other option of the model, as config.model.KEY; may be given again')
    parser.add_argument('--json', action='store_true', help='print it as JSON')
    return parser


def _list(as_json: bool) -> None:
    rows = [_entry(name) for name in tqdm(models.names(), unit='model', leave=False, disable=not sys.stderr.isatty())]
    if as_json:
        print(json.dumps(rows, indent=1))
        return
    print(f'{"model":18} {"parameters":>11} {"MACs":>14} {"input":>5}  {"top-1, published":20}  recipe')
    for row in rows:
        top1 = f'{row["published_top1"]:.2f} {row["published_on"]}' if row['published_top1'] else ''
        top1 = top1.replace(' ImageNet', '').replace(',', '')
        print(f'{row["name"]:18} {row["parameters"]:>11,} {row["multiply_adds"]:>14,} {row["image_size"]:>5}  '
              f'{top1:20}  {row["config"]}')


def _entry(name: str) -> dict:
    """What the list says of a model; what is published is None where no result is known."""
    size, published = catalog.image_size(name), catalog.PUBLISHED.get(name)
    parameters, multiply_adds = summary.total(summary.layers(models.create(name), size))
    return {'name': name, 'parameters': parameters, 'multiply_adds': multiply_adds, 'image_size': size,
            **{f'published_{field.name}': published and getattr(published, field.name)
               for field in dataclasses.fields(catalog.Published)},
            'config': catalog.config(name)}


def _show_layers(arguments) -> None:
    options = dict(map(key_value, arguments.option))
    if arguments.num_classes is not None:
        options['num_classes'] = arguments.num_classes
    model = apply(models.create, options, '--option', name=arguments.name)
    size = arguments.image_size or catalog.image_size(arguments.name)
    rows = summary.layers(model, size)
    parameters, multiply_adds = summary.total(rows)
    if arguments.json:
        print(json.dumps({'name': arguments.name, 'options': options, 'image_size': size, 'parameters': parameters,
                          'multiply_adds': multiply_adds, 'layers': [dataclasses.asdict(row) for row in rows]},
                         indent=1))
        return
    width = max(len(row.path) for row in rows)
    print(f'{"layer":{width}}  {"kind":12} {"output":>16} {"parameters":>12} {"MACs":>15}')
    for row in rows:
        shape = ' x '.join(map(str, row.shape))
        print(f'{row.path:{width}}  {row.kind:12} {shape:>16} {row.parameters:>12,} {row.multiply_adds:>15,}')
    print(f'{f"{size} x {size} pixels":{width}}  {"":12} {"":>16} {parameters:>12,} {multiply_adds:>15,}')
