"""The train step: a pure function of the state of a run and a batch, compiled once.

It is SPMD over a mesh with one axis, the data: parameters on every device, the batch split.
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from functools import partial

import flax.linen as nn
import flax.struct
import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from imagenet_jax import small_arrays
from imagenet_jax.errors import UserError
from imagenet_jax.images.batch import draw
from imagenet_jax.images.erase import Erase
from imagenet_jax.images.mix import Mix
from imagenet_jax.models.layers import DATA_AXIS, FROZEN, PROGRESS, at_least_float32, frozen_norms
from imagenet_jax.optim import Lookahead, Optimizer
from imagenet_jax.schedules import Schedule, Watch
from imagenet_jax.state import TrainState
from imagenet_jax.streams import MODEL_STREAMS, seed_key, step_key, stream
from imagenet_jax.task import Task

# float16 loss scaling (arXiv 1710.03740): doubled after so many finite steps in a row, halved at each overflow.
SCALE_INTERVAL = 2000
INITIAL_SCALE = 2.0**16
MAX_SCALE = 2.0**24


def make_mesh(devices: Sequence[jax.Device] | None = None) -> Mesh:
    """The devices (all of all hosts, unless named) along the data axis."""
    devices = jax.devices() if devices is None else devices
    # Auto: explicit axes refuse gathers and reshapes whose sharding is ambiguous.
    return jax.make_mesh((len(devices),), (DATA_AXIS,), axis_types=(AxisType.Auto,), devices=devices)


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainStep:
    """(state, batch) -> (state, metrics), jitted, the state donated.

    The batch holds image, uint8 (B, H, W, 3), or of V views (B, V, H, W, 3), and label, as the task has it. Metrics are
    float32 scalars: loss, accuracy (fraction), learning_rate, grad_norm, loss_scale, bad_steps, bad_in_a_row.

    Attributes:
      model: called with train=True.
      optimizer: gives the direction; alone knows which parameters are frozen. A norm all of whose parameters are uses
        its running statistics and leaves them as they are.
      schedule: gives the learning rate, by updates made.
      task: gives targets, loss and accuracy.
      normalize: uint8 images -> float images, on the device.
      erase: what erases a part of each image, or none.
      mix: whether and how images and targets are mixed.
      mesh: from `make_mesh`.
      accumulation: parts that each device's share of the batch is cut into, their gradients averaged into one update.
      ema_decay: of the running average, warmed up as min(decay, (1 + t) / (10 + t)); 0 for none.
      lookahead: slow weights, or none.
      steps: of the whole run, over which DropBlock's rate rises linearly from 0 (arXiv 1810.12890, section 3); 0: it is
        the same throughout.
      teacher: a `distill.Teacher`: (its variables, images, logits, losses) -> losses; or None.
    """
    model: nn.Module
    optimizer: Optimizer
    schedule: Schedule | Callable
    task: Task
    normalize: Callable
    mesh: Mesh
    erase: Erase | None = None
    mix: Mix = Mix()
    accumulation: int = 1
    ema_decay: float = 0.0
    lookahead: Lookahead = Lookahead()
    steps: int = 0
    teacher: Callable | None = None

    def __post_init__(self):
        if self.accumulation < 1:
            raise UserError(f'config.accumulation={self.accumulation} must be at least 1')
        if not 0 <= self.ema_decay < 1:
            raise UserError(f'config.ema_decay={self.ema_decay} must be in [0, 1)')

    def init(self, seed: int, image_size: int, loaded: dict | None = None) -> TrainState:
        """The state before the first step, on every device of the mesh.

        Args:
          seed: of the parameters, and of all that is drawn later.
          image_size: side of the images, in pixels.
          loaded: {'params', 'batch_stats'}, arrays to start from; what it lacks is initialised.
        """
        return self._make(_key_data(seed), image_size, loaded or {})

    def abstract(self, image_size: int) -> TrainState:
        """Shapes, dtypes and sharding of what `init` answers; nothing is computed."""
        state = self._make.eval_shape(_key_data(0), image_size, {})
        return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=self._everywhere), state)

    def __call__(self, state: TrainState, batch: dict) -> tuple[TrainState, dict]:
        return self.compiled(state, batch, *self.given(state))

    def given(self, state: TrainState) -> tuple:
        """What `compiled` takes beside a state and a batch: the schedule's rate, float32, and a teacher's variables. As
        constants they would have it compiled for each schedule and each length of a run."""
        return self._rate(state.updates), *self._teachers

    def lower(self, state: TrainState, batch: dict) -> jax.stages.Lowered:
        """The program of a call, by arrays or by their shapes."""
        rate = jax.ShapeDtypeStruct((), jnp.float32, sharding=self._everywhere)
        return self.compiled.lower(state, batch, rate, *self._teachers)

    @functools.cached_property
    def _rate(self) -> Callable:
        def rate(updates):
            return jnp.asarray(self.schedule(updates), jnp.float32)
        return jax.jit(rate, out_shardings=self._everywhere)

    @functools.cached_property
    def _teachers(self) -> tuple[dict, ...]:
        return (jax.device_put(self.teacher.variables, self._everywhere),) if self.teacher else ()

    @functools.cached_property
    def compiled(self) -> Callable:
        """What a call runs."""
        specs = (P(), P(DATA_AXIS), P(), *[P()] * len(self._teachers))
        # Of one device nothing is averaged, so nothing would say that its answers are the same on all.
        step = jax.shard_map(self._step, mesh=self.mesh, in_specs=specs, out_specs=P(), check_vma=self.mesh.size > 1)
        return jax.jit(step, donate_argnums=0)

    def judge(self, state: TrainState, score: float) -> TrainState:
        """The state after an evaluation that gave this score, the higher the better."""
        return state.replace(watch=self._judge(state.watch, jnp.float32(score)))

    @functools.cached_property
    def _judge(self) -> Callable:
        return jax.jit(self.schedule.judge, out_shardings=self._everywhere)

    @property
    def _everywhere(self) -> NamedSharding:
        return NamedSharding(self.mesh, P())

    @functools.cached_property
    def _make(self) -> Callable:
        """What makes a state: one program for all seeds, traced once for its shapes and for its values."""
        return jax.jit(self._initial_state, static_argnums=1, out_shardings=self._everywhere)

    def _initial_state(self, key_data, image_size, loaded) -> TrainState:
        key = jax.random.wrap_key_data(key_data)
        images = jnp.zeros((1, image_size, image_size, 3), jnp.float32)
        flatten, unflatten = flax.traverse_util.flatten_dict, flax.traverse_util.unflatten_dict
        variables = unflatten(flatten(self.model.init(key, images, train=False)) | flatten(loaded))
        params, stats = variables['params'], variables.get('batch_stats', {})
        zero = jnp.int32(0)
        return TrainState(
            step=zero, updates=zero, key=key_data, params=params, batch_stats=stats,
            **self.beside(params, stats), watch=Watch.start(),
            loss_scale=jnp.float32(INITIAL_SCALE if self.model.dtype == jnp.float16 else 1.0), good_steps=zero,
            bad_steps=zero, bad_in_a_row=zero)

    def beside(self, params, stats) -> dict:
        """What a state has beside these variables before an update is made: its opt_state, ema and slow."""
        return {'opt_state': self.optimizer.init(params),
                'ema': {'params': params, 'batch_stats': stats} if self.ema_decay else {},
                'slow': params if self.lookahead.steps else {}}

    def _step(self, state, batch, rate, *teachers):
        key = step_key(jax.random.wrap_key_data(state.key), state.step)
        return self._update(state, rate, *self._gradients(state, batch, key, teachers))

    def _gradients(self, state, batch, key, teachers):
        """(statistics, gradients, their norm, loss, accuracy) of the batch, means over parts and devices."""
        # With parameters varying, gradients stay each device's own until the one all-reduce below, in float32.
        # Replicated ones would come summed over devices already, and in the compute dtype.
        params, stats = jax.lax.pcast((state.params, state.batch_stats), DATA_AXIS, to='varying')
        batch = batch | {'image': batch['image'].reshape(-1, *batch['image'].shape[-3:])}  # views of one are images too
        drawn = draw(self.normalize, self.erase, self.mix, partial(stream, key), state.step, batch['image'].shape[1:3])
        loss_and_gradients = jax.value_and_grad(
            partial(self._loss, self._loss_scale(state), drawn, teachers, self._progress(state.step)), has_aux=True)
        batch = drawn.with_partners(batch, DATA_AXIS)

        def accumulate(carry, numbered_part):
            i, part = numbered_part
            stats, *sums = carry
            (_, (loss, accuracy, stats)), gradients = loss_and_gradients(
                params, stats, part, self._model_keys(key, i))
            return (stats, *jax.tree.map(jnp.add, sums, [gradients, loss, accuracy])), None

        zero = jax.lax.pcast(jnp.zeros((), jnp.float32), DATA_AXIS, to='varying')
        carry = (stats, jax.tree.map(jnp.zeros_like, params), zero, zero)
        if self.accumulation == 1:  # without a scan, XLA schedules across what would be the loop's edge
            carry, _ = accumulate(carry, (0, batch))
        else:
            parts = jax.tree.map(lambda x: x.reshape(self.accumulation, x.shape[0] // self.accumulation, *x.shape[1:]),
                                 batch)
            carry, _ = jax.lax.scan(accumulate, carry, (jnp.arange(self.accumulation), parts))
        stats, gradients, loss, accuracy = small_arrays.together(self._mean, carry)
        # The norm is divided, not every array ahead of it: what divides small ones is a part of their updates then.
        scale = self.accumulation * self._loss_scale(state)
        grad_norm = small_arrays.norm(gradients) / scale
        gradients = jax.tree.map(lambda g: g / scale, gradients)
        return stats, gradients, grad_norm, loss / self.accumulation, accuracy / self.accumulation

    def _mean(self, tree):
        """Over the devices. XLA for a CPU would copy all of one device to average it."""
        return jax.lax.pmean(tree, DATA_AXIS) if self.mesh.size > 1 else tree

    def _loss_scale(self, state):
        """What the loss is multiplied by: outside float16 a constant, which XLA leaves out."""
        return state.loss_scale if self.model.dtype == jnp.float16 else 1.0

    def _model_keys(self, key, part) -> dict:
        """What the model draws from, by stream: other numbers on each device and in each part."""
        device = jax.lax.axis_index(DATA_AXIS)
        return {name: jax.random.fold_in(jax.random.fold_in(stream(key, name), device), part) for name in MODEL_STREAMS}

    def _progress(self, step) -> dict:
        """The collection that tells the model how far training is, where it asks."""
        if not (self.steps and getattr(self.model, 'drop_block', 0)):
            return {}
        return {PROGRESS: {'fraction': jnp.minimum(step.astype(jnp.float32) / self.steps, 1.0)}}

    def _loss(self, loss_scale, drawn, teachers, progress, params, stats, part, keys):
        """(scaled loss, (loss, accuracy, statistics)) of one part on one device."""
        frozen = self.optimizer.frozen(params)
        # XLA leaves out whatever the gradients of frozen parameters alone would need.
        params = jax.tree.map(lambda p, still: jax.lax.stop_gradient(p) if still else p, params, frozen)
        variables = {'params': params, 'batch_stats': stats, FROZEN: frozen_norms(frozen, stats), **progress}
        images = drawn.images(part)
        logits, updated = self.model.apply(variables, images, train=True, mutable=['batch_stats'], rngs=keys)
        if self.task.consistency:
            logits = logits.reshape(len(part['label']), -1, logits.shape[-1])
        targets_of = partial(self.task.targets, num_classes=logits.shape[-1], dtype=at_least_float32(logits).dtype)
        targets = drawn.targets(part, targets_of)
        losses = self.task.loss(logits, targets)
        losses = self.teacher(*teachers, images, logits, losses) if self.teacher else losses
        loss, accuracy = losses.mean(), self.task.accuracy(logits, targets).mean()
        return loss * loss_scale, (loss, accuracy, updated.get('batch_stats', {}))

    def _update(self, state, rate, stats, gradients, grad_norm, loss, accuracy):
        """Applies one update, or where anything is not finite none of it."""
        rate *= state.watch.rate_scale
        # Of the update the rate alone can overflow: the ranges of the optimizer's options keep its direction finite. To
        # look at every direction too was measured at 3% more bytes and 229 more kernels for ResNet-50 on a GPU.
        good = jnp.isfinite(loss) & jnp.isfinite(rate * grad_norm)
        direction, opt_state = self.optimizer.direction(gradients, state.opt_state, state.params)
        params = jax.tree.map(lambda p, d: p - rate * d, state.params, direction)
        updates = state.updates + 1
        slow, params = self.lookahead(state.slow, params, updates)
        ema = self._average(state, {'params': params, 'batch_stats': stats})
        made = {'params': params, 'batch_stats': stats, 'opt_state': opt_state, 'ema': ema, 'slow': slow,
                'updates': updates}
        made = jax.tree.map(partial(jnp.where, good), made, {name: getattr(state, name) for name in made})
        bad = (~good).astype(jnp.int32)
        new = state.replace(**made, **self._scale(state, good), step=state.step + 1, bad_steps=state.bad_steps + bad,
                            bad_in_a_row=bad * (state.bad_in_a_row + 1))
        metrics = {'loss': loss, 'accuracy': accuracy, 'learning_rate': rate, 'grad_norm': grad_norm,
                   'loss_scale': state.loss_scale, 'bad_steps': new.bad_steps, 'bad_in_a_row': new.bad_in_a_row}
        return new, jax.tree.map(lambda x: x.astype(jnp.float32), metrics)

    def _average(self, state, new):
        """The running average, a step further."""
        if not self.ema_decay:
            return state.ema
        t = state.updates.astype(jnp.float32)
        decay = jnp.minimum(self.ema_decay, (1 + t) / (10 + t))
        return jax.tree.map(lambda old, new: decay * old + (1 - decay) * new, state.ema, new)

    def _scale(self, state, good) -> dict:
        """The loss scale after a step, and how many good ones it has stood for."""
        if self.model.dtype != jnp.float16:
            return {}
        grow = good & (state.good_steps + 1 >= SCALE_INTERVAL)
        scale = jnp.where(grow, jnp.minimum(state.loss_scale * 2, MAX_SCALE), state.loss_scale)
        return {'loss_scale': jnp.where(good, scale, jnp.maximum(state.loss_scale / 2, 1.0)),
                'good_steps': jnp.where(good & ~grow, state.good_steps + 1, 0)}


def _key_data(seed: int) -> np.ndarray:
    """On the host, whence every process may give it to a program of all."""
    return np.asarray(jax.random.key_data(seed_key(seed)))
