"""weights: PyTorch models' weights in, and ours out.

    python -m imagenet_jax weights import --model resnet50 --input resnet50.pth --output weights/resnet50
    python -m imagenet_jax weights import --model resnet50 --input hf:timm/resnet50.a1_in1k --output weights/resnet50
    python -m imagenet_jax weights export --checkpoint runs/resnet50 --output resnet50.safetensors --best
"""

import argparse
import dataclasses
from pathlib import Path

from imagenet_jax import record, weight_files
from imagenet_jax.class_names import of_published, shown
from imagenet_jax.command_line import checkpoints, parsing, running
from imagenet_jax.errors import UserError, writing
from imagenet_jax.images.eval_view import EvalView
from imagenet_jax.options import apply, key_value

_IMPORT = """Makes a folder with config.json and one checkpoint of a PyTorch model's weights.

    python -m imagenet_jax weights import --model resnet50 --input resnet50.pth --output weights/resnet50
    python -m imagenet_jax weights import --model resnet50 --input hf:timm/resnet50.a1_in1k --output weights/resnet50
    python -m imagenet_jax weights import --model resnet20_cifar --option shortcut=B --num-classes 100 \\
        --input resnet20.safetensors --output weights/resnet20

Every name and shape must be the model's; all that are not are listed, after the model that they look like. A prefix
before all names is taken off. The folder keeps how the model sees an image, for `evaluate` and `predict`: at its own
size, with ImageNet's mean and deviation, where you say nothing else; and the names of its classes, which of a model of
1000 classes are ImageNet's, where you give none.
"""
_EXPORT = """Writes the weights of a run, or of an imported folder, as torchvision's and timm's models load them.

    python -m imagenet_jax weights export --checkpoint runs/resnet50 --output resnet50.safetensors
    python -m imagenet_jax weights export --checkpoint runs/resnet50 --output resnet50.pth --best --ema
"""


def main() -> None:
    """The whole command."""
    arguments = _parser().parse_args()
    arguments.run(arguments)


def _parser() -> argparse.ArgumentParser:
    parser, shape = parsing.parser('weights', __doc__), parsing.SHAPE
    commands = parser.add_subparsers(required=True, metavar='import|export')
    add = commands.add_parser('import', help="a PyTorch model's weights -> a folder", description=_IMPORT, **shape)
    add.add_argument('--model', required=True, metavar='NAME', help='one of those that `models` lists')
    add.add_argument('--input', required=True, metavar='FILE',
                     help=f'{", ".join(weight_files.SUFFIXES)}, a folder with one, or hf:OWNER/NAME[@REVISION][/FILE]')
    add.add_argument('--output', required=True, metavar='DIR', type=parsing.path, help='a new folder')
    add.add_argument('--num-classes', metavar='N', type=parsing.whole(1, 10**6), help="where not the model's default")
    add.add_argument('--option', metavar='KEY=VALUE', action='append', default=[],
                     help='any other option of the model; may be given again')
    add.add_argument('--ema', action=argparse.BooleanOptionalAction,
                     help='the averaged weights, or the raw ones, of a file that holds both; the raw ones if not given')
    add.add_argument('--class-names', metavar='FILE', type=parsing.path,
                     help="one a line, in the order of the outputs; ImageNet's for 1000 classes if not given")
    checkpoints.add_view(add, "the model's own: 224 out of 256 pixels, or 32 for CIFAR, and ImageNet's colours")
    add.set_defaults(run=_import)
    add = commands.add_parser('export', help="a run's weights -> a file", description=_EXPORT, **shape)
    add.add_argument('--checkpoint', required=True, metavar='DIR', type=parsing.path,
                     help='the folder of a run or an import')
    add.add_argument('--output', required=True, metavar='FILE', type=parsing.path,
                     help=', '.join(weight_files.SUFFIXES))
    add.add_argument('--ema', action='store_true', help='the averaged weights')
    add.add_argument('--best', action='store_true', help='of the checkpoint best in evaluation, instead of the newest')
    add.set_defaults(run=_export)
    return parser


def _import(arguments) -> None:
    with running.importing():  # JAX, for which help does not wait
        import jax

        from imagenet_jax import models, runtime, trained, weights
        from imagenet_jax.checkpoint import save_variables
        from imagenet_jax.images.batch import Normalize
    runtime.keep_to_cpu()
    options = dict(map(key_value, arguments.option))
    if arguments.num_classes is not None:
        options['num_classes'] = arguments.num_classes
    model = apply(models.create, options, '--option', name=arguments.model)
    if any((arguments.output / name).exists() for name in ('config.json', 'checkpoints')):
        raise UserError(f'{arguments.output} holds a run or an import already; name a new folder')
    record.refuse_patterns(arguments.output)
    class_names = _class_names(arguments.class_names, model.num_classes)
    view, normalize = checkpoints.view(arguments)
    sections = {'eval': trained.import_view(arguments.model, **view), 'normalize': normalize}
    seen = apply(EvalView, sections['eval'], 'eval')
    sections['normalize'] = dataclasses.asdict(apply(Normalize, normalize, 'normalize'))
    path, origin = weight_files.find(arguments.input)
    variables = weights.from_torch(model, weight_files.read(path), arguments.ema)
    with writing(arguments.output):
        arguments.output.mkdir(exist_ok=True)
        save_variables(arguments.output, variables)
        record.write(arguments.output, {
            'model': {'name': arguments.model, **options, 'num_classes': model.num_classes}, **sections,
            'run': {**runtime.describe(), 'weights': origin, 'class_names': class_names}})
    print(f'{sum(leaf.size for leaf in jax.tree.leaves(variables["params"])):,} parameters of {path} are in '
          f'{arguments.output}; it sees {seen.size} pixels out of {seen.shorter}; '
          f'{_told(class_names)}')


def _class_names(file: Path | None, num_classes: int) -> list[str]:
    if not file:
        return list(of_published(num_classes))
    from imagenet_jax.sources.image_list import read_class_names
    names = list(read_class_names(file))
    if len(names) != num_classes:
        raise UserError(f'--class-names {file} has {len(names)} names, and the model {num_classes} classes')
    return names


def _told(class_names: list[str]) -> str:
    if not class_names:
        return 'its classes have no names: --class-names gives them'
    return f'its classes are {", ".join(map(shown, class_names[:2]))}, ...'


def _export(arguments) -> None:
    with running.importing():
        from imagenet_jax import models, runtime, weights
        from imagenet_jax.checkpoint import load_variables
    runtime.keep_to_cpu()
    config, variables = load_variables(arguments.checkpoint, best=arguments.best, ema=arguments.ema)
    state_dict = weights.to_torch(models.create(**config), variables)
    weight_files.write(arguments.output, state_dict)
    print(f'{len(state_dict)} arrays of {arguments.checkpoint} are in {arguments.output}')
