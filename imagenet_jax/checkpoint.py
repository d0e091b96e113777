"""What is saved, which saves are kept, and how a damaged one is passed over.

    <run>/checkpoints/<step>/state       the TrainState, or variables alone, in Orbax's standard layout
    <run>/checkpoints/<step>/contents    JSON: shape, dtype and CRC-32 of every array of it, and a CRC-32 of that list
    <run>/checkpoints/<step>/evaluation  JSON: top-1 or mean average precision of this state, null where not evaluated;
                                         of its averaged weights too, where it has any; `pending` where a signal broke
                                         the evaluation off
    <run>/damaged_checkpoints/<step>     what could not be loaded, put aside
"""

import contextlib
import logging
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from jax.experimental import multihost_utils
from orbax.checkpoint import checkpoint_managers as policies

from imagenet_jax import contents, record, saved
from imagenet_jax.carry import carried
from imagenet_jax.errors import SaveError, UserError, beside, expanded, what_failed, writing
from imagenet_jax.options import chosen
from imagenet_jax.schedules import Watch
from imagenet_jax.state import TrainState

log = logging.getLogger(__name__)


class _Best(policies.PreservationPolicy):
    """Keeps the best by score. Orbax's own BestN knows only what the same process saved."""

    def __init__(self, score_of: dict[int, float]):
        self._score_of = score_of

    def should_preserve(self, checkpoints, *, context):
        del context
        scores = {c.step: (self._score_of[c.step], c.step) for c in checkpoints if c.step in self._score_of}
        best = max(scores, key=scores.get, default=None)
        return [c.step == best for c in checkpoints]


class Checkpoints:
    """Saves of one run: the latest two are kept, the best by score, and the one whose averaged weights are best.

    Args:
      workdir: the run's folder; its checkpoints/ is made where missing.

    Raises:
      UserError: there can be no such folder.
    """

    def __init__(self, workdir: Path):
        self._folder = Path(workdir).absolute() / 'checkpoints'
        self._under_way, self._failed = None, False
        self._open()

    def _open(self):
        with writing(self._folder):
            self._folder.mkdir(exist_ok=True)
        self._scores = {saved.RAW: {}, saved.AVERAGED: {}}
        # LatestN must stand beside: best alone would delete the point to resume from.
        keep = policies.AnyPreservationPolicy([policies.LatestN(2), *map(_Best, self._scores.values())])
        self._manager = saved.manager(self._folder, preservation_policy=keep, cleanup_tmp_directories=True)
        for name, score_of in saved.evaluated(self._manager).items():
            self._scores[name] |= score_of

    def save(self, state: TrainState, score: float | None = None, ema_score: float | None = None, *,
             pending: bool = False) -> None:
        """Copies the state and writes it in the background; a step that is already saved is left alone.

        Args:
          state: of the step.
          score: of its weights in evaluation, where it was evaluated.
          ema_score: of its averaged weights, where it has any.
          pending: whether its evaluation was broken off.

        Raises:
          UserError: it cannot be saved, or the state before could not be.
        """
        scores = {saved.RAW: score} | ({} if ema_score is None else {saved.AVERAGED: ema_score})
        self._save(int(state.step), state, scores, {'pending': True} if pending else {})

    def pending(self, step: int) -> bool:
        """Whether a step is saved whose evaluation is still to be made."""
        with contextlib.suppress(Exception):  # a damaged record says nothing, and is told of already
            return bool(saved.restore(self._manager, step, evaluation=ocp.args.JsonRestore()).get('pending'))
        return False

    def replace(self, state: TrainState, score: float, ema_score: float | None = None) -> None:
        """Saves a step anew, its evaluation made. Where this is cut short, the run goes on from the save before."""
        with self._saving(self._folder / str(int(state.step))):
            self._manager.delete(int(state.step))
        self.save(state, score, ema_score)

    def _save(self, step, state, scores, more):
        if step in self._manager.all_steps():
            return
        self.check(wait=True)
        for name, value in scores.items():
            self._scores[name] |= saved.comparable({step: value})
        self._under_way = self._folder / str(step)
        with self._saving(self._under_way):
            # The state is the next step's to write over, and its checksums take as long as a hundred steps may.
            copied = contents.copied(state) if jax.process_index() == 0 else {}
            self._manager.save(step, args=ocp.args.Composite(
                state=ocp.args.StandardSave(state),
                contents=saved.MadeLater(lambda: contents.sealed(contents.of(copied))),
                evaluation=ocp.args.JsonSave(scores | more)))

    @contextlib.contextmanager
    def _saving(self, path: Path) -> Iterator[None]:
        """Orbax raises many kinds of error where a disk is full or a folder is none."""
        try:
            yield
        except Exception as error:
            self._failed = True
            raise SaveError(f'cannot save {path}: {what_failed(error)}') from error

    def check(self, wait: bool = False) -> None:
        """Raises UserError where the save under way has failed by now, or, where that is waited for, does."""
        if self._under_way and (wait or not self._manager.is_saving_in_progress()):
            with self._saving(self._under_way):
                self._manager.wait_until_finished()
            self._under_way = None

    def restore(self, like: TrainState, beside: Callable) -> TrainState | None:
        """The newest state that loads and whose every byte is as saved; None where nothing was saved.

        Args:
          like: structure, shapes, dtypes and sharding expected, from `TrainStep.abstract`.
          beside: `TrainStep.beside`, for what options ask for that were others when it was saved.

        Raises:
          UserError: a checkpoint holds another model's arrays than `like`, or none of them loads.
        """
        steps = sorted(self._manager.all_steps(), reverse=True)
        if not steps:
            return None
        state, damaged = saved.first_that_loads(self._folder, steps, lambda step: self._load(step, like, beside))
        self._put_aside(damaged)
        return state

    def _load(self, step: int, like: TrainState, beside: Callable) -> TrainState:
        listed = saved.listed(self._manager, step)
        if {name: value[:2] for name, value in listed.items()} == contents.layout(like):
            state = saved.restore(self._manager, step, state=ocp.args.StandardRestore(like))
            contents.refuse_changed(state, listed)
        else:
            state = self._load_by_name(step, like, beside, listed)
        if state.step != step:  # a copy: the run would not save the steps up to it
            raise ValueError(f'it is of step {state.step}')
        return state

    def _load_by_name(self, step: int, like: TrainState, beside: Callable, listed: dict) -> TrainState:
        """A state that was saved under other options, or by version 0.1: that has seen no evaluation."""
        # A manager that has read a tree so would not save a state any more; and of what it is asked, Orbax warns.
        with saved.quiet(), saved.reader(self._folder) as reader:
            tree = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), reader.item_metadata(step).state)
            as_numpy = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), tree)
            state = saved.restore(reader, step, state=ocp.args.PyTreeRestore(tree, restore_args=as_numpy))
        found = contents.named(state)
        if found.keys() != listed.keys():
            raise ValueError('its arrays are not those of its list')
        contents.refuse_changed(state, listed)
        if 'updates' not in found:
            found = {record.upgrade_state(name): leaf for name, leaf in found.items()}
            found |= contents.named({'watch': Watch.start()})
        return carried(found, like, beside, str(self._folder / str(step)))

    def _put_aside(self, steps: list[int]) -> None:
        """Moves damaged saves out of the way of the steps that will be saved again."""
        if not steps:
            return
        self._manager.close()
        if jax.process_index() == 0:
            aside = self._folder.parent / 'damaged_checkpoints'
            with writing(aside / 'x'):
                for step in steps:
                    shutil.rmtree(aside / str(step), ignore_errors=True)
                    (self._folder / str(step)).rename(aside / str(step))
        if jax.process_count() > 1:
            multihost_utils.sync_global_devices('damaged checkpoints put aside')
        self._open()

    def close(self) -> None:
        """Waits for saves under way; raises UserError where one fails."""
        if not self._failed:  # else its threads may wait for each other for minutes
            self.check(wait=True)
            self._manager.close()


def save_variables(workdir: Path, variables: dict) -> None:
    """Makes checkpoint 0 of a folder from {'params', 'batch_stats'}: for `load_variables`, not to resume from."""
    with closing(Checkpoints(workdir)) as checkpoints:
        checkpoints._save(0, jax.tree.map(jnp.asarray, variables), {saved.RAW: None}, {})


def load_variables(workdir: Path, *, best: bool = False, ema: bool = False) -> tuple[dict, dict]:
    """The model and weights of any run's folder, or of one that weights were imported to. Changes nothing in it.

    Args:
      workdir: holds config.json and checkpoints/.
      best: the best by top-1 or mean average precision, of the weights that are asked for, where any was evaluated;
        else the newest. Either way the first of them that loads.
      ema: the running average instead of the raw weights.

    Returns:
      (options for `models.create`, {'params', 'batch_stats'} as numpy arrays).

    Raises:
      UserError: no such folder, no averaged weights in it, or no checkpoint that loads.
    """
    workdir = expanded(workdir).absolute()
    folder = workdir / 'checkpoints'
    entry = record.read(workdir) if os.path.isdir(folder) else None
    if entry is None or 'model' not in entry:
        raise UserError(f'{workdir} must be the folder of a run, with config.json and checkpoints/; of a file of '
                        'weights `weights import` makes one'
                        + ('' if os.path.exists(workdir) else f'; {beside(workdir)}'))
    with saved.reader(folder) as manager:
        score_of = _scores(manager, ema) if best else {}
        steps = sorted(manager.all_steps(), key=lambda step: (score_of.get(step, -1), step), reverse=True)
        if not steps:
            raise UserError(f'{folder} holds no finished checkpoint')
        variables, damaged = saved.first_that_loads(folder, steps, lambda step: _load_variables(manager, step, ema))
        log.info('%s: step %d%s', workdir, steps[len(damaged)], ', averaged weights' if ema else '')
    return chosen(entry['model']), variables


def _scores(manager, ema: bool) -> dict[int, float]:
    """Step -> score, of the averaged or the raw weights."""
    scores = saved.evaluated(manager)
    if ema and not scores[saved.AVERAGED] and scores[saved.RAW]:
        log.warning('%s has no scores of averaged weights, as runs of earlier versions: the best is that by its raw '
                    'weights', manager.directory)
        return scores[saved.RAW]
    return scores[saved.AVERAGED if ema else saved.RAW]


def _load_variables(manager, step, ema) -> dict:
    listed = saved.listed(manager, step)
    root = ('ema',) if ema else ()
    prefixes = tuple('/'.join([*root, collection, '']) for collection in ('params', 'batch_stats'))
    shapes = {name: jax.ShapeDtypeStruct(shape, dtype) for name, (shape, dtype, _) in listed.items()
              if name.startswith(prefixes)}
    if not shapes:
        raise UserError(f'{manager.directory / str(step)} holds no {"averaged weights" if ema else "parameters"}')
    target = flax.traverse_util.unflatten_dict(shapes, sep='/')
    as_numpy = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), target)
    wanted = ocp.args.PyTreeRestore(target, restore_args=as_numpy, partial_restore=True)
    state = saved.restore(manager, step, state=wanted)
    contents.refuse_changed(state, listed)
    return {'batch_stats': {}, **(state['ema'] if ema else state)}
