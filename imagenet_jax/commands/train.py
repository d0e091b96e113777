"""train: flags, exit codes, and messages around `train.train_and_evaluate`."""

import importlib.util
import logging
import os
import re
import shlex
import sys

from absl import app, flags
from absl import logging as absl_logging
from ml_collections import config_flags

import imagenet_jax
from imagenet_jax import record, runtime
from imagenet_jax.errors import UserError, unknown
from imagenet_jax.train import train_and_evaluate

_CONFIG = config_flags.DEFINE_config_file(
    'config', None, 'Recipe, such as configs/resnet50.py; any option of it is overridden as --config.batch_size=512. '
    'configs/common.py lists the options.', lock_config=True)
_WORKDIR = flags.DEFINE_string('workdir', None, "The run's folder; the same command again goes on from what it holds.")
_VERSION = flags.DEFINE_bool('version', False, 'Print the version and leave.')


def main(argv: list[str] | None = None) -> None:
    """The whole command; leaves with 0, 1 (an error, explained), 130 or 143 (stopped by a signal, saved)."""
    app.run(_run, argv=argv or sys.argv, flags_parser=_parse)


def _parse(argv: list[str]) -> list[str]:
    """Flags, or one clear line."""
    sys.path.insert(0, os.getcwd())  # recipes import their neighbours
    try:
        return app.parse_flags_with_usage(argv)
    except (AttributeError, KeyError) as error:  # ml_collections: no such option
        sys.exit(f'error: {_misspelt(argv) or error}')
    except (TypeError, ValueError, OSError) as error:
        sys.exit(f'error: {error}')


def _misspelt(argv: list[str]) -> UserError | None:
    """The error for the first --config.NAME that the config file does not have."""
    path = flags.FLAGS['config'].config_filename if flags.FLAGS['config'].present else ''
    if not path or not os.path.exists(path):
        return None
    spec = importlib.util.spec_from_file_location('misspelt', path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    known = record.flatten(module.get_config())
    for name in re.findall(r'^--?config\.([\w.]+)', '\n'.join(argv), re.MULTILINE):
        if name not in known:
            return unknown('option', f'config.{name}', [f'config.{k}' for k in known])
    return None


def _run(argv: list[str]) -> None:
    if _VERSION.value:
        print(f'imagenet_jax {imagenet_jax.__version__}')
        return
    _log_to_stderr()
    try:
        if len(argv) > 1:
            raise UserError(f'not a flag: {shlex.join(argv[1:])}; options are given as --config.NAME=VALUE')
        if not flags.FLAGS['config'].present:
            raise UserError('which recipe? Give --config, such as --config configs/resnet50.py')
        config = _CONFIG.value
        if not _WORKDIR.value and not config.dry_run:
            raise UserError('where should the run go? Give --workdir, such as --workdir runs/resnet50')
        result = train_and_evaluate(config, _WORKDIR.value or '')
    except UserError as error:
        sys.exit(f'error: {error}')
    except runtime.Stopped as stopped:
        print(f'stopped by {stopped} and saved; this goes on from there:\n    {shlex.join(["python", *sys.argv])}')
        sys.exit(stopped.exit_code)
    except KeyboardInterrupt:
        sys.exit(130)
    if config.dry_run:
        print('dry run: build, one step, one evaluation step and one save went through; nothing is written')
    else:
        shown = '  '.join(f'{name.removeprefix("eval/")} {value:.4f}' for name, value in result.items())
        print(f'done: {shown or "no evaluation in this start"}\n'
              f'numbers in {_WORKDIR.value}/metrics.jsonl, curves: tensorboard --logdir {_WORKDIR.value}')


def _log_to_stderr() -> None:
    if not flags.FLAGS['verbosity'].present:
        absl_logging.set_verbosity(absl_logging.WARNING)  # Orbax narrates every save
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter('%(asctime)s %(message)s', '%H:%M:%S'))
    ours = logging.getLogger('imagenet_jax')
    ours.addHandler(handler)
    ours.setLevel(logging.INFO)
    ours.propagate = False
