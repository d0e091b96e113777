"""Decodes every image of a data set, and lists what is unreadable, doubled or missing.

    python -m imagenet_jax verify --format folder --path data/imagenet --split train --split val
    python -m imagenet_jax verify --format parquet --path data/imagenette160 --split train --split validation \\
        --output verify.json
    python -m imagenet_jax verify --format tfds --option dataset=cifar10 --split train --split test --json

Images are the same where their stored bytes are (their pixels, in layouts that store those).

Leaves with 0 where all is well; with 1 where an image cannot be read, one is in two splits, or the splits number their
classes differently, and after an error. Copies within a split and classes without images are shown, no more.
"""

import json

from imagenet_jax.command_line import data_sets, parsing
from imagenet_jax.errors import writing

# Bad samples and groups of copies that are printed; --json and --output have all.
_SHOWN = 20


def main() -> int | None:
    """The whole command."""
    parser = data_sets.parser('verify', __doc__)
    parser.add_argument('--split', metavar='S', action='append', required=True, help='may be given again')
    parser.add_argument('--json', action='store_true', help='print the whole report as JSON')
    parser.add_argument('--output', metavar='FILE', type=parsing.path, help='write the whole report as JSON')
    return _verify(parser.parse_args())


def _verify(arguments) -> int:
    from imagenet_jax import inspection  # what it imports help does not wait for
    splits = {split: data_sets.open_split(arguments, split) for split in arguments.split}
    report = inspection.verify(splits, arguments.workers)
    text = json.dumps(report, indent=2)
    if arguments.output:
        with writing(arguments.output):
            arguments.output.write_text(f'{text}\n')
    print(text if arguments.json else '\n'.join(_lines(report)))
    return 0 if report['clean'] else 1


def _lines(report: dict) -> list[str]:
    lines = [line for name, split in report['splits'].items() for line in _split_lines(name, split)]
    copies = report['duplicates']
    lines.append(f'the same image: in several splits {copies["across_splits"]:,}, under several classes '
                 f'{copies["across_classes"]:,}; more than once within '
                 + ', '.join(f'{name or "the root"} {count:,}' for name, count in copies['within_split'].items()))
    lines += [f'  {" = ".join(_place(place) for place in group)}' for group in copies['groups'][:_SHOWN]]
    lines += _more(len(copies['groups']))
    if not report['same_classes']:
        lines.append('the splits number their classes differently: labels of one mean other classes in another')
    return [*lines, 'clean' if report['clean'] else 'not clean']


def _split_lines(name: str, split: dict) -> list[str]:
    size, height, width = split['class_size'], split['height'], split['width']
    lines = [f'{name or "the root"}: {split["images"]:,} images, {len(split["bad"]):,} unreadable',
             f'  {len(split["classes"]):,} classes of {size["min"]:,.0f} to {size["max"]:,.0f} images, median '
             f'{size["median"]:,.0f}']
    lines += [f'  {side:6} {_range(values)}' for side, values in (('height', height), ('width', width)) if values]
    if split['kinds']:
        lines.append('  ' + ', '.join(f'{kind} {count:,}' for kind, count in split['kinds'].items()))
    if split['missing_classes']:
        missing = split['missing_classes']
        lines.append(f'  {len(missing)} classes without images: {", ".join(missing[:_SHOWN])}'
                     + (', ...' if len(missing) > _SHOWN else ''))
    lines += [f'  {sample["key"]}: {sample["reason"]}' for sample in split['bad'][:_SHOWN]]
    return lines + _more(len(split['bad']))


def _range(values: dict) -> str:
    if values['min'] == values['max']:
        return f'{values["min"]:,.0f}'
    return (f'{values["min"]:,.0f} to {values["max"]:,.0f}, median {values["median"]:,.0f}, '
            f'nine tenths in {values["q05"]:,.0f} to {values["q95"]:,.0f}')


def _place(place: dict) -> str:
    return f'{place["split"]}:{place["key"]} ({place["class"]})'


def _more(count: int) -> list[str]:
    return [f'  and {count - _SHOWN:,} more; --output FILE lists all'] if count > _SHOWN else []
