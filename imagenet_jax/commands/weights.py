"""weights: models of PyTorch, timm and torchvision in, and ours out.

    python -m imagenet_jax weights import --model resnet50 --input resnet50.pth --output weights/resnet50
    python -m imagenet_jax weights import --input hf:timm/resnet50.a1_in1k --output weights/resnet50
    python -m imagenet_jax weights export --checkpoint runs/resnet50 --output resnet50.safetensors --best
"""

import argparse

from imagenet_jax import record, weight_files
from imagenet_jax.class_names import shown
from imagenet_jax.command_line import checkpoints, parsing, running
from imagenet_jax.errors import UserError, writing
from imagenet_jax.options import apply, key_value

_IMPORT = """Makes a folder with config.json and one checkpoint of a model's weights.

    python -m imagenet_jax weights import --input hf:timm/resnet50.a1_in1k --output weights/resnet50
    python -m imagenet_jax weights import --input resnet50-11ad3fa6.pth --output weights/resnet50
    python -m imagenet_jax weights import --model resnet20_cifar --option shortcut=B --num-classes 100 \\
        --input resnet20.safetensors --output weights/resnet20
    python -m imagenet_jax weights import --input runs/resnet50 --best --ema --size 288 --output weights/resnet50_288

Which model it is, how it sees an image and what its classes are called is read from config.json beside weights of
timm's, and known of torchvision's files by their names; of a run it is the run's. What options say holds instead. Where
nothing says it, --model has to, the view is that of its kind (224 out of 256 pixels), with ImageNet's mean and
deviation, and 1000 classes are ImageNet's.

Every name and shape must be the model's; all that are not are listed, after the model that they look like. A prefix
before all names is taken off.
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
    add.add_argument('--model', metavar='NAME',
                     help='one of those that `models` lists, where the weights do not say it')
    add.add_argument('--input', required=True, metavar='FILE',
                     help=f'{", ".join(weight_files.SUFFIXES)}, a folder with one, hf:OWNER/NAME[@REVISION][/FILE], or '
                          'the folder of a run or an import')
    add.add_argument('--output', required=True, metavar='DIR', type=parsing.path, help='a new folder')
    add.add_argument('--num-classes', metavar='N', type=parsing.whole(1, 10**6), help='where nothing else says it')
    add.add_argument('--option', metavar='KEY=VALUE', action='append', default=[],
                     help='any other option of the model; may be given again')
    add.add_argument('--ema', action=argparse.BooleanOptionalAction,
                     help='the averaged weights, or the raw ones, of a file that holds both; the raw ones if not given')
    add.add_argument('--best', action='store_true', help='of a run: the checkpoint best in evaluation')
    add.add_argument('--class-names', metavar='FILE', type=parsing.path,
                     help="one a line, in the order of the outputs, where nothing else says them")
    checkpoints.add_view(add, 'what is known of the weights')
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

        from imagenet_jax import models, pretrained, runtime
        from imagenet_jax.checkpoint import save_variables
        from imagenet_jax.sources.image_list import read_class_names
    runtime.keep_to_cpu()
    options = dict(map(key_value, arguments.option))
    if arguments.num_classes is not None:
        options['num_classes'] = arguments.num_classes
    if 'name' in options:
        raise UserError('--option.name: --model NAME is for it')
    if arguments.model is not None:
        apply(models.create, options, '--option', name=arguments.model)  # refused before anything is read
        options = {'name': arguments.model} | options
    if any((arguments.output / name).exists() for name in ('config.json', 'checkpoints')):
        raise UserError(f'{arguments.output} holds a run or an import already; name a new folder')
    record.refuse_patterns(arguments.output)
    names = arguments.class_names and list(read_class_names(arguments.class_names))
    view, normalize = checkpoints.view(arguments)
    found = pretrained.read(arguments.input, model=options, view=view, normalize=normalize, class_names=names,
                            best=arguments.best, ema=arguments.ema)
    with writing(arguments.output):
        arguments.output.mkdir(exist_ok=True)
        save_variables(arguments.output, found.variables)
        record.write(arguments.output, found.entry)
    count = sum(leaf.size for leaf in jax.tree.leaves(found.variables['params']))
    print(f'{count:,} parameters of {arguments.input} are in {arguments.output}, a {found.entry["model"]["name"]}; it '
          f'sees {found.view.size} pixels out of {found.view.shorter}, {found.view.interpolation}; '
          f'{_told(found.entry["run"]["class_names"])}')


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
