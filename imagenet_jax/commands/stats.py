"""Measures the mean, deviation and covariance of a data set's colours.

    python -m imagenet_jax stats --format folder --path data/imagenet --split train --size 224 --resize 256 \\
        --output stats.json
    python -m imagenet_jax stats --format parquet --path data/cifar10 --split train
    python -m imagenet_jax stats --format folder --path data/imagenet --split train --max-images 20000

Pixels are scaled to 0..1, and each counts the same. As stored, a large image weighs more than a small one; with --size
every image is measured in evaluation's view (shorter side to --resize, centre crop) and weighs alike. The JSON file has
mean, std, covariance, and its eigenvalues and eigenvectors (columns), which colour augmentation by principal components
(AlexNet) takes. Prints the options that put mean and std into a run. Unreadable images are listed and left out.
"""

import json

from imagenet_jax.command_line import data_sets, parsing
from imagenet_jax.errors import UserError, writing

# Unreadable images that are printed; --output has all.
_SHOWN = 20


def main() -> None:
    """The whole command."""
    parser = data_sets.parser('stats', __doc__)
    parser.add_argument('--split', metavar='S', required=True)
    parser.add_argument('--size', metavar='N', type=parsing.side_or_none, default=0,
                        help='measure a centre crop of this side; 0: images as stored')
    parser.add_argument('--resize', metavar='N', type=parsing.side_or_none, default=0,
                        help='of the shorter side, before it; --size where not given')
    parser.add_argument('--max-images', metavar='N', type=parsing.count, default=0,
                        help='measure so many, evenly spaced; 0: all')
    parser.add_argument('--output', metavar='FILE', type=parsing.path, help='write the figures as JSON')
    _stats(parser.parse_args())


def _stats(arguments) -> None:
    from imagenet_jax import inspection  # what these import help does not wait for
    from imagenet_jax.images.decode import decode
    from imagenet_jax.images.eval_view import EvalView
    size, resize = arguments.size, arguments.resize or arguments.size
    if resize and not size:
        raise UserError('--resize needs --size, the side of the crop that is measured')
    view = EvalView(size, resize) if size else decode
    source = data_sets.open_split(arguments, arguments.split)
    found = inspection.statistics(source, view, arguments.workers, arguments.max_images)
    if arguments.output:
        origin = {'format': arguments.format, 'path': arguments.path, 'split': arguments.split, 'size': size,
                  'resize': resize}
        with writing(arguments.output):
            arguments.output.write_text(f'{json.dumps(origin | found, indent=2)}\n')
    print('\n'.join(_lines(found, f'{size} x {size}, shorter side to {resize}' if size else 'as stored')))


def _lines(found: dict, view: str) -> list[str]:
    lines = [f'{found["images"]:,} images, {found["pixels"]:,} pixels, {view}; {len(found["bad"]):,} unreadable']
    lines += [f'  {sample["key"]}: {sample["reason"]}' for sample in found['bad'][:_SHOWN]]
    for name in ('mean', 'std', 'eigenvalues'):
        lines.append(f'{name:12} {_row(found[name])}')
    for name in ('covariance', 'eigenvectors'):
        lines += [f'{name if i == 0 else "":12} {_row(row)}' for i, row in enumerate(found[name])]
    return lines + [f"--config.normalize.{name}='({', '.join(f'{x:.4f}' for x in found[name])})'"
                    for name in ('mean', 'std')]


def _row(values) -> str:
    return ' '.join(f'{x:9.5f}' for x in values)
