"""Packs a data set into shards that training reads fast and whose damage is noticed: data.format=array_record.

    python -m imagenet_jax convert --format folder --path data/imagenet --split train --output data/imagenet-packed
    python -m imagenet_jax convert --format ilsvrc2012 --path downloads --split val --output data/imagenet-256 \\
        --resize-shorter 256
    python -m imagenet_jax convert --format folder --path data/imagenet --split train --output data/raw --raw 256
    python -m imagenet_jax convert ... --shard-index 0 --shard-count 8     # on host 0 of 8; any of them may finish it

Images keep their bytes unless they are shrunk; each is decoded once as a check, and those that cannot be are named and
left out. After a kill the same command goes on, and ends with the same bytes.
"""

from pathlib import Path

from imagenet_jax.command_line import data_sets, parsing
from imagenet_jax.errors import UserError
from imagenet_jax.options import key_value


def main() -> None:
    """The whole command."""
    parser = data_sets.parser('convert', __doc__)
    parser.add_argument('--split', metavar='S', required=True, help="such as train; '' where the layout has none")
    parser.add_argument('--output', metavar='DIR', type=parsing.path, required=True, help='made where missing')
    parser.add_argument('--name', metavar='S', default='', help="of the split in DIR; default: --split, or 'train'")
    parser.add_argument('--resize-shorter', metavar='N', type=parsing.side_or_none, default=0,
                        help='shrink larger images to N pixels on the shorter side')
    parser.add_argument('--max-side', metavar='N', type=parsing.side_or_none, default=0,
                        help='and to N on the longer')
    parser.add_argument('--quality', metavar='Q', type=parsing.whole(1, 100), default=90,
                        help='of the JPEGs that shrunk images become, default %(default)s')
    parser.add_argument('--raw', metavar='N', type=parsing.side_or_none, default=0,
                        help='store pixels: the centre square of N x N, of images shrunk to N on the shorter side')
    parser.add_argument('--shards', metavar='N', type=parsing.count, default=0,
                        help='default: by the number of images')
    parser.add_argument('--shard-index', metavar='I', type=parsing.count, default=0, help='this host, from 0')
    parser.add_argument('--shard-count', metavar='N', type=parsing.positive, default=1,
                        help='hosts that share the work')
    parser.add_argument('--on-error', metavar='HOW', default='skip',
                        help='an unreadable image: skip (default) or raise')
    parser.add_argument('--max-bad-fraction', metavar='F', type=parsing.fraction, default=0.1,
                        help='of the images that may be unreadable, default %(default)s')
    _convert(parser.parse_args())


def _convert(arguments) -> None:
    from imagenet_jax.convert import Encoding, Plan, convert  # what it imports help does not wait for
    if not arguments.shard_index < arguments.shard_count:
        raise UserError(f'--shard-index {arguments.shard_index} must be in 0..{arguments.shard_count - 1}')
    output = arguments.output
    if arguments.path and output.resolve() == Path(arguments.path).expanduser().resolve():
        raise UserError(f'--output {output} is --path: a split must not lie in one folder in two formats')
    encoding = Encoding(arguments.resize_shorter, arguments.max_side, arguments.quality, arguments.raw)
    origin = {'format': arguments.format, 'path': arguments.path, 'split': arguments.split,
              'options': dict(map(key_value, arguments.option))}
    plan = Plan(data_sets.open_split(arguments, arguments.split), origin, output,
                arguments.name or arguments.split or 'train', encoding, arguments.shards, arguments.on_error,
                arguments.max_bad_fraction)
    manifest = convert(plan, arguments.workers, (arguments.shard_index, arguments.shard_count))
    if manifest is None:
        print(f'the shards of this part are done; others of split {plan.name!r} are still missing in {plan.output}')
        return
    size = sum(shard['bytes'] for shard in manifest['shards'])
    print(f'{manifest["examples"]:,} images, {len(manifest["skipped"]):,} left out, in {len(manifest["shards"])} '
          f'shards of {size / 1e6:,.1f} MB: --config.data.format=array_record --config.data.path={plan.output}, '
          f'split {plan.name}')
