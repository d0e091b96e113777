"""Gradients -> a direction, which the learning rate multiplies: optax's parts, by config.optimizer; and Lookahead."""

import abc
import dataclasses
import math
from collections.abc import Sequence
from fnmatch import fnmatchcase
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax

from imagenet_jax.errors import UserError


@dataclasses.dataclass(frozen=True, kw_only=True)
class Optimizer(abc.ABC):
    """What all optimizers have: decay, and what single parameters get.

    Attributes:
      weight_decay: coefficient of the L2 term.
      decay_bias_and_norm: False decays kernels of convolutions and dense layers alone.
      rate_factors: (pattern, factor) pairs; the first whose pattern matches a parameter (see `matching`) multiplies its
        learning rate.
      freeze: patterns of parameters that stay as they are.
    """
    weight_decay: float = 1e-4
    decay_bias_and_norm: bool = True
    rate_factors: tuple = ()
    freeze: tuple[str, ...] = ()

    def __post_init__(self):
        if self.weight_decay < 0:
            raise UserError(f'config.optimizer.weight_decay={self.weight_decay} must not be negative')
        for pair in self.rate_factors:
            _check_factor(pair)

    @abc.abstractmethod
    def _parts(self) -> list[tuple[str, optax.GradientTransformation]]:
        """What gradients go through, one after the other: gradient plus decay, momentum and the like, by name."""

    def _decay(self) -> list[tuple[str, optax.GradientTransformation]]:
        """Decay times the parameter, added to what came in."""
        mask = None if self.decay_bias_and_norm else _kernels
        return [('decay', optax.add_decayed_weights(self.weight_decay, mask))] if self.weight_decay else []

    def _chain(self) -> list[tuple[str, optax.GradientTransformation]]:
        factors = [*((pattern, 0.0) for pattern in self.freeze), *self.rate_factors]
        return self._parts() + ([('rates', _scale_by_path(factors))] if factors else [])

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


@dataclasses.dataclass(frozen=True, kw_only=True)
class SGD(Optimizer):
    """With momentum and coupled weight decay: decay times the parameter is added to the gradient, as in PyTorch.

    Attributes:
      momentum: what the running sum of gradients keeps at each update; 0 for none.
      nesterov: look ahead by one momentum step.
    """
    momentum: float = 0.9
    nesterov: bool = True

    def __post_init__(self):
        super().__post_init__()
        if not 0 <= self.momentum < 1:
            raise UserError(f'config.optimizer.momentum={self.momentum} must be in [0, 1)')

    def _parts(self):
        momentum = [('momentum', optax.trace(self.momentum, self.nesterov))] if self.momentum else []
        return self._decay() + momentum


@dataclasses.dataclass(frozen=True)
class Lookahead:
    """Every `steps` updates slow weights go a fraction `alpha` of the way to the weights, which go on from there
    (arXiv 1907.08610). 0 steps: never."""
    steps: int = 0
    alpha: float = 0.5

    def __post_init__(self):
        if self.steps < 0:
            raise UserError(f'config.lookahead.steps={self.steps} must not be negative')
        if not 0 < self.alpha <= 1:
            raise UserError(f'config.lookahead.alpha={self.alpha} must be in (0, 1]')

    def __call__(self, slow, params, updates: jax.Array) -> tuple[Any, Any]:
        """(slow weights, weights) after so many updates."""
        if not self.steps:
            return slow, params
        meet = updates % self.steps == 0
        slow = jax.tree.map(lambda s, p: jnp.where(meet, s + self.alpha * (p - s), s), slow, params)
        return slow, jax.tree.map(partial(jnp.where, meet), slow, params)


# config.optimizer.name -> the optimizer.
OPTIMIZERS = {'sgd': SGD}


def matching(params, patterns: Sequence[str]):
    """A tree like `params`, True where a parameter's path, such as layer1/0/conv1/kernel, matches one of the patterns.

    A pattern is of the shell's kind; its `*` stands for anything, slashes too.
    """
    return jax.tree.map_with_path(lambda path, _: any(fnmatchcase(path_name(path), p) for p in patterns), params)


def refuse_idle(params, patterns: Sequence[str], option: str) -> None:
    """Raises UserError where a pattern matches no parameter."""
    names = [path_name(path) for path, _ in jax.tree_util.tree_leaves_with_path(params)]
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in names):
            raise UserError(f'{option}: {pattern!r} matches no parameter; such paths there are: '
                            f'{", ".join(dict.fromkeys(name.split("/")[0] + "/*" for name in names))}, and in full '
                            f'{names[0]}')


def _check_factor(pair) -> None:
    try:
        pattern, factor = pair
        if isinstance(pattern, str) and not isinstance(factor, bool) and 0 <= factor < math.inf:
            return
    except (TypeError, ValueError):
        pass
    raise UserError(f"config.optimizer.rate_factors: {pair!r} must be a (pattern, factor), such as ('fc/*', 10.0)")


def _scale_by_path(factors) -> optax.GradientTransformation:
    def scaled(path, update):
        return update * next((factor for pattern, factor in factors if fnmatchcase(path_name(path), pattern)), 1.0)
    return optax.stateless(lambda updates, params: jax.tree.map_with_path(scaled, updates))


def path_name(path) -> str:
    """Of a leaf of a tree: layer1/0/conv1/kernel."""
    return jax.tree_util.keystr(path, simple=True, separator='/')


def _kernels(params):
    """True for kernels of convolutions and dense layers, False for biases and norm scales."""
    return jax.tree.map_with_path(lambda path, _: path[-1].key == 'kernel', params)
