"""Trains and evaluates one model.

    python main.py --config configs/resnet50.py --workdir runs/resnet50
    python main.py --config configs/resnet50.py:resnet101 --workdir runs/resnet101 --config.batch_size=512
    python main.py --config configs/resnet50.py --help

  --config FILE        the recipe; FILE:MODEL another model of it
  --config.NAME=VALUE  changes one option of it; None unsets it, and the default of what reads it holds
  --workdir DIR        the run's folder; the same command again goes on from the newest checkpoint in it
  --version            prints the version

Leaves with 0; 1 after an error, which it explains; 143, 129 or 130 when SIGTERM, SIGHUP or Ctrl-C stopped it and the
run was saved; 75 where another host was lost. SIGUSR1 saves and goes on.
"""

import shlex
import sys
from typing import NoReturn

from absl import flags

import imagenet_jax
from imagenet_jax.command_line import recipes, running
from imagenet_jax.errors import Stopped, UserError

_WORKDIR = flags.DEFINE_string('workdir', None, "the run's folder")
_VERSION = flags.DEFINE_bool('version', False, 'print the version')


def main() -> NoReturn:
    """The whole command."""
    recipes.run(_run, __doc__)


def _run(argv: list[str]) -> None:
    if _VERSION.value:
        print(f'imagenet_jax {imagenet_jax.__version__}')
        return
    config = recipes.config(argv)
    if not _WORKDIR.value and not config.dry_run:
        raise UserError('where should the run go? Give --workdir, such as --workdir runs/resnet50')
    # JAX takes seconds to import, for which neither help nor a refusal waits.
    with running.importing():
        from imagenet_jax.train import train_and_evaluate
    try:
        result = train_and_evaluate(config, _WORKDIR.value or '')
    except Stopped as stopped:
        print(f'stopped by {stopped}' + ('' if config.dry_run else f' and saved; this goes on from there:\n    '
                                         f'{shlex.join(sys.orig_argv)}'))
        raise
    if config.dry_run:
        print('dry run: build, one step, one evaluation step and one save went through; nothing is written')
    else:
        shown = '  '.join(f'{name.removeprefix("eval/")} {value:.4f}' for name, value in result.items())
        print(f'done: {shown or "no evaluation in this start"}\n'
              f'numbers in {_WORKDIR.value}/metrics.jsonl, curves: tensorboard --logdir {_WORKDIR.value}')
