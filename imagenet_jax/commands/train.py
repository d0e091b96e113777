"""Trains and evaluates one model.

    python -m imagenet_jax train --config resnet50 --workdir runs/resnet50
    python -m imagenet_jax train --config resnet50:resnet101 \\
        --workdir runs/resnet101 --config.batch_size=512
    python -m imagenet_jax train --config resnet50 --help
    python -m imagenet_jax train --model resnet18 --data DIR \\
        --workdir runs/mine

In a checkout, python main.py is the same.

  --config FILE        the recipe, or its name; FILE:MODEL another model of it
  --config.NAME=VALUE  changes one option of it; None unsets it, and the default
                       of what reads it holds
  --model NAME         trains this model without a recipe: on the images of
  --data DIR           this folder, whose layout and classes are looked at
  --workdir DIR        the run's folder; the same command again goes on from
                       the newest checkpoint in it
  --version            prints the version

Leaves with 0; 1 after an error, which it explains; 143, 129 or 130 when
SIGTERM, SIGHUP or Ctrl-C stopped it and the run was saved; 75 where another
host was lost. SIGUSR1 saves and goes on.
"""

import shlex
import signal
import sys
from typing import NoReturn

from absl import flags

import imagenet_jax
from imagenet_jax.command_line import recipes, running, without_recipe
from imagenet_jax.errors import Stopped, UserError

_WORKDIR = flags.DEFINE_string('workdir', None, "the run's folder")
_MODEL = flags.DEFINE_string('model', None, 'the model to train without a recipe')
_DATA = flags.DEFINE_string('data', None, 'its images')
_VERSION = flags.DEFINE_bool('version', False, 'print the version')


def main() -> NoReturn:
    """The whole command."""
    recipes.run(_run, __doc__, without_recipe.with_config)


def _run(argv: list[str]) -> None:
    # Schedulers send it so that a run saves: before there is anything to save, and after the end, it is nothing.
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    if _VERSION.value:
        print(f'imagenet_jax {imagenet_jax.__version__}')
        return
    config = recipes.config(argv)
    if not _WORKDIR.value and not config.dry_run:
        raise UserError('where should the run go? Give --workdir, such as --workdir runs/resnet50')
    if _MODEL.value:
        without_recipe.look_at_data(config, _DATA.value, recipes.given())
    # JAX takes seconds to import, for which neither help nor a refusal waits.
    with running.importing():
        from imagenet_jax.metrics.beginning import Beginning
        from imagenet_jax.train import train_and_evaluate
    beginning = Beginning.of_process()
    beginning.done('imports')
    try:
        result = train_and_evaluate(config, _WORKDIR.value or '', beginning)
    except Stopped as stopped:
        print(f'stopped by {stopped}' + ('' if config.dry_run else f' and saved; this goes on from there:\n    '
                                         f'{shlex.join(sys.orig_argv)}'))
        raise
    if config.dry_run:
        print('dry run: build, one step, one evaluation step and one save went through; nothing is written')
    else:
        print('\n'.join([*(f'done: {line}' for line in result.lines()), f'numbers: {_WORKDIR.value}/metrics.jsonl',
                         f'curves: tensorboard --logdir {shlex.quote(_WORKDIR.value)}']))
