"""Writes what a trained model makes of a split's images, and measures how well that tells classes apart.

    python -m imagenet_jax features --checkpoint runs/resnet50 --output val.parquet
    python -m imagenet_jax features --checkpoint weights/resnet50 --stage layer3 --format folder --path data/flowers \\
        --split val --output val.npz
    python -m imagenet_jax features --checkpoint runs/resnet50 --knn --linear-probe --train-split train --split val
    python -m imagenet_jax features --train train.npz --test val.npz --knn --linear-probe

Features are what the head sees, or with --stage the mean of that stage's map, of the centre crop. The file has a row an
image: key (what the data set calls it), label and its name, features (float32). Labels are the data's own; its classes
need not be the model's. Unreadable images are named, counted and left out, however many they are, unless --option
max_bad_fraction=F or on_error=raise says otherwise.

--knn: top-1 of the vote of the --k nearest training images by cosine similarity, once each with the same weight and
once weighted by exp(similarity / 0.07), as DINO was measured. --linear-probe: top-1 of a logistic regression on
standardised features; the strength of its penalty is the best of --regularization on a fifth of the training images,
held out. Classes of the two splits are matched by name. --train and --test take files made before, and no model.
"""

import argparse
import json
from functools import partial
from typing import TYPE_CHECKING

from imagenet_jax.command_line import checkpoints, data_sets, outputs, parsing
from imagenet_jax.errors import UserError
from imagenet_jax.options import apply, key_value
from imagenet_jax.terminal import logs_above_bars

if TYPE_CHECKING:  # help does not wait for JAX
    from imagenet_jax.use.feature_table import Features

# Options that files made before leave something to do for.
_OF_FILES = 'train', 'test', 'knn', 'k', 'linear_probe', 'regularization', 'json'


def main() -> None:
    """The whole command."""
    parser = data_sets.parser('features', __doc__, required=False)
    checkpoints.add_arguments(parser, alone=False, required=False)
    parser.add_argument('--split', metavar='S', help="the run's evaluation split where not given")
    parser.add_argument('--stage', metavar='NAME', help='such as layer3; what the head sees where not given')
    parser.add_argument('--batch-size', metavar='N', type=parsing.whole(1, 2**20), default=256,
                        help='on all devices together, rounded up to a multiple of them; changes no result')
    parser.add_argument('--output', metavar='FILE', type=parsing.path,
                        help='write the features of --split, as .npz or .parquet')
    parser.add_argument('--knn', action='store_true', help='measure k nearest neighbours')
    parser.add_argument('--k', metavar='N', type=parsing.positive, help='of them; 20 where not given')
    parser.add_argument('--linear-probe', action='store_true', help='measure a logistic regression')
    parser.add_argument('--regularization', metavar='F[,F..]', type=_strengths,
                        help='of it: mean cross-entropy + F / 2 * squared weights; 1e-5 to 1 in powers of ten where '
                             'not given')
    parser.add_argument('--train-split', metavar='S', help="what they learn from; the run's, or train, where not given")
    parser.add_argument('--train', metavar='FILE', type=parsing.path, help='features to learn from, instead of a split')
    parser.add_argument('--test', metavar='FILE', type=parsing.path, help='features to measure on, likewise')
    parser.add_argument('--json', action='store_true', help='print the result as JSON')
    arguments = parser.parse_args()
    _check(arguments, parser)
    (_of_files if arguments.train else _of_model)(arguments)


def _check(arguments, parser: argparse.ArgumentParser) -> None:
    """Raises UserError where they ask for nothing, for what goes not together, or for a file that cannot be written."""
    probes = arguments.knn or arguments.linear_probe
    for option, needs, there in (('k', '--knn', arguments.knn), ('regularization', '--linear-probe',
                                 arguments.linear_probe), ('train_split', '--knn or --linear-probe', probes)):
        if getattr(arguments, option) is not None and not there:
            raise UserError(f'--{option.replace("_", "-")} is for {needs}: give that too')
    if bool(arguments.train) != bool(arguments.test):
        raise UserError('--train and --test go together: one file to learn from, one to measure on')
    given = [name for name, value in vars(arguments).items() if value != parser.get_default(name)]
    if arguments.train:
        if others := [f'--{name.replace("_", "-")}' for name in given if name not in _OF_FILES]:
            raise UserError(f'{", ".join(others)}: not for --train and --test, whose features are made')
        if not probes:
            raise UserError('what is to be measured of --train and --test? Give --knn, --linear-probe or both')
        return
    if not arguments.checkpoint:
        raise UserError('whose features? Give --checkpoint DIR, or --train FILE and --test FILE made before')
    if not (probes or arguments.output):
        raise UserError('what are the features for? Give --output FILE, --knn or --linear-probe')
    if views := [f'--{name}' for name in ('views', 'scales', 'flip') if getattr(arguments, name) not in (
            None, False, 'center')]:
        raise UserError(f'{", ".join(views)}: features are of the centre crop alone; evaluate and predict have views')
    from imagenet_jax.use.feature_table import ENDINGS
    outputs.check([('--output', arguments.output, ENDINGS)])


def _of_files(arguments) -> None:
    from imagenet_jax.use import feature_table
    if arguments.train.resolve() == arguments.test.resolve():
        raise UserError(f'--train and --test are one file, {arguments.train}: each image would find itself')
    train, test = feature_table.read(arguments.train), feature_table.read(arguments.test)
    found = {'train_images': len(train), 'images': len(test)} | _probe(arguments, train, test)
    _print(arguments, f'{arguments.test}: {len(test):,} images; learnt from {len(train):,} of {arguments.train}', found)


def _of_model(arguments) -> None:
    classifier = checkpoints.load(arguments)  # imports JAX, for which help does not wait
    from imagenet_jax import data as data_section
    from imagenet_jax.use import feature_table, probes
    from imagenet_jax.use.features import Extractor

    skipping = {'max_bad_fraction': 1.0, 'on_error': 'skip'} | dict(map(key_value, arguments.option))
    data = apply(data_section.read, data_sets.section(arguments, classifier) | skipping, 'data')
    split = data.eval_split if arguments.split is None else arguments.split
    extractor = Extractor(classifier=classifier, stage=arguments.stage, batch_size=arguments.batch_size,
                          workers=data.workers)
    source = data_sets.open_for(classifier, data, split)
    about = {'format': data.format, 'path': data.path, 'split': split, 'images': len(source)}
    if not (arguments.knn or arguments.linear_probe):
        rows = feature_table.write(arguments.output, _parts(extractor, data, source, split), len(source))
        _print(arguments, _line(about, rows, arguments.output), about | {'left_out': len(source) - rows})
        return
    train_split = data.train_split if arguments.train_split is None else arguments.train_split
    if train_split == split:
        raise UserError(f'--train-split and --split are both {split!r}: each image would find itself')
    train_source = data_sets.open_for(classifier, data, train_split)
    probes.check(train_source, source, (arguments.k or probes.K) if arguments.knn else 1)
    test, train = (feature_table.joined(_parts(extractor, data, each, name), len(each))
                   for each, name in ((source, split), (train_source, train_split)))
    if arguments.output:
        feature_table.write(arguments.output, [test], len(test))
    found = {'left_out': len(source) - len(test), 'train_split': train_split, 'train_images': len(train_source),
             'train_left_out': len(train_source) - len(train)}
    lines = [_line(about, len(test), arguments.output), f'learnt from split {train_split!r}: {len(train_source):,} '
             f'images, {found["train_left_out"]:,} left out']
    _print(arguments, '\n'.join(lines), about | found | _probe(arguments, train, test))


def _parts(extractor, data, source, split: str):
    """The features of a split as they come, with a progress bar on a terminal."""
    with logs_above_bars():
        yield from extractor(source, data.bad_samples(source), _bar(split, 'batch', extractor.batches(source)))


def _bar(what: str, unit: str, total: int | None = None):
    from tqdm import tqdm
    return partial(tqdm, desc=what, unit=unit, total=total, disable=None)


def _probe(arguments, train: 'Features', test: 'Features') -> dict:
    from imagenet_jax.use import probes
    found = {}
    if arguments.knn:
        k = arguments.k or probes.K
        found |= {'k': k} | probes.knn(train, test, k, _bar('k-NN', 'part'))
    if arguments.linear_probe:
        strengths = arguments.regularization or probes.REGULARIZATION
        found |= probes.linear_probe(train, test, strengths, _bar('linear probe', 'strength'))
    return found


def _line(about: dict, rows: int, output) -> str:
    written = f'; features of {rows:,} in {output}' if output else ''
    return (f'{about["path"] or about["format"]}, split {about["split"]!r}: {about["images"]:,} images, '
            f'{about["images"] - rows:,} left out{written}')


def _print(arguments, text: str, found: dict) -> None:
    if arguments.json:
        print(json.dumps(found, indent=2))
        return
    print(text)
    if 'k' in found:
        print(f'{found["k"]}-NN, top-1:')
        print(f'  {"each counts the same":34} {found["knn_top1"]:.4f}')
        print(f'  {"weighted by exp(similarity / 0.07)":34} {found["knn_weighted_top1"]:.4f}')
    if 'linear_probe_top1' in found:
        print(f'linear probe, top-1, regularization {found["regularization"]:<9g} {found["linear_probe_top1"]:.4f}')


def _strengths(text: str) -> tuple[float, ...]:
    try:
        found = tuple(map(float, text.split(',')))
    except ValueError:
        found = ()
    if not found or not all(1e-12 <= strength <= 1e12 for strength in found):
        raise argparse.ArgumentTypeError(f'{text[:40]!r} must be numbers in 1e-12..1e12 such as 0.001,0.01')
    return found
