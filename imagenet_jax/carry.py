"""Going on from a checkpoint under other options: which of a state's arrays come along, start anew or are let go."""

import logging
from collections.abc import Callable, Mapping

import jax
import numpy as np

from imagenet_jax import contents
from imagenet_jax.errors import UserError
from imagenet_jax.optim import path_name
from imagenet_jax.state import TrainState

log = logging.getLogger(__name__)

# Parts of a state that may come and go between two starts -> what they are called, and the option that decides.
_CARRIED = {'opt_state': ("the optimizer's", 'optimizer'), 'ema': ('averaged weights', 'ema_decay'),
            'slow': ('slow weights', 'lookahead.steps')}


def carried(found: Mapping[str, np.ndarray], like: TrainState, beside: Callable, where: str) -> TrainState:
    """The state that saved arrays make where a run's options ask for others beside the weights.

    Args:
      found: path -> array, all of the checkpoint's.
      like: what this run's state has, from `TrainStep.abstract`.
      beside: `TrainStep.beside`, which starts what the checkpoint lacks from its weights.
      where: the checkpoint, for messages.

    Raises:
      UserError: the weights are another model's.
    """
    saved, expected = contents.layout(found), contents.layout(like)
    differ = [name for name in sorted(saved.keys() | expected.keys()) if saved.get(name) != expected.get(name)]
    _refuse_other_model(where, [name for name in differ if name.split('/')[0] not in _CARRIED], saved, expected)
    weights = (jax.tree.map_with_path(lambda path, _, part=part: found[f'{part}/{path_name(path)}'],
                                      getattr(like, part)) for part in ('params', 'batch_stats'))
    if differ:
        _tell(where, differ, expected)
        fresh = contents.named(beside(*weights))
        found = dict(found) | {name: fresh[name] for name in differ if name in expected}
    # Copies: two arrays of a state that is donated may not be one.
    return jax.tree.map_with_path(lambda path, x: jax.device_put(np.array(found[path_name(path)]), x.sharding), like)


def _tell(where, differ, expected) -> None:
    """Says what becomes of each part, such as the optimizer's momentum."""
    becomes = {}
    for name in differ:
        part, inner = name.split('/')[:2]
        words, option = _CARRIED[part]
        what = f'{words} {inner}' if part == 'opt_state' else words
        becomes[what, option] = 'new, from its weights on' if name in expected else 'let go'
    for (what, option), verdict in becomes.items():
        log.info('%s: %s: %s (config.%s)', where, what, verdict, option)


def _refuse_other_model(where, differ, saved, expected) -> None:
    if not differ:
        return
    lines = [f'  {name}: saved {saved.get(name, "absent")}, this run {expected.get(name, "absent")}'
             for name in differ[:10]]
    more = [f'  and {len(differ) - 10} more'] if len(differ) > 10 else []
    raise UserError('\n'.join([f'{where} holds other arrays than this config makes; they follow from config.model, '
                               'which must be as before, or use another --workdir:', *lines, *more]))
