"""--checkpoint and what changes its use, for every command that uses a trained model."""

import argparse
from typing import TYPE_CHECKING, Any

from imagenet_jax.command_line import parsing, running
from imagenet_jax.images.eval_view import FILTERS, VIEWS

if TYPE_CHECKING:
    from imagenet_jax.use import classifier

# Options of the section eval, and of the command line.
_VIEW = 'size', 'resize', 'crop_ratio', 'interpolation', 'views', 'scales', 'flip'


def add_arguments(parser: argparse.ArgumentParser, alone: bool = True, required: bool = True) -> None:
    """Adds them; `alone` says that the command has arguments without a name, which no list may swallow, `required`
    whether --checkpoint is."""
    several = {'action': 'append'} if alone else {'action': 'extend', 'nargs': '+'}
    parser.add_argument('--checkpoint', required=required, metavar='DIR', type=parsing.path, **several,
                        help='the folder of a run or an import, or weights that say what they are, as `weights '
                             'import` takes them: hf:timm/NAME; may be given again: the mean of their answers')
    add_use(parser)


def add_use(parser: argparse.ArgumentParser) -> None:
    """Adds what says how a trained model is used."""
    parser.add_argument('--best', action='store_true',
                        help='the checkpoint best in evaluation, instead of the newest')
    parser.add_argument('--ema', action='store_true', help='the averaged weights')
    parser.add_argument('--dtype', help='bfloat16, float16 or float32, where not as trained')
    parser.add_argument('--exif', action=argparse.BooleanOptionalAction,
                        help="turn images as their EXIF says, where not as the run's config.data.exif has it")
    add_view(parser, "the run's, or the import's")


def add_view(parser: argparse.ArgumentParser, otherwise: str) -> None:
    """Adds what says how the model sees an image; `otherwise` says what holds where they are not given."""
    parser.add_argument('--size', metavar='N', type=parsing.side,
                        help=f'side of the centre crop, where not {otherwise}')
    shorter = parser.add_mutually_exclusive_group()
    shorter.add_argument('--resize', metavar='N', type=parsing.side, help='of the shorter side, before it, likewise')
    shorter.add_argument('--crop-ratio', metavar='F', type=parsing.fraction,
                         help='instead: the crop as a part of the shorter side')
    parser.add_argument('--interpolation', choices=list(FILTERS), help='of that, likewise')
    parser.add_argument('--views', choices=list(VIEWS), help='of one image, whose answers are averaged, likewise')
    parser.add_argument('--scales', metavar='N,N,..', type=parsing.sides,
                        help='shorter sides at each of which the whole centre square is answered, likewise')
    parser.add_argument('--flip', action=argparse.BooleanOptionalAction, help="each view's mirror image too, likewise")
    parser.add_argument('--mean', metavar='R,G,B', type=_colour, help='of pixels in 0..1, likewise')
    parser.add_argument('--std', metavar='R,G,B', type=_colour, help='likewise')


def view(arguments: argparse.Namespace) -> tuple[dict, dict]:
    """What they change of the sections eval and normalize."""
    view, normalize = ({name: getattr(arguments, name) for name in names if getattr(arguments, name) is not None}
                       for names in (_VIEW, ('mean', 'std')))
    return view, normalize


def load(arguments: argparse.Namespace) -> 'classifier.Classifier':
    """The model that they name, or several. Raises UserError."""
    with running.importing():  # JAX, for which help does not wait
        from imagenet_jax import runtime
        from imagenet_jax.use import classifier
    runtime.configure_jax(deterministic=False, compilation_cache=True)
    return classifier.load(*arguments.checkpoint, **use(arguments))


def use(arguments: argparse.Namespace) -> dict[str, Any]:
    """What they say of it, for `classifier.load`."""
    changes, normalize = view(arguments)
    return {'best': arguments.best, 'ema': arguments.ema, 'dtype': arguments.dtype, 'exif': arguments.exif,
            'view': changes, 'normalize': normalize}


def _colour(text: str) -> tuple[float, ...]:
    try:
        red, green, blue = map(float, text.split(','))
    except ValueError:
        raise argparse.ArgumentTypeError(f'{text!r} must be three numbers such as 0.485,0.456,0.406') from None
    return red, green, blue
