"""How fast models are: images a second, in inference and in training, on all devices of this machine.

    python -m imagenet_jax benchmark resnet50
    python -m imagenet_jax benchmark 'resnet*' vgg16 --inference --batch-size auto --dtype bfloat16 --csv speed.csv
    python -m imagenet_jax benchmark --config configs/resnet_strikes_back.py --train --batch-size 512

Images are drawn on the devices beforehand. Inference is uint8 images to logits, training the whole update: that of
--config RECIPE, with its optimizer, averages, mixing and erasing, or where none is given that of `train --model NAME`.
After a warm-up, steps are timed for --seconds in blocks, each from its first start to its last end; what is told is the
median block. --batch-size auto takes the largest batch that fits, up to 16,384 images a device.

planned: GB on a device that the compiled step takes; peak: the device's own highest mark, where it tells and no earlier
step was higher. --csv FILE and --json have timm's names: infer_samples_per_sec, train_step_time (ms), infer_gmacs and
so on. A model that fails is named and skipped, and the command leaves with 1.
"""

import argparse
import json
import logging
import sys

from tqdm import tqdm

from imagenet_jax import catalog
from imagenet_jax.command_line import parsing, recipes, running, without_recipe
from imagenet_jax.errors import UserError, first_line
from imagenet_jax.options import key_value
from imagenet_jax.terminal import logs_above_bars
from imagenet_jax.use.rows import ResultsFile, aligned

log = logging.getLogger(__name__)

_MEASURES = ('samples_per_sec', 'step_time', 'batch_size', 'img_size', 'step_time_min', 'step_time_max', 'compile_s',
             'planned_gb', 'peak_gb')
COLUMNS = ('model', *(f'infer_{name}' for name in _MEASURES), 'infer_gmacs',
           *(f'train_{name}' for name in _MEASURES), 'param_count', 'dtype', 'config', 'option', 'device', 'devices',
           'jax')
TEXTS = ('model', 'dtype', 'config', 'option', 'device', 'jax')


def main() -> int:
    """The whole command."""
    arguments = _parser().parse_args()
    if not (arguments.names or arguments.config):
        raise UserError("which models? Name them, such as resnet50 or 'resnet*', or give --config")
    names = catalog.matching(arguments.names) if arguments.names else [None]
    configs = [_config(name, arguments) for name in names]
    logging.getLogger('imagenet_jax').setLevel(logging.WARNING)  # what a run says of its start is not so here
    log.setLevel(logging.INFO)
    file, rows, failed = ResultsFile(arguments.csv, COLUMNS, TEXTS), [], {}
    with logs_above_bars():
        for config in tqdm(configs, unit='model', disable=None):
            row, why = _measure(config, arguments)
            if row.keys() & {'infer_batch_size', 'train_batch_size'}:
                rows.append({column: row.get(column) for column in COLUMNS})
                file.add(rows[-1])
            if why:
                failed[config['model']['name']] = why
                log.error('%s is skipped: %s', config['model']['name'], why)
    if arguments.json:
        print(json.dumps({'results': rows, 'failed': failed}, indent=2))
    elif rows:
        print(_text(rows))
    if failed:
        print(f'error: {len(failed)} of {len(configs)} failed: {", ".join(failed)}', file=sys.stderr)
    return int(bool(failed))


def _parser() -> argparse.ArgumentParser:
    parser = parsing.parser('benchmark', __doc__)
    parser.add_argument('names', metavar='NAME', nargs='*', help="models, or patterns of them such as 'resnet*'")
    parser.add_argument('--config', metavar='RECIPE', help='whose training it is, as of `train`; its model where none '
                        'is named')
    parser.add_argument('--option', metavar='KEY=VALUE', action='append', default=[],
                        help='an option of the models, as config.model.KEY; may be given again')
    parser.add_argument('--batch-size', metavar='N', type=_batch, default=64,
                        help='on all devices together, default %(default)s; or auto')
    parser.add_argument('--size', metavar='N', type=parsing.side,
                        help="side of the images; default: the model's own, or the recipe's")
    parser.add_argument('--dtype', choices=('bfloat16', 'float16', 'float32'),
                        help='default: float32 on a CPU, else bfloat16')
    which = parser.add_mutually_exclusive_group()
    which.add_argument('--inference', dest='kinds', action='store_const', const=('infer',), help='this alone')
    which.add_argument('--train', dest='kinds', action='store_const', const=('train',), help='this alone')
    parser.set_defaults(kinds=('infer', 'train'))
    parser.add_argument('--seconds', metavar='S', type=_seconds, default=5.0,
                        help='of timed steps, for each model in each mode; default %(default)s')
    parser.add_argument('--csv', metavar='FILE', type=parsing.path, help='a row for each model is added to it')
    parser.add_argument('--json', action='store_true', help='print it as JSON')
    return parser


def _batch(text: str) -> int | None:
    return None if text == 'auto' else parsing.whole(1, 2**20, "must be 'auto' or")(text)


def _seconds(text: str) -> float:
    try:
        if 0 <= float(text) <= 86_400:
            return float(text)
    except ValueError:
        pass
    raise argparse.ArgumentTypeError(f'{text[:40]!r} must be a number of seconds, at most a day')


def _measure(config: dict, arguments) -> tuple[dict, str]:
    """(the row of a model, as far as it came; why it came no further, or '')."""
    with running.importing():  # JAX too, for which help does not wait
        from imagenet_jax.use import benchmark, workloads
    name, row, kind = config['model']['name'], {}, ''
    try:
        model, *works = workloads.works(config, size=arguments.size)
        row = benchmark.about(model, works[0].size) | {
            'model': name, 'config': arguments.config or '', 'option': ' '.join(arguments.option)}
        for work in works:
            if work.name in arguments.kinds:
                kind = work.name
                row |= benchmark.run(work, arguments.batch_size, arguments.seconds)
                log.info('%s, %s: %s images/s', name, kind, f'{row[f"{kind}_samples_per_sec"]:,.1f}')
    except (UserError, RuntimeError) as error:  # XLA's are of the latter kind
        return row, f'{kind}{kind and ": "}{first_line(error)}'
    return row, ''


def _config(name: str | None, arguments) -> dict:
    if arguments.config:
        config = recipes.make(arguments.config, [f'--config.model.name={name}'] if name else []).to_dict()
    else:
        config = without_recipe.get_config(name).to_dict()
        config['model']['num_classes'] = None  # the model's own: no data says how many
    config['model'] |= dict(map(key_value, arguments.option)) | ({'dtype': arguments.dtype} if arguments.dtype else {})
    return config


def _text(rows) -> str:
    def fixed(value, digits):
        return '' if value is None else f'{value:,.{digits}f}'
    titles = ('model', 'mode', 'batch', 'size', 'images/s', 'ms/step', 'compile s', 'planned', 'peak')
    lines = [(row['model'], kind, str(row[f'{kind}_batch_size']), str(row[f'{kind}_img_size']),
              fixed(row[f'{kind}_samples_per_sec'], 1), fixed(row[f'{kind}_step_time'], 2),
              fixed(row[f'{kind}_compile_s'], 1), fixed(row[f'{kind}_planned_gb'], 2), fixed(row[f'{kind}_peak_gb'], 2))
             for row in rows for kind in ('infer', 'train') if row[f'{kind}_batch_size']]
    return (f'{rows[0]["devices"]} x {rows[0]["device"]}, {rows[0]["dtype"]}, jax {rows[0]["jax"]}; memory in GB\n'
            + aligned(titles, lines, texts=2))
