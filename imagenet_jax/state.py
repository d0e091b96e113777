"""All that a run is: what a checkpoint holds, and a train step takes and gives."""

from typing import Any

import flax.struct
import jax
import optax

from imagenet_jax.schedules import Watch


class TrainState(flax.struct.PyTreeNode):
    """All that a run is, and all that a checkpoint holds.

    Attributes:
      step: batches consumed; addresses data, randomness and checkpoints, and advances whatever the batch gave.
      updates: updates made; drives the schedule, and does not advance where a step was not finite.
      key: raw PRNG key data; never changes.
      params, batch_stats: of the model.
      opt_state: the optimizer's.
      ema: running average of {'params', 'batch_stats'}, or {} where there is none.
      slow: the slow weights of Lookahead, or {} where there are none.
      watch: what is remembered of evaluations: the plateau's rate_scale, the best score.
      loss_scale: of float16; stays 1 for other dtypes.
      good_steps: finite steps since the scale last changed.
      bad_steps: steps so far whose loss, gradients or update were not finite.
      bad_in_a_row: the current run of them.
    """
    step: jax.Array
    updates: jax.Array
    key: jax.Array
    params: Any
    batch_stats: Any
    opt_state: optax.OptState
    ema: Any
    slow: Any
    watch: Watch
    loss_scale: jax.Array
    good_steps: jax.Array
    bad_steps: jax.Array
    bad_in_a_row: jax.Array

    @property
    def variables(self) -> dict:
        """What `model.apply` takes."""
        return {'params': self.params, 'batch_stats': self.batch_stats}
