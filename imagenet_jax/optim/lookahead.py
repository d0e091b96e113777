"""Slow weights beside the weights, around any optimizer."""

import dataclasses
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from imagenet_jax.errors import UserError


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
        if self.alpha != 0.5 and not self.steps:
            raise UserError(f'config.lookahead.alpha={self.alpha} is read where config.lookahead.steps is not 0')

    def __call__(self, slow, params, updates: jax.Array) -> tuple[Any, Any]:
        """(slow weights, weights) after so many updates."""
        if not self.steps:
            return slow, params
        meet = updates % self.steps == 0
        slow = jax.tree.map(lambda s, p: jnp.where(meet, s + self.alpha * (p - s), s), slow, params)
        return slow, jax.tree.map(partial(jnp.where, meet), slow, params)
