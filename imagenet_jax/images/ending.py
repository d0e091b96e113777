"""What happens to training batches, but not to those of a run's last epochs."""

import dataclasses
from typing import ClassVar

import jax

from imagenet_jax.errors import UserError


@dataclasses.dataclass(frozen=True, kw_only=True)
class Ending:
    """What is left off at the end of a run.

    Attributes:
      off_epochs: how long, counted back from the end that was planned; 0: it goes on to the end.
      steps: of the whole run, as planned.
      steps_per_epoch: for turning epochs into steps.
    """
    off_epochs: float = 0.0
    steps: int = 0
    steps_per_epoch: float = 0.0
    # Path of the section with these options, in messages.
    where: ClassVar[str]

    def __post_init__(self):
        if self.off_epochs < 0:
            raise UserError(f'{self.where}.off_epochs={self.off_epochs} must not be negative')
        if self._off_steps and self._off_steps >= self.steps:
            raise UserError(f'{self.where}.off_epochs={self.off_epochs} is {self._off_steps} steps, and the run has '
                            f'only {self.steps}')

    @property
    def _off_steps(self) -> int:
        return round(self.off_epochs * self.steps_per_epoch)

    def on(self, step: int | jax.Array) -> bool | jax.Array:
        """Whether it still happens to the batch of that step."""
        return step < self.steps - self._off_steps if self._off_steps else True
