"""Config -> optax: the learning-rate schedule and the gradient transformation."""

from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from imagenet_jax.errors import UserError, unknown

_SHAPES = ('cosine', 'multistep', 'constant')


class Optimizer(NamedTuple):
    """A gradient transformation whose last part scales by the schedule."""
    transform: optax.GradientTransformation
    schedule: optax.Schedule

    def learning_rate(self, opt_state) -> jax.Array:
        """Of the next update; optax's own count of updates made drives it, so a skipped step does not."""
        return jnp.asarray(self.schedule(opt_state[-1].count), jnp.float32)


def schedule(learning_rate: float, batch_size: int, steps: int, steps_per_epoch: float, *, name: str = 'cosine',
             warmup_epochs: float = 5.0, floor: float = 0.0, milestones: tuple[float, ...] = (), factor: float = 0.1,
             base_batch_size: int = 0) -> optax.Schedule:
    """Learning rate by update.

    Args:
      learning_rate: the peak.
      batch_size: of one update.
      steps: updates of the whole run.
      steps_per_epoch: for turning epochs into updates.
      name: 'cosine' (arXiv 1608.03983, to `floor` at the last step), 'multistep' or 'constant'.
      warmup_epochs: linear from 0 to the peak.
      floor: where the cosine ends.
      milestones, factor: multistep multiplies the rate by `factor` at each of these epochs, ascending.
      base_batch_size: where not 0, the peak is scaled by batch_size / base_batch_size (arXiv 1706.02677).
    """
    if name not in _SHAPES:
        raise unknown('schedule.name', name, _SHAPES)
    peak = learning_rate * (batch_size / base_batch_size if base_batch_size else 1)
    warmup = round(warmup_epochs * steps_per_epoch)
    if warmup < 0:
        raise UserError(f'schedule.warmup_epochs={warmup_epochs} must not be negative')
    if warmup and warmup >= steps:
        raise UserError(f'schedule.warmup_epochs={warmup_epochs} is {warmup} steps, and the run has only {steps}')
    if name == 'cosine':
        after = optax.cosine_decay_schedule(peak, steps - warmup, floor / peak if peak else 0.0)
    elif name == 'multistep':
        after = _multistep(peak, milestones, factor, steps_per_epoch, warmup)
    else:
        after = optax.constant_schedule(peak)
    return optax.join_schedules([optax.linear_schedule(0.0, peak, warmup), after], [warmup]) if warmup else after


def _multistep(peak, milestones, factor, steps_per_epoch, warmup):
    """Counts from the end of the warm-up, as the schedules that it is joined to do; milestones count from the start."""
    if not milestones or list(milestones) != sorted({m for m in milestones if m > 0}):
        raise UserError(f'schedule.milestones={milestones} must be epochs above 0, ascending, and one at least')
    # Not optax.piecewise_constant_schedule: its dict loses a milestone where two round to the same step.
    steps = jnp.array([round(m * steps_per_epoch) - warmup for m in milestones])
    return lambda count: peak * factor**jnp.sum(count >= steps)


def create(rate: optax.Schedule, *, name: str = 'sgd', momentum: float = 0.9, nesterov: bool = True,
           weight_decay: float = 1e-4, decay_bias_and_norm: bool = True,
           rate_factors: Sequence[tuple[str, float]] = (), freeze: Sequence[str] = ()) -> Optimizer:
    """SGD with momentum and coupled weight decay: decay times the parameter is added to the gradient, as in PyTorch.

    Args:
      rate: the schedule.
      name: 'sgd'.
      momentum: 0 for none.
      nesterov: look ahead by one momentum step.
      weight_decay: coefficient of the L2 term.
      decay_bias_and_norm: False decays kernels of convolutions and dense layers alone.
      rate_factors: (pattern, factor) pairs; the first whose pattern matches a parameter (see `matching`) multiplies its
        learning rate.
      freeze: patterns of parameters that stay as they are.
    """
    if name != 'sgd':
        raise unknown('optimizer.name', name, ('sgd',))
    parts = []
    if weight_decay:
        parts.append(optax.add_decayed_weights(weight_decay, None if decay_bias_and_norm else _kernels))
    if momentum:
        parts.append(optax.trace(momentum, nesterov))
    factors = [*((pattern, 0.0) for pattern in freeze), *map(_factor, rate_factors)]
    if factors:
        parts.append(_scale_by_path(factors))
    return Optimizer(optax.chain(*parts, optax.scale_by_learning_rate(rate)), rate)


def matching(params, patterns: Sequence[str]):
    """A tree like `params`, True where a parameter's path, such as layer1/0/conv1/kernel, matches one of the patterns.

    A pattern is of the shell's kind; its `*` stands for anything, slashes too.
    """
    return jax.tree.map_with_path(lambda path, _: any(fnmatchcase(_name(path), p) for p in patterns), params)


def refuse_idle(params, patterns: Sequence[str], option: str) -> None:
    """Raises UserError where a pattern matches no parameter."""
    names = [_name(path) for path, _ in jax.tree_util.tree_leaves_with_path(params)]
    for pattern in patterns:
        if not isinstance(pattern, str):
            raise UserError(f"{option}: {pattern!r} must be a pattern, such as 'layer1/*'")
        if not any(fnmatchcase(name, pattern) for name in names):
            raise UserError(f'{option}: {pattern!r} matches no parameter; such paths there are: '
                            f'{", ".join(dict.fromkeys(name.split("/")[0] + "/*" for name in names))}, and in full '
                            f'{names[0]}')


def _factor(pair) -> tuple[str, float]:
    try:
        pattern, factor = pair
        if isinstance(pattern, str) and factor >= 0:
            return pattern, factor
    except (TypeError, ValueError):
        pass
    raise UserError(f"config.optimizer.rate_factors: {pair!r} must be a (pattern, factor), such as ('fc/*', 10.0)")


def _scale_by_path(factors) -> optax.GradientTransformation:
    def scaled(path, update):
        return update * next((factor for pattern, factor in factors if fnmatchcase(_name(path), pattern)), 1.0)
    return optax.stateless(lambda updates, params: jax.tree.map_with_path(scaled, updates))


def _name(path) -> str:
    return jax.tree_util.keystr(path, simple=True, separator='/')


def _kernels(params):
    """True for kernels of convolutions and dense layers, False for biases and norm scales."""
    return jax.tree.map_with_path(lambda path, _: path[-1].key == 'kernel', params)
