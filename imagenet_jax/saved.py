"""Checkpoints as they lie on disk, read: what is in one, what it scored, and which is the first that loads."""

import contextlib
import dataclasses
import json
import logging
import math
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from pathlib import Path

import jax
import orbax.checkpoint as ocp
from absl import logging as absl_logging

from imagenet_jax import contents
from imagenet_jax.errors import UserError, first_line, what_failed

log = logging.getLogger(__name__)

ITEMS = ('state', 'contents', 'evaluation')
# Whose score it is -> its name in `evaluation`.
RAW, AVERAGED = 'score', 'ema_score'


class _MadeLater(ocp.JsonCheckpointHandler):
    """Writes what `MadeLater` makes, in the thread that writes."""

    async def async_save(self, directory, item=None, args=None):
        del item

        async def write():
            if jax.process_index() == 0:
                (directory / 'metadata').write_text(json.dumps(args.make()))
        return [ocp.future.CommitFutureAwaitingContractedSignals(write(), name='made later')]


@ocp.args.register_with_handler(_MadeLater, for_save=True, for_restore=True)
@dataclasses.dataclass
class MadeLater(ocp.args.CheckpointArgs):
    """JSON that `make` answers, where it is to be written: in a thread, and in the first process alone. To read it too,
    with nothing to make: Orbax takes one handler for an item."""
    make: Callable[[], dict] | None = None


def reader(folder: Path) -> closing:
    """Only a reader: whoever trains there may be in the middle of a save. Raises as `manager`."""
    return closing(manager(folder, read_only=True, create=False, save_interval_steps=0))


def manager(folder: Path, **options) -> ocp.CheckpointManager:
    """Orbax's, of a run's checkpoints. Raises UserError where it takes offence at what lies there."""
    # Not with all steps' _CHECKPOINT_METADATA, of which nothing is needed and a damaged one would stop it.
    options = ocp.CheckpointManagerOptions(lightweight_initialize=True, **options)
    try:
        with quiet():  # to read only is no reason to warn
            return ocp.CheckpointManager(folder, options=options, item_names=ITEMS)
    except Exception as error:
        raise UserError(f'cannot open {folder}: {what_failed(error)}') from error


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Without what Orbax warns of."""
    verbosity = absl_logging.get_verbosity()
    absl_logging.set_verbosity(min(verbosity, absl_logging.ERROR))
    try:
        with warnings.catch_warnings(action='ignore'):
            yield
    finally:
        absl_logging.set_verbosity(verbosity)


def restore(manager, step, **item):
    """One item of a checkpoint, given as its name and Orbax's arguments; raises whatever Orbax does."""
    (name,) = item
    return manager.restore(step, args=ocp.args.Composite(**item))[name]


def listed(manager, step) -> dict[str, list]:
    """Its list of arrays; raises ValueError, or whatever Orbax does, where that is not as it was saved."""
    return contents.opened(restore(manager, step, contents=MadeLater()))


def evaluated(manager) -> dict[str, dict[int, float]]:
    """Step -> score, of the raw weights and of the averaged: of steps that were evaluated and whose record of it can be
    read."""
    found = {RAW: {}, AVERAGED: {}}
    for step in manager.all_steps():
        try:
            evaluation = restore(manager, step, evaluation=ocp.args.JsonRestore())
            scores = {RAW: evaluation.get('top1')} | evaluation  # its earlier name
            for name, score_of in found.items():
                score_of |= comparable({step: scores.get(name)})
        except Exception as error:  # no reason to stop a run; damage takes as many forms as that of arrays
            log.warning('%s: its score cannot be read: %s', manager.directory / str(step), type(error).__name__)
    return found


def comparable(score_of: dict[int, float | None]) -> dict[int, float]:
    """Those of the scores that are finite numbers; raises TypeError where one is none."""
    return {step: score for step, score in score_of.items() if score is not None and math.isfinite(score)}


def first_that_loads(folder: Path, steps: Iterable[int], load: Callable) -> tuple:
    """(what was loaded, the steps before it that do not load); raises UserError where none does."""
    damaged = []
    for step in steps:
        try:
            return load(step), damaged
        except UserError:
            raise
        except Exception as error:  # damage shows as ValueError, KeyError, OSError, JSON and zip errors, ...
            log.warning('checkpoint %s does not load and is passed over: %s: %s', folder / str(step),
                        type(error).__name__, first_line(error))
            damaged.append(step)
    raise UserError(f'none of the checkpoints in {folder} loads ({", ".join(map(str, damaged))}); '
                    'restore one from a backup, or train in another workdir')
