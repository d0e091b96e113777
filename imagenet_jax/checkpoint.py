"""What is saved, which saves are kept, and how a damaged one is passed over.

    <run>/checkpoints/<step>/state       the TrainState, or variables alone, in Orbax's standard layout
    <run>/checkpoints/<step>/contents    JSON: shape, dtype and CRC-32 of every array of it, and a CRC-32 of that list
    <run>/checkpoints/<step>/evaluation  JSON: top-1 or mean average precision of this state, null where not evaluated,
                                         `pending` where a signal broke the evaluation off
    <run>/damaged_checkpoints/<step>     what could not be loaded, put aside
"""

import contextlib
import json
import logging
import shutil
import warnings
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from pathlib import Path

import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from absl import logging as absl_logging
from jax.experimental import multihost_utils
from orbax.checkpoint import checkpoint_managers as policies

from imagenet_jax import record
from imagenet_jax.errors import UserError, first_line
from imagenet_jax.optim import path_name
from imagenet_jax.options import chosen
from imagenet_jax.schedules import Watch
from imagenet_jax.state import TrainState

log = logging.getLogger(__name__)

_ITEMS = ('state', 'contents', 'evaluation')
_SEAL = 'crc32'  # in `contents`, beside the names of arrays: of the list itself
# Part of the state -> the options that decide which arrays it has.
_DECIDES = {'params': 'model', 'batch_stats': 'model', 'opt_state': 'optimizer', 'ema': 'ema_decay',
            'slow': 'lookahead.steps'}


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
    """Saves of one run: the latest two and the best by score are kept.

    Args:
      workdir: the run's folder; its checkpoints/ is made where missing.
    """

    def __init__(self, workdir: Path):
        self._folder = Path(workdir).absolute() / 'checkpoints'
        self._open()

    def _open(self):
        self._score_of = {}
        # LatestN must stand beside: best alone would delete the point to resume from.
        keep = policies.AnyPreservationPolicy([policies.LatestN(2), _Best(self._score_of)])
        options = ocp.CheckpointManagerOptions(preservation_policy=keep, cleanup_tmp_directories=True)
        self._manager = ocp.CheckpointManager(self._folder, options=options, item_names=_ITEMS)
        self._score_of |= _evaluated(self._manager)

    def save(self, state: TrainState, score: float | None = None, pending: bool = False) -> None:
        """Copies the state and writes it in the background; a step that is already saved is left alone. `pending`: its
        evaluation was broken off."""
        self._save(int(state.step), state, score, pending)

    def pending(self, step: int) -> bool:
        """Whether a step is saved whose evaluation is still to be made."""
        with contextlib.suppress(Exception):  # a damaged record says nothing, and is told of already
            return bool(_restore(self._manager, step, evaluation=ocp.args.JsonRestore()).get('pending'))
        return False

    def replace(self, state: TrainState, score: float) -> None:
        """Saves a step anew, its evaluation made. Where this is cut short, the run goes on from the save before."""
        self._manager.delete(int(state.step))
        self.save(state, score)

    def _save(self, step, state, score=None, pending=False):
        if step in self._manager.all_steps():
            return
        if score is not None:
            self._score_of[step] = score
        self._manager.save(step, args=ocp.args.Composite(
            state=ocp.args.StandardSave(state), contents=ocp.args.JsonSave(_sealed(_contents(state))),
            evaluation=ocp.args.JsonSave({'score': score} | ({'pending': True} if pending else {}))))

    def restore(self, like: TrainState) -> TrainState | None:
        """The newest state that loads and whose every byte is as saved; None where nothing was saved.

        Args:
          like: structure, shapes, dtypes and sharding expected, from `TrainStep.abstract`.

        Raises:
          UserError: a checkpoint holds other arrays than `like`, or none of them loads.
        """
        steps = sorted(self._manager.all_steps(), reverse=True)
        if not steps:
            return None
        state, damaged = _first_that_loads(self._folder, steps, lambda step: self._load(step, like))
        self._put_aside(damaged)
        return state

    def _load(self, step: int, like: TrainState) -> TrainState:
        contents = _read_contents(self._manager, step)
        if 'updates' not in contents:
            return self._load_earlier(step, like, contents)
        _refuse_other_arrays(self._folder / str(step), contents, _layout(like))
        state = _restore(self._manager, step, state=ocp.args.StandardRestore(like))
        _refuse_changed(state, contents)
        return state

    def _load_earlier(self, step: int, like: TrainState, contents: dict) -> TrainState:
        """A state of version 0.1: its arrays under today's names, and a watch that has seen no evaluation."""
        # A manager that has read a tree so would not save a state any more; and of what it is asked, Orbax warns.
        with _quiet(), _reader(self._folder) as reader:
            saved = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), reader.item_metadata(step).state)
            as_numpy = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), saved)
            state = _restore(reader, step, state=ocp.args.PyTreeRestore(saved, restore_args=as_numpy))
        _refuse_changed(state, contents)
        found = {record.upgrade_state(name): leaf for name, leaf in _named(state).items()}
        found |= _named({'watch': Watch.start()})
        _refuse_other_arrays(self._folder / str(step), _layout(found), _layout(like))
        return jax.tree.map_with_path(lambda path, x: jax.device_put(found[path_name(path)], x.sharding), like)

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


def save_variables(workdir: Path, variables: dict) -> None:
    """Makes checkpoint 0 of a folder from {'params', 'batch_stats'}: for `load_variables`, not to resume from."""
    with closing(Checkpoints(workdir)) as checkpoints:
        checkpoints._save(0, jax.tree.map(jnp.asarray, variables))


def load_variables(workdir: Path, *, best: bool = False, ema: bool = False) -> tuple[dict, dict]:
    """The model and weights of any run's folder, or of one that weights were imported to. Changes nothing in it.

    Args:
      workdir: holds config.json and checkpoints/.
      best: the best by top-1 or mean average precision, where any was evaluated; else the newest. Either way the first
        of them that loads.
      ema: the running average instead of the raw weights.

    Returns:
      (options for `models.create`, {'params', 'batch_stats'} as numpy arrays).

    Raises:
      UserError: no such folder, no averaged weights in it, or no checkpoint that loads.
    """
    workdir = Path(workdir).absolute()
    entry, folder = record.read(workdir), workdir / 'checkpoints'
    if entry is None or 'model' not in entry or not folder.is_dir():
        raise UserError(f'{workdir} must be the folder of a run, with config.json and checkpoints/; of a file of '
                        'weights `weights import` makes one')
    with _reader(folder) as manager:
        score_of = _evaluated(manager) if best else {}
        steps = sorted(manager.all_steps(), key=lambda step: (score_of.get(step, -1), step), reverse=True)
        if not steps:
            raise UserError(f'{folder} holds no finished checkpoint')
        variables, damaged = _first_that_loads(folder, steps, lambda step: _load_variables(manager, step, ema))
        log.info('%s: step %d%s', workdir, steps[len(damaged)], ', averaged weights' if ema else '')
    return chosen(entry['model']), variables


def _reader(folder: Path) -> closing:
    """Only a reader: whoever trains there may be in the middle of a save."""
    options = ocp.CheckpointManagerOptions(read_only=True, create=False, save_interval_steps=0)
    return closing(ocp.CheckpointManager(folder, options=options, item_names=_ITEMS))


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    verbosity = absl_logging.get_verbosity()
    absl_logging.set_verbosity(absl_logging.ERROR)
    try:
        with warnings.catch_warnings(action='ignore'):
            yield
    finally:
        absl_logging.set_verbosity(verbosity)


def _load_variables(manager, step, ema) -> dict:
    contents = _read_contents(manager, step)
    root = ('ema',) if ema else ()
    prefixes = tuple('/'.join([*root, collection, '']) for collection in ('params', 'batch_stats'))
    shapes = {name: jax.ShapeDtypeStruct(shape, dtype) for name, (shape, dtype, _) in contents.items()
              if name.startswith(prefixes)}
    if not shapes:
        raise UserError(f'{manager.directory / str(step)} holds no {"averaged weights" if ema else "parameters"}')
    target = flax.traverse_util.unflatten_dict(shapes, sep='/')
    as_numpy = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), target)
    state = _restore(manager, step, state=ocp.args.PyTreeRestore(target, restore_args=as_numpy, partial_restore=True))
    _refuse_changed(state, contents)
    return {'batch_stats': {}, **(state['ema'] if ema else state)}


def _restore(manager, step, **item):
    (name,) = item
    return manager.restore(step, args=ocp.args.Composite(**item))[name]


def _evaluated(manager) -> dict[int, float]:
    """Step -> score, of the steps that were evaluated and whose record of it can be read."""
    found = {}
    for step in manager.all_steps():
        try:
            evaluation = _restore(manager, step, evaluation=ocp.args.JsonRestore())
            found[step] = evaluation['score'] if 'score' in evaluation else evaluation['top1']  # its earlier name
        except Exception as error:  # no reason to stop a run; damage takes as many forms as that of arrays
            log.warning('%s: its score cannot be read: %s', manager.directory / str(step), type(error).__name__)
    return {step: score for step, score in found.items() if score is not None}


def _first_that_loads(folder: Path, steps: Iterable[int], load: Callable) -> tuple:
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


def _named(state) -> dict[str, jax.Array]:
    return {path_name(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(state)}


def _layout(state) -> dict[str, list]:
    return {name: [list(leaf.shape), str(leaf.dtype)] for name, leaf in _named(state).items()}


def _contents(state) -> dict[str, list]:
    """Array name -> [shape, dtype, CRC-32]. The file format's own checks do not cover array bytes."""
    layout = _layout(state)
    for name, leaf in _named(state).items():
        local = leaf.addressable_data(0) if isinstance(leaf, jax.Array) else leaf
        layout[name].append(zlib.crc32(np.ascontiguousarray(local)))
    return layout


def _sealed(contents: dict[str, list]) -> dict:
    return contents | {_SEAL: zlib.crc32(json.dumps(contents, sort_keys=True).encode())}


def _read_contents(manager, step) -> dict[str, list]:
    """As `_contents` made them. Raises ValueError where they are not as they were saved; of lists that were saved
    without a checksum that cannot be told."""
    contents = _restore(manager, step, contents=ocp.args.JsonRestore())
    if all(isinstance(value, list) for value in contents.values()):
        return contents
    names = {name: value for name, value in contents.items() if name != _SEAL}
    if contents != _sealed(names):
        raise ValueError('its list of arrays is not as it was saved')
    return names


def _refuse_changed(state, contents) -> None:
    wrong = [name for name, value in _contents(state).items() if value != contents[name]]
    if wrong:
        raise ValueError(f'{len(wrong)} arrays differ from what was saved, the first {wrong[0]}')


def _refuse_other_arrays(folder, contents, expected) -> None:
    saved = {name: value[:2] for name, value in contents.items()}
    if saved == expected:
        return
    lines = [f'  {name}: saved {saved.get(name, "absent")}, this run {expected.get(name, "absent")}'
             for name in sorted(saved.keys() | expected.keys()) if saved.get(name) != expected.get(name)]
    more = [f'  and {len(lines) - 10} more'] if len(lines) > 10 else []
    differ = dict.fromkeys(line.strip().split('/')[0] for line in lines)
    options = ', '.join(f'config.{option}' for part, option in _DECIDES.items() if part in differ)
    raise UserError('\n'.join([f'{folder} holds other arrays than this config makes; they follow from {options}, which '
                               'must be as before, or use another --workdir:', *lines[:10], *more]))
