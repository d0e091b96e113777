"""The learning rate by updates made, and what evaluations make of it and of the run."""

import abc
import dataclasses
import itertools
import logging
from collections.abc import Callable
from typing import ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import optax

from imagenet_jax.errors import UserError
from imagenet_jax.options import refuse_above

log = logging.getLogger(__name__)


class Watch(NamedTuple):
    """What is remembered of evaluations; part of the run's state, so that a resumed run remembers it too.

    Attributes:
      rate_scale: float32 (where JAX has float64, that), which the schedule's rate is multiplied by.
      best: float32, the best score so far.
      stale: int32, evaluations since then.
      waited: int32, those that a plateau has waited for since it last changed the rate.
      cooldown: int32, evaluations that it does not yet count.
    """
    rate_scale: jax.Array
    best: jax.Array
    stale: jax.Array
    waited: jax.Array
    cooldown: jax.Array

    @classmethod
    def start(cls) -> 'Watch':
        """Before the first evaluation."""
        return cls(jnp.ones(()), jnp.float32(-jnp.inf), *(jnp.int32(0) for _ in range(3)))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Schedule(abc.ABC):
    """Rises from 0 to the peak in a line, then goes on as the schedule of that name does.

    Attributes:
      learning_rate: the peak.
      batch_size: images of one update.
      steps: updates of the whole run.
      steps_per_epoch: for turning epochs into updates.
      warmup_epochs: of the rise; 0: none. One that takes the whole run is shortened to a fifth of it.
      base_batch_size: where not 0, the peak is scaled by batch_size / base_batch_size (arXiv 1706.02677).
    """
    learning_rate: float
    batch_size: int
    steps: int
    steps_per_epoch: float
    warmup_epochs: float = 5.0
    base_batch_size: int = 0
    # Whether the rate depends on evaluations.
    watches: ClassVar[bool] = False

    def __post_init__(self):
        if self.learning_rate < 0:
            raise UserError(f'config.optimizer.learning_rate={self.learning_rate} must not be negative')
        for name in ('warmup_epochs', 'base_batch_size'):
            if getattr(self, name) < 0:
                raise UserError(f'config.schedule.{name}={getattr(self, name)} must not be negative')
        if self.peak != self.learning_rate:
            log.info('learning rate %g x %d/%d = %g: config.optimizer.learning_rate is for %d images a batch, '
                     'config.schedule.base_batch_size', self.learning_rate, self.batch_size, self.base_batch_size,
                     self.peak, self.base_batch_size)
        if self._warmup < self._asked_warmup:
            log.warning('config.schedule.warmup_epochs=%g is %d steps, and the run has %d: it is shortened to a fifth '
                        'of them, %d', self.warmup_epochs, self._asked_warmup, self.steps, self._warmup)

    @property
    def peak(self) -> float:
        """The highest rate."""
        return self.learning_rate * (self.batch_size / self.base_batch_size if self.base_batch_size else 1)

    @property
    def _asked_warmup(self) -> int:
        return round(self.warmup_epochs * self.steps_per_epoch)

    @property
    def _warmup(self) -> int:
        return self._asked_warmup if self._asked_warmup < self.steps else self.steps // 5

    def __call__(self, updates: jax.Array) -> jax.Array:
        """float32, the rate of the next update after so many, but for what evaluations make of it."""
        rate = self._after_warmup()
        if self._warmup:
            rate = optax.join_schedules([optax.linear_schedule(0.0, self.peak, self._warmup), rate], [self._warmup])
        return jnp.asarray(rate(updates), jnp.float32)

    @abc.abstractmethod
    def _after_warmup(self) -> Callable:
        """Updates since the end of the warm-up -> rate."""

    def judge(self, watch: Watch, score: jax.Array) -> Watch:
        """What an evaluation's score, the higher the better, makes of the watch. One that is NaN is no better."""
        better = score > watch.best
        return watch._replace(best=jnp.where(better, score, watch.best), stale=jnp.where(better, 0, watch.stale + 1))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Falling(Schedule):
    """From the peak down to `floor`, which is reached after the last update."""
    floor: float = 0.0

    def __post_init__(self):
        super().__post_init__()
        _refuse_above_peak('floor', self.floor, self.peak)

    @property
    def _falling(self) -> int:
        """Updates after the warm-up."""
        return self.steps - self._warmup


@dataclasses.dataclass(frozen=True, kw_only=True)
class Linear(Falling):
    """Down to `floor` in a line."""

    def _after_warmup(self):
        return optax.linear_schedule(self.peak, self.floor, self._falling)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Polynomial(Falling):
    """Down to `floor` as (1 - e/E)**power, e of the E updates after the warm-up made: power 0.5 is the square root,
    1 the line, 2 a parabola."""
    power: float = 1.0

    def __post_init__(self):
        super().__post_init__()
        if self.power <= 0:
            raise UserError(f'config.schedule.power={self.power} must be above 0')
        refuse_above(self, 'config.schedule', power=100)

    def _after_warmup(self):
        return optax.polynomial_schedule(self.peak, self.floor, self.power, self._falling)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Cosine(Falling):
    """Half a cosine down to `floor`, `cycles` times one after the other, each from the peak and of the same length, to
    the nearest update (arXiv 1608.03983, with T_mult = 1)."""
    cycles: int = 1

    def __post_init__(self):
        super().__post_init__()
        if not 1 <= self.cycles <= self._falling:
            raise UserError(f'config.schedule.cycles={self.cycles} must be in 1..{self._falling}, the updates after '
                            'the warm-up')

    def _after_warmup(self):
        ends = [round(i * self._falling / self.cycles) for i in range(self.cycles + 1)]
        floor = self.floor / self.peak if self.peak else 0.0
        return optax.join_schedules([optax.cosine_decay_schedule(self.peak, end - start, floor)
                                     for start, end in itertools.pairwise(ends)], ends[1:-1])


@dataclasses.dataclass(frozen=True, kw_only=True)
class Exponential(Schedule):
    """Multiplied by `factor` an epoch, a little at every update since the warm-up."""
    factor: float

    def __post_init__(self):
        super().__post_init__()
        if not 0 < self.factor <= 1:
            raise UserError(f'config.schedule.factor={self.factor} must be in (0, 1]')

    def _after_warmup(self):
        return optax.exponential_decay(self.peak, self.steps_per_epoch, self.factor)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Step(Schedule):
    """Multiplied by `factor` every `every_epochs` epochs, counted from the start."""
    every_epochs: float
    factor: float = 0.1

    def __post_init__(self):
        super().__post_init__()
        if self.every_epochs <= 0:
            raise UserError(f'config.schedule.every_epochs={self.every_epochs} must be above 0')
        if not 0 <= self.factor <= 1:
            raise UserError(f'config.schedule.factor={self.factor} must be in [0, 1]')

    def _after_warmup(self):
        # The half rounds to the nearest update, as for milestones, and keeps whole numbers off the edge of the floor.
        since, every = self._warmup + 0.5, self.every_epochs * self.steps_per_epoch
        return lambda count: self.peak * self.factor**jnp.floor((count + since) / every)


@dataclasses.dataclass(frozen=True, kw_only=True)
class MultiStep(Schedule):
    """Multiplied by `factor` at each of the epochs `milestones`, which are ascending and counted from the start."""
    milestones: tuple[float, ...]
    factor: float = 0.1

    def __post_init__(self):
        super().__post_init__()
        if not self.milestones or list(self.milestones) != sorted({m for m in self.milestones if m > 0}):
            raise UserError(f'config.schedule.milestones={self.milestones} must be epochs above 0, ascending, and one '
                            'at least')
        if self.factor < 0:
            raise UserError(f'config.schedule.factor={self.factor} must not be negative')
        refuse_above(self, 'config.schedule', factor=100)

    def _after_warmup(self):
        # Not optax.piecewise_constant_schedule: its dict loses a milestone where two round to the same step.
        steps = jnp.array([round(m * self.steps_per_epoch) - self._warmup for m in self.milestones])
        return lambda count: self.peak * self.factor**jnp.sum(count >= steps)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Constant(Schedule):
    """The peak."""

    def _after_warmup(self):
        return optax.constant_schedule(self.peak)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plateau(Constant):
    """The peak, multiplied by `factor` when evaluations bring nothing better; as PyTorch's ReduceLROnPlateau.

    Attributes:
      patience: evaluations without a better score that are waited for; one more changes the rate.
      cooldown: evaluations after a change that do not count.
      minimum: the rate that no change goes below.
      threshold: a score is better where it is above the best by more than this fraction of it.
    """
    factor: float = 0.1
    patience: int = 10
    cooldown: int = 0
    minimum: float = 0.0
    threshold: float = 1e-4
    watches = True

    def __post_init__(self):
        super().__post_init__()
        if not 0 < self.factor < 1:
            raise UserError(f'config.schedule.factor={self.factor} must be between 0 and 1')
        for name in ('patience', 'cooldown'):
            if getattr(self, name) < 0:
                raise UserError(f'config.schedule.{name}={getattr(self, name)} must not be negative')
        if not 0 <= self.threshold < 1:
            raise UserError(f'config.schedule.threshold={self.threshold} must be in [0, 1)')
        _refuse_above_peak('minimum', self.minimum, self.peak)

    def judge(self, watch, score):
        better = score > watch.best * (1 + self.threshold * jnp.sign(watch.best))
        cooling = watch.cooldown > 0
        waited = jnp.where(better | cooling, 0, watch.waited + 1)
        change = waited > self.patience
        lowest = self.minimum / self.peak if self.peak else 0.0
        return Watch(
            rate_scale=jnp.where(change, jnp.maximum(watch.rate_scale * self.factor, lowest), watch.rate_scale),
            best=jnp.where(better, score, watch.best), stale=jnp.where(better, 0, watch.stale + 1),
            waited=jnp.where(change, 0, waited),
            cooldown=jnp.where(change, self.cooldown, jnp.maximum(watch.cooldown - 1, 0)))


def _refuse_above_peak(option: str, rate: float, peak: float) -> None:
    if not 0 <= rate <= peak:
        raise UserError(f'config.schedule.{option}={rate} must be in 0..{peak:g}, the peak of the learning rate')


# config.schedule.name -> the schedule.
SCHEDULES = {'cosine': Cosine, 'step': Step, 'multistep': MultiStep, 'linear': Linear, 'exponential': Exponential,
             'polynomial': Polynomial, 'constant': Constant, 'plateau': Plateau}
