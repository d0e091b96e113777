"""models: what there is and how large it is; with one name, that model's layers.

    python -m imagenet_jax models
    python -m imagenet_jax models 'resnet*' 'vgg*'
    python -m imagenet_jax models --json
    python -m imagenet_jax models resnet50
    python -m imagenet_jax models mobilenet_v2 --option width=1.4 \\
        --num-classes 10 --image-size 160

Lists each model's parameters, multiply-adds (MACs) of one image at its input
size, in convolutions and dense layers alone, top-1 as others published it (not
a result of ours), on ImageNet where nothing else is named, and the recipe that
trains it, as --config RECIPE or, where that has several, --config RECIPE:MODEL.
--json has them exactly, and more. With a name, lists each layer that has
parameters, and what it answers for one image, counted from the model, traced
but not run.
"""

import argparse
import dataclasses
import json
from collections.abc import Sequence

from imagenet_jax import catalog
from imagenet_jax.command_line import parsing
from imagenet_jax.options import apply, key_value


def main() -> None:
    """The whole command."""
    parser = _parser()
    arguments = parser.parse_args()
    one = arguments.names[0] if len(arguments.names) == 1 and not _is_pattern(arguments.names[0]) else None
    if one:
        return _show_layers(arguments, one)
    if arguments.option or arguments.num_classes is not None or arguments.image_size:
        parser.error('--image-size, --num-classes and --option are for one model: name it')
    _list(catalog.matching(arguments.names), arguments.json)


def _parser() -> argparse.ArgumentParser:
    parser = parsing.parser('models', __doc__)
    parser.add_argument('names', metavar='NAME', nargs='*',
                        help="one name: the layers of this model; several, or patterns such as 'resnet*': a list of "
                             'these')
    parser.add_argument('--image-size', metavar='N', type=parsing.side, help="side in pixels; default: the model's own")
    parser.add_argument('--num-classes', metavar='N', type=parsing.whole(0, 10**6),
                        help="where not the model's default")
    parser.add_argument('--option', metavar='KEY=VALUE', action='append', default=[],
                        help='any other option of the model, as config.model.KEY; may be given again')
    parser.add_argument('--json', action='store_true', help='print it as JSON')
    return parser


def _is_pattern(name: str) -> bool:
    return any(mark in name for mark in '*?[')


def _list(names: Sequence[str], as_json: bool) -> None:
    sizes = catalog.sizes()
    rows = [_entry(name, sizes[name].parameters, sizes[name].multiply_adds) for name in names]
    if as_json:
        print(json.dumps(rows, indent=1))
        return
    print(f'{"model":18} {"parameters":>10} {"MACs":>9} {"input":>5}  {"published top-1":15}  recipe')
    for row in rows:
        top1 = f'{row["published_top1"]:.2f} {row["published_on"]}' if row['published_top1'] else ''
        top1 = top1.replace(' ImageNet', '').replace(',', '')
        print(f'{row["name"]:18} {row["parameters"] / 1e6:>8.2f} M {row["multiply_adds"] / 1e6:>7,.0f} M '
              f'{row["image_size"]:>5}  {top1:15}  {catalog.RECIPE_OF[row["name"]]}')


def _entry(name: str, parameters: int, multiply_adds: int) -> dict:
    """What the list says of a model; what is published is None where no result is known."""
    published = catalog.PUBLISHED.get(name)
    return {'name': name, 'parameters': parameters, 'multiply_adds': multiply_adds,
            'image_size': catalog.image_size(name),
            **{f'published_{field.name}': published and getattr(published, field.name)
               for field in dataclasses.fields(catalog.Published)},
            'config': catalog.config(name)}


def _show_layers(arguments, name: str) -> None:
    from imagenet_jax import models, runtime  # import JAX, for which the list does not wait
    from imagenet_jax.models import summary
    runtime.keep_to_cpu()
    options = dict(map(key_value, arguments.option))
    if arguments.num_classes is not None:
        options['num_classes'] = arguments.num_classes
    model = apply(models.create, options, '--option', name=name)
    size = arguments.image_size or catalog.image_size(name)
    rows = summary.layers(model, size)
    parameters, multiply_adds = summary.total(rows)
    if arguments.json:
        print(json.dumps({'name': name, 'options': options, 'image_size': size, 'parameters': parameters,
                          'multiply_adds': multiply_adds, 'layers': [dataclasses.asdict(row) for row in rows]},
                         indent=1))
        return
    table = [('layer', 'kind', 'output', 'parameters', 'MACs'),
             *((row.path, row.kind, ' x '.join(map(str, row.shape)), f'{row.parameters:,}', f'{row.multiply_adds:,}')
               for row in rows),
             (f'{size} x {size} pixels', '', '', f'{parameters:,}', f'{multiply_adds:,}')]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    for path, kind, *numbers in table:
        print('  '.join([f'{path:{widths[0]}}', f'{kind:{widths[1]}}',
                         *(f'{number:>{width}}' for number, width in zip(numbers, widths[2:], strict=True))]))
