"""Trains and evaluates one model.

    python main.py --config configs/resnet50.py --workdir runs/resnet50
    python main.py --config configs/resnet50.py --workdir runs/resnet50 --config.batch_size=512
    python main.py --config configs/resnet50.py --help

  --config FILE        the recipe
  --config.NAME=VALUE  changes one option of it
  --workdir DIR        the run's folder; the same command again goes on from the newest checkpoint in it
  --version            prints the version

Leaves with 0; 1 after an error, which it explains; 143 or 130 when SIGTERM or Ctrl-C stopped it and the run was saved.
"""

import importlib.util
import logging
import os
import re
import shlex
import sys
from pathlib import Path

from absl import app, flags
from absl import logging as absl_logging
from ml_collections import ConfigDict, config_flags

import imagenet_jax
from imagenet_jax import record, runtime
from imagenet_jax.errors import UserError, unknown
from imagenet_jax.train import train_and_evaluate

_CONFIG = config_flags.DEFINE_config_file('config', None, 'the recipe', lock_config=True)
_WORKDIR = flags.DEFINE_string('workdir', None, "the run's folder")
_VERSION = flags.DEFINE_bool('version', False, 'print the version')


def main() -> None:
    """The whole command, on sys.argv."""
    app.run(_run, flags_parser=_parse)


def _parse(argv: list[str]) -> list[str]:
    """Flags; what is wrong with them is said in one line."""
    sys.path.insert(0, os.getcwd())  # recipes import their neighbours
    try:
        recipe = _recipe(argv)
        if any(arg in ('-h', '-help', '--help') for arg in argv):
            _help(recipe)
        return app.parse_flags_with_usage(argv)
    except UserError as error:
        sys.exit(f'error: {error}')
    except (TypeError, ValueError) as error:
        sys.exit(f'error: {error}')


def _recipe(argv: list[str]) -> ConfigDict | None:
    """The config as its file has it; None where the command names none.

    Raises:
      UserError: no such file, or a --config.NAME that it does not have.
    """
    named = re.search(r'^--?config[=\n](.+)', '\n'.join(argv), re.MULTILINE)
    if not named:
        return None
    path = Path(named[1].split(':')[0])
    if not path.is_file():
        raise unknown('recipe', str(path), sorted(map(str, path.parent.glob('*.py'))))
    spec = importlib.util.spec_from_file_location('recipe', path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    recipe = module.get_config(*named[1].split(':')[1:])
    known = [f'config.{name}' for name in record.flatten(recipe.to_dict())]
    for name in re.findall(r'^--?(?:no)?(config\.[\w.]+)', '\n'.join(argv), re.MULTILINE):
        if name not in known:
            raise unknown('option', name, known)
    return recipe


def _help(recipe: ConfigDict | None) -> None:
    print(__doc__)
    if recipe is None:
        print('Give --config too for a list of its options. configs/common.py says what each means.')
    else:
        print('Options of this recipe (configs/common.py says what each means):\n')
        print('\n'.join(f'  --config.{name}={value}' for name, value in record.flatten(recipe.to_dict()).items()))
    sys.exit(0)


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
        leave = f'error: {error}'
    except runtime.Stopped as stopped:
        print(f'stopped by {stopped} and saved; this goes on from there:\n    {shlex.join(["python", *sys.argv])}')
        leave = stopped.exit_code
    except KeyboardInterrupt:
        leave = 130
    else:
        leave = 0
    if leave:  # out of the except clauses, whose tracebacks would keep batches in shared memory alive to the end
        sys.exit(leave)
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
