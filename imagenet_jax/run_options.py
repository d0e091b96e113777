"""A config's own options, read: how long a run is and when its loop does what. The sections go on to their readers."""

import dataclasses
from collections.abc import Mapping
from typing import NamedTuple

from imagenet_jax import finetune, record
from imagenet_jax.errors import UserError
from imagenet_jax.options import LongInt, refuse_above

# Steps: a trace of ResNet-50 has thousands of events in each.
_LONGEST_TRACE = 1000


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """A config's top level; configs/common.py has meanings and defaults."""
    model: Mapping
    data: Mapping
    augment: Mapping
    policy: Mapping
    normalize: Mapping
    erase: Mapping
    mix: Mapping
    eval: Mapping
    loss: Mapping
    distill: Mapping
    optimizer: Mapping
    schedule: Mapping
    lookahead: Mapping
    distributed: Mapping
    init_from: str
    init_head: str = ''
    freeze: tuple[str, ...]
    batch_size: int
    eval_batch_size: int
    accumulation: int
    epochs: float
    steps: int
    ema_decay: float
    eval_epochs: float
    eval_steps: int
    confusion_epochs: float
    misclassified: int
    checkpoint_steps: int
    log_steps: int
    stop_after: int
    max_bad_steps: int
    seed: LongInt
    deterministic: bool
    compilation_cache: bool
    resume_unchecked: bool
    dry_run: bool
    profile_steps: tuple[int, ...] = ()
    parameter_table: bool
    message: str

    def __post_init__(self):
        for name in ('seed', 'epochs', 'steps', 'eval_epochs', 'eval_steps', 'confusion_epochs', 'checkpoint_steps',
                     'misclassified', 'log_steps', 'stop_after', 'max_bad_steps'):
            if getattr(self, name) < 0:
                raise UserError(f'config.{name}={getattr(self, name)} must not be negative')
        for name in ('batch_size', 'eval_batch_size'):
            if getattr(self, name) < 1:
                raise UserError(f'config.{name}={getattr(self, name)} must be positive')
        if not self.epochs and not self.steps:
            raise UserError(f'config.epochs={self.epochs} must be above 0 where config.steps is 0')
        refuse_above(self, 'config', batch_size=2**20, eval_batch_size=2**20, misclassified=400,
                     **dict.fromkeys(('epochs', 'eval_epochs', 'confusion_epochs'), 10**6))
        self._check_profile()
        finetune.check(self.init_head, self.init_from)

    def _check_profile(self):
        steps = self.profile_steps
        if steps and not (len(steps) == 2 and 0 <= steps[0] < steps[1] <= steps[0] + _LONGEST_TRACE
                          and steps[1] < 2**31):
            raise UserError(f'config.profile_steps={steps} must be (start, stop), of {_LONGEST_TRACE:,} steps at most '
                            'after the first `start` of a run, or () for none')


@dataclasses.dataclass(frozen=True)
class Every:
    """A cadence: at each multiple of `steps`, which need not be whole, and at the step `last`; 0 steps: never."""
    steps: float
    last: int

    def due(self, at: int, since: int | None = None) -> bool:
        """Whether it falls on step `at`, or after step `since`, the one before where not given, up to it."""
        since = at - 1 if since is None else since
        return bool(self.steps) and (at == self.last or at // self.steps > since // self.steps)


@dataclasses.dataclass(frozen=True)
class Cadences:
    """When the loop does what."""
    log: Every
    evaluate: Every
    confusion: Every
    checkpoint: Every


class Length(NamedTuple):
    """How long a run is planned to be: all its updates, and those of an epoch, a float since it may end in a batch."""
    steps: int
    steps_per_epoch: float


def length(options: Options, examples: int) -> Length:
    """Of a run on so many training images."""
    steps = record.planned_steps(options.steps, options.epochs, examples, options.batch_size)
    if steps >= 2**31:
        raise UserError(f'config.epochs={options.epochs} must be fewer: of {examples} images they are {steps} updates, '
                        'and 2**31 are too many to count')
    return Length(steps, examples / options.batch_size)
