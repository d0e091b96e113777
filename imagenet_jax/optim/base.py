"""What every optimizer has: the parts that gradients go through, by name, and what single parameters get."""

import abc
import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import optax

from imagenet_jax.errors import UserError
from imagenet_jax.optim.paths import kernels, matches, matching, refuse_idle

# Of what multiplies, so that finite gradients and parameters give finite directions.
LARGEST = 1_000_000

# The parts of an optimizer by name. A name never changes: it is that of the part's arrays in a checkpoint.
Parts = list[tuple[str, optax.GradientTransformation]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Optimizer(abc.ABC):
    """What all optimizers have. Gradients are clipped first of all; what single parameters get comes last.

    Attributes:
      weight_decay: coefficient of the L2 term.
      decay_bias_and_norm: False decays kernels of convolutions and dense layers alone.
      centralize: takes its mean from the gradient of every output channel of a convolution's kernel (arXiv 2004.01461,
        its form for convolutions alone), decay included where that is coupled, before any momentum or moment.
      clip_norm: where the norm of all gradients together is above this, they are scaled down to it; 0: never. As
        PyTorch's clip_grad_norm_.
      clip_adaptive: where the norm of the gradient of an output channel's weights is above this fraction of the norm of
        these weights, or of 0.001 where that is more, it is scaled down to it (arXiv 2102.06171); 0: never. A bias or
        scale is one such unit. The classifier is left alone, as in the paper.
      rate_factors: (pattern, factor) pairs; the first whose pattern matches a parameter (see `matching`) multiplies its
        learning rate.
      freeze: patterns of parameters that stay as they are.
      head: the classifier's parameters, by patterns.
    """
    weight_decay: float = 1e-4
    decay_bias_and_norm: bool = True
    centralize: bool = False
    clip_norm: float = 0.0
    clip_adaptive: float = 0.0
    rate_factors: tuple = ()
    freeze: tuple[str, ...] = ()
    head: tuple[str, ...] = ()

    def __post_init__(self):
        self._require(lambda value: 0 <= value <= LARGEST, f'be in 0..{LARGEST}', 'weight_decay', 'clip_norm',
                      'clip_adaptive')
        for pair in self.rate_factors if isinstance(self.rate_factors, (tuple, list)) else (self.rate_factors,):
            _check_factor(pair)

    def _require(self, holds: Callable[[float], bool], words: str, *names: str) -> None:
        for name in names:
            if not holds(getattr(self, name)):
                raise UserError(f'config.optimizer.{name}={getattr(self, name)} must {words}')

    def _require_fraction(self, *names: str) -> None:
        self._require(lambda value: 0 <= value < 1, 'be in [0, 1)', *names)

    def _require_positive(self, *names: str) -> None:
        self._require(lambda value: 0 < value <= LARGEST, f'be above 0 and at most {LARGEST}', *names)

    @abc.abstractmethod
    def _parts(self) -> Parts:
        """What clipped gradients go through, one after the other: gradient plus decay, momentum and the like."""

    def _decay(self) -> Parts:
        """Decay times the parameter, added to what came in."""
        mask = None if self.decay_bias_and_norm else kernels
        return [('decay', optax.add_decayed_weights(self.weight_decay, mask))] if self.weight_decay else []

    def _centralize(self) -> Parts:
        return [('centralize', _by_path(_centralized))] if self.centralize else []

    def _clip(self) -> Parts:
        clip = [('clip_norm', optax.clip_by_global_norm(self.clip_norm))] if self.clip_norm else []
        if self.clip_adaptive:
            # Its units are right for kernels whose output channels come last, HWIO and IO.
            part = optax.adaptive_grad_clip(self.clip_adaptive)
            clip.append(('clip_adaptive', optax.masked(part, self._below_head)))
        return clip

    def _below_head(self, params):
        return jax.tree.map(lambda is_head: not is_head, matching(params, self.head))

    def _rates(self) -> Parts:
        factors = [*((pattern, 0.0) for pattern in self.freeze), *self.rate_factors]

        def scaled(path, update):
            return update * next((factor for pattern, factor in factors if matches(path, pattern)), 1.0)
        return [('rates', _by_path(scaled))] if factors else []

    def _chain(self) -> Parts:
        return self._clip() + self._parts() + self._rates()

    def init(self, params) -> dict[str, Any]:
        """The state before the first update: by name, and of the parts alone that have arrays.

        So a part that comes or goes moves no other's arrays in a checkpoint, and one without any changes nothing there.
        """
        states = {name: part.init(params) for name, part in self._chain()}
        return {name: state for name, state in states.items() if jax.tree.leaves(state)}

    def direction(self, gradients, opt_state: dict[str, Any], params) -> tuple[Any, dict[str, Any]]:
        """(what the rate multiplies and is taken from the parameters, the next state)."""
        states = {}
        for name, part in self._chain():
            before = opt_state[name] if name in opt_state else part.init(params)  # no arrays
            gradients, after = part.update(gradients, before, params)
            states |= {name: after} if name in opt_state else {}
        return gradients, states

    def frozen(self, params):
        """A tree like `params`, True where a parameter stays as it is: it needs no gradient."""
        return matching(params, self.freeze)

    def check(self, params) -> None:
        """Raises UserError where a pattern matches no parameter, or all are frozen."""
        refuse_idle(params, self.freeze, 'config.freeze')
        refuse_idle(params, [pattern for pattern, _ in self.rate_factors], 'config.optimizer.rate_factors')
        if all(jax.tree.leaves(self.frozen(params))):
            raise UserError('config.freeze leaves no parameter to train')

    @property
    def has_patterns(self) -> bool:
        """Whether there is anything that `check` would look at."""
        return bool(self.freeze or self.rate_factors)


def _check_factor(pair) -> None:
    try:
        pattern, factor = pair
        if isinstance(pattern, str) and not isinstance(factor, bool) and 0 <= factor <= LARGEST:
            return
    except (TypeError, ValueError):
        pass
    raise UserError(f"config.optimizer.rate_factors: {pair!r} must be a (pattern, factor), such as ('fc/*', 10.0)")


def _by_path(change: Callable) -> optax.GradientTransformation:
    """`change` of each leaf's path and update."""
    return optax.stateless(lambda updates, params: jax.tree.map_with_path(change, updates))


def _centralized(path, update):
    if path[-1].key != 'kernel' or update.ndim != 4:
        return update
    # Not optax.centralize: that keeps the first axis apart, and of HWIO the last is the output's.
    return update - update.mean((0, 1, 2), keepdims=True)
