"""--checkpoint and what changes its use, for every command that uses a trained model."""

import argparse
from pathlib import Path

from imagenet_jax import runtime, trained
from imagenet_jax.command_line import parsing


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds them."""
    parser.add_argument('--checkpoint', required=True, metavar='DIR', type=Path,
                        help='the folder of a run or an import')
    parser.add_argument('--best', action='store_true',
                        help='the checkpoint best in evaluation, instead of the newest')
    parser.add_argument('--ema', action='store_true', help='the averaged weights')
    parser.add_argument('--dtype', help='bfloat16, float16 or float32, where not as trained')
    parser.add_argument('--size', metavar='N', type=parsing.side,
                        help="side of the centre crop, where not the run's; 224 for an import")
    parser.add_argument('--resize', metavar='N', type=parsing.side,
                        help="of the shorter side, before it, where not the run's; 256 for an import")
    parser.add_argument('--mean', metavar='R,G,B', type=_colour,
                        help="of pixels in 0..1, where not the run's; ImageNet's for an import")
    parser.add_argument('--std', metavar='R,G,B', type=_colour, help='likewise')


def load(arguments: argparse.Namespace) -> trained.Trained:
    """The model that they name. Raises UserError."""
    runtime.configure_jax(deterministic=False, compilation_cache=True)
    view, normalize = ({name: getattr(arguments, name) for name in names if getattr(arguments, name) is not None}
                       for names in (('size', 'resize'), ('mean', 'std')))
    return trained.load(arguments.checkpoint, best=arguments.best, ema=arguments.ema, dtype=arguments.dtype,
                        view=view, normalize=normalize)


def _colour(text: str) -> tuple[float, ...]:
    try:
        red, green, blue = map(float, text.split(','))
    except ValueError:
        raise argparse.ArgumentTypeError(f'{text!r} must be three numbers such as 0.485,0.456,0.406') from None
    return red, green, blue
