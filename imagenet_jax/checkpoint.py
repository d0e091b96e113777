"""What is saved, which saves are kept, and how a damaged one is passed over.

    <run>/checkpoints/<step>/state       the TrainState, in Orbax's standard layout
    <run>/checkpoints/<step>/contents    JSON: shape, dtype and CRC-32 of every array of it
    <run>/checkpoints/<step>/evaluation  JSON: top-1 of this state, null where it was not evaluated
    <run>/damaged_checkpoints/<step>     what could not be loaded, put aside
"""

import logging
import shutil
import zlib
from pathlib import Path

import jax
import numpy as np
import orbax.checkpoint as ocp
from jax.experimental import multihost_utils
from orbax.checkpoint import checkpoint_managers as policies

from imagenet_jax.errors import UserError
from imagenet_jax.step import TrainState

log = logging.getLogger(__name__)

_ITEMS = ('state', 'contents', 'evaluation')


class _Best(policies.PreservationPolicy):
    """Keeps the best by top-1. Orbax's own BestN knows only what the same process saved."""

    def __init__(self, top1: dict[int, float]):
        self._top1 = top1

    def should_preserve(self, checkpoints, *, context):
        del context
        scores = {c.step: (self._top1[c.step], c.step) for c in checkpoints if c.step in self._top1}
        best = max(scores, key=scores.get, default=None)
        return [c.step == best for c in checkpoints]


class Checkpoints:
    """Saves of one run: the latest two and the best by top-1 are kept.

    Args:
      workdir: the run's folder; its checkpoints/ is made where missing.
    """

    def __init__(self, workdir: Path):
        self._folder = Path(workdir).absolute() / 'checkpoints'
        self._open()

    def _open(self):
        self._top1 = {}
        # LatestN must stand beside: best alone would delete the point to resume from.
        keep = policies.AnyPreservationPolicy([policies.LatestN(2), _Best(self._top1)])
        options = ocp.CheckpointManagerOptions(preservation_policy=keep, cleanup_tmp_directories=True)
        self._manager = ocp.CheckpointManager(self._folder, options=options, item_names=_ITEMS)
        self._top1 |= _evaluated(self._manager)

    def save(self, state: TrainState, top1: float | None = None) -> None:
        """Copies the state and writes it in the background; a step that is already saved is left alone."""
        step = int(state.step)
        if step in self._manager.all_steps():
            return
        if top1 is not None:
            self._top1[step] = top1
        self._manager.save(step, args=ocp.args.Composite(
            state=ocp.args.StandardSave(state), contents=ocp.args.JsonSave(_contents(state)),
            evaluation=ocp.args.JsonSave({'top1': top1})))

    def restore(self, like: TrainState) -> TrainState | None:
        """The newest state that loads and whose every byte is as saved; None where nothing was saved.

        Args:
          like: structure, shapes, dtypes and sharding expected, from `step.abstract_state`.

        Raises:
          UserError: a checkpoint holds other arrays than `like`, or none of them loads.
        """
        steps = sorted(self._manager.all_steps(), reverse=True)
        damaged = []
        for step in steps:
            try:
                state = self._load(step, like)
            except UserError:
                raise
            except Exception as error:  # damage shows as ValueError, KeyError, OSError, JSON and zip errors, ...
                reason = (str(error).splitlines() or [''])[0][:300]
                log.warning('checkpoint %s does not load and is passed over: %s: %s', self._folder / str(step),
                                type(error).__name__, reason)
                damaged.append(step)
            else:
                self._put_aside(damaged)
                return state
        if damaged:
            raise UserError(f'none of the checkpoints in {self._folder} loads ({", ".join(map(str, damaged))}); '
                            'restore one from a backup, or train in another workdir')
        return None

    def _load(self, step: int, like: TrainState) -> TrainState:
        contents = _restore(self._manager, step, contents=ocp.args.JsonRestore())
        _refuse_other_arrays(self._folder / str(step), contents, _layout(like))
        state = _restore(self._manager, step, state=ocp.args.StandardRestore(like))
        wrong = [name for name, value in _contents(state).items() if value != contents[name]]
        if wrong:
            raise ValueError(f'{len(wrong)} arrays differ from what was saved, the first {wrong[0]}')
        return state

    def _put_aside(self, steps: list[int]) -> None:
        """Moves damaged saves out of the way of the steps that will be saved again."""
        if not steps:
            return
        self._manager.close()
        if jax.process_index() == 0:
            aside = self._folder.parent / 'damaged_checkpoints'
            aside.mkdir(exist_ok=True)
            for step in steps:
                shutil.rmtree(aside / str(step), ignore_errors=True)
                (self._folder / str(step)).rename(aside / str(step))
        if jax.process_count() > 1:
            multihost_utils.sync_global_devices('damaged checkpoints put aside')
        self._open()

    def close(self) -> None:
        """Waits for saves under way."""
        self._manager.wait_until_finished()
        self._manager.close()


def _restore(manager, step, **item):
    (name,) = item
    return manager.restore(step, args=ocp.args.Composite(**item))[name]


def _evaluated(manager) -> dict[int, float]:
    """Step -> top-1, of the steps that were evaluated and whose record of it can be read."""
    found = {}
    for step in manager.all_steps():
        try:
            found[step] = _restore(manager, step, evaluation=ocp.args.JsonRestore())['top1']
        except Exception as error:  # no reason to stop a run; damage takes as many forms as that of arrays
            log.warning('%s: its top-1 cannot be read: %s', manager.directory / str(step), type(error).__name__)
    return {step: top1 for step, top1 in found.items() if top1 is not None}


def _named(state) -> dict[str, jax.Array]:
    return {jax.tree_util.keystr(path, simple=True, separator='/'): leaf
            for path, leaf in jax.tree_util.tree_leaves_with_path(state)}


def _layout(state) -> dict[str, list]:
    return {name: [list(leaf.shape), str(leaf.dtype)] for name, leaf in _named(state).items()}


def _contents(state) -> dict[str, list]:
    """Array name -> [shape, dtype, CRC-32]. The file format's own checks do not cover array bytes."""
    layout = _layout(state)
    for name, leaf in _named(state).items():
        layout[name].append(zlib.crc32(np.ascontiguousarray(leaf.addressable_data(0))))
    return layout


def _refuse_other_arrays(folder, contents, expected) -> None:
    saved = {name: value[:2] for name, value in contents.items()}
    if saved == expected:
        return
    lines = [f'  {name}: saved {saved.get(name, "absent")}, this run {expected.get(name, "absent")}'
             for name in sorted(saved.keys() | expected.keys()) if saved.get(name) != expected.get(name)]
    more = [f'  and {len(lines) - 10} more'] if len(lines) > 10 else []
    raise UserError('\n'.join([f'{folder} holds other arrays than this config makes:', *lines[:10], *more]))
