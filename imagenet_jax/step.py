"""The state of a run, and the two pure functions that the loop calls: train_step and eval_step.

Both are SPMD over a mesh with one axis, the data: parameters on every device, the batch split.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import flax.linen as nn
import flax.struct
import flax.traverse_util
import jax
import jax.numpy as jnp
import optax
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from imagenet_jax import losses, optim
from imagenet_jax.models.layers import DATA_AXIS, FROZEN
from imagenet_jax.optim import Optimizer

# float16 loss scaling (arXiv 1710.03740): doubled after so many finite steps in a row, halved at each overflow.
SCALE_INTERVAL = 2000
INITIAL_SCALE = 2.0**16
MAX_SCALE = 2.0**24


class TrainState(flax.struct.PyTreeNode):
    """All that a run is, and all that a checkpoint holds.

    Attributes:
      step: batches consumed; addresses data, randomness and checkpoints, and advances whatever the batch gave.
      key: raw PRNG key data; never changes.
      params, batch_stats: of the model.
      opt_state: optax's.
      ema: running average of {'params', 'batch_stats'}, or {} where there is none.
      loss_scale: of float16; stays 1 for other dtypes.
      good_steps: finite steps since the scale last changed.
      bad_steps: steps so far whose loss or gradients were not finite.
      bad_in_a_row: the current run of them.
    """
    step: jax.Array
    key: jax.Array
    params: Any
    batch_stats: Any
    opt_state: optax.OptState
    ema: Any
    loss_scale: jax.Array
    good_steps: jax.Array
    bad_steps: jax.Array
    bad_in_a_row: jax.Array

    @property
    def variables(self) -> dict:
        """What `model.apply` takes."""
        return {'params': self.params, 'batch_stats': self.batch_stats}


def make_mesh(devices: Sequence[jax.Device] | None = None) -> Mesh:
    """The devices (all of all hosts, unless named) along the data axis."""
    devices = jax.devices() if devices is None else devices
    # Auto: explicit axes refuse gathers and reshapes whose sharding is ambiguous.
    return jax.make_mesh((len(devices),), (DATA_AXIS,), axis_types=(AxisType.Auto,), devices=devices)


def create_state(model: nn.Module, optimizer: Optimizer, mesh: Mesh, *, seed: int, image_size: int,
                 ema: bool = False, loaded: dict | None = None) -> TrainState:
    """The state before the first step, on every device of the mesh.

    Args:
      loaded: {'params', 'batch_stats'}, arrays to start from; what it lacks is initialised.
    """
    make = partial(_initial_state, model, optimizer, seed, image_size, ema)
    return jax.jit(make, out_shardings=NamedSharding(mesh, P()))(loaded or {})


def abstract_state(model: nn.Module, optimizer: Optimizer, mesh: Mesh, *, seed: int, image_size: int,
                   ema: bool = False) -> TrainState:
    """Shapes, dtypes and sharding of what `create_state` answers; nothing is computed."""
    state = jax.eval_shape(partial(_initial_state, model, optimizer, seed, image_size, ema), {})
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=NamedSharding(mesh, P())), state)


def _initial_state(model, optimizer, seed, image_size, ema, loaded) -> TrainState:
    key = jax.random.key(seed)
    variables = model.init(key, jnp.zeros((1, image_size, image_size, 3), jnp.float32), train=False)
    flatten, unflatten = flax.traverse_util.flatten_dict, flax.traverse_util.unflatten_dict
    variables = unflatten(flatten(variables) | flatten(loaded))
    params, stats = variables['params'], variables.get('batch_stats', {})
    return TrainState(
        step=jnp.int32(0), key=jax.random.key_data(key), params=params, batch_stats=stats,
        opt_state=optimizer.transform.init(params), ema={'params': params, 'batch_stats': stats} if ema else {},
        loss_scale=jnp.float32(INITIAL_SCALE if model.dtype == jnp.float16 else 1.0), good_steps=jnp.int32(0),
        bad_steps=jnp.int32(0), bad_in_a_row=jnp.int32(0))


def make_train_step(model: nn.Module, optimizer: Optimizer, preprocess: Callable, mesh: Mesh, *,
                    loss: str = 'softmax', label_smoothing: float = 0.0, accumulation: int = 1,
                    ema_decay: float = 0.0, freeze: Sequence[str] = ()) -> Callable:
    """Makes (state, batch) -> (state, metrics), jitted, the state donated.

    Args:
      model: called with train=True.
      optimizer: from `optim.create`.
      preprocess: uint8 images -> float images, on the device.
      mesh: from `make_mesh`.
      loss: one of `losses.LOSSES`.
      label_smoothing: see there.
      accumulation: parts that each device's share of the batch is cut into, their gradients averaged into one update.
      ema_decay: of the running average, warmed up as min(decay, (1 + t) / (10 + t)); 0 for none.
      freeze: patterns (`optim.matching`) of parameters that need no gradient. A norm all of whose parameters are
        frozen uses its running statistics and leaves them as they are. The optimizer must have the same patterns.

    The batch holds image, uint8 (B, H, W, 3), and label, int32 (B,), or for 'sigmoid' float32 (B, K). The metrics are
    float32 scalars: loss, accuracy (fraction), learning_rate, grad_norm, loss_scale, bad_steps, bad_in_a_row.
    """
    loss_of = partial(losses.LOSSES[loss], smoothing=label_smoothing)
    step = partial(_train_step, model, optimizer, preprocess, loss_of, accumulation, ema_decay, freeze)
    return jax.jit(jax.shard_map(step, mesh=mesh, in_specs=(P(), P(DATA_AXIS)), out_specs=P()), donate_argnums=0)


def _train_step(model, optimizer, preprocess, loss_of, accumulation, ema_decay, freeze, state, batch):
    key = jax.random.fold_in(jax.random.wrap_key_data(state.key), state.step)
    key = jax.random.fold_in(key, jax.lax.axis_index(DATA_AXIS))
    # With parameters varying, gradients stay each device's own until the one all-reduce below, in float32. Replicated
    # ones would come summed over devices already, and in the compute dtype.
    params, stats = jax.lax.pcast((state.params, state.batch_stats), DATA_AXIS, to='varying')
    frozen = optim.matching(params, freeze)

    def loss_fn(params, stats, part, key):
        # XLA leaves out whatever the gradients of frozen parameters alone would need.
        params = jax.tree.map(lambda p, still: jax.lax.stop_gradient(p) if still else p, params, frozen)
        variables = {'params': params, 'batch_stats': stats, FROZEN: _frozen_norms(frozen, stats)}
        logits, updated = model.apply(variables, preprocess(part['image']), train=True, mutable=['batch_stats'],
                                      rngs={'dropout': key})
        loss, accuracy = (f(logits, part['label']).mean() for f in (loss_of, losses.accuracy))
        return loss * state.loss_scale, (loss, accuracy, updated.get('batch_stats', {}))

    def accumulate(carry, numbered_part):
        i, part = numbered_part
        stats, *sums = carry
        (_, (loss, accuracy, stats)), gradients = jax.value_and_grad(loss_fn, has_aux=True)(
            params, stats, part, jax.random.fold_in(key, i))
        return (stats, *jax.tree.map(jnp.add, sums, [gradients, loss, accuracy])), None

    zero = jax.lax.pcast(jnp.zeros((), jnp.float32), DATA_AXIS, to='varying')
    carry = (stats, jax.tree.map(jnp.zeros_like, params), zero, zero)
    if accumulation == 1:  # without a scan, XLA schedules across what would be the loop's edge
        carry, _ = accumulate(carry, (0, batch))
    else:
        parts = jax.tree.map(lambda x: x.reshape(accumulation, x.shape[0] // accumulation, *x.shape[1:]), batch)
        carry, _ = jax.lax.scan(accumulate, carry, (jnp.arange(accumulation), parts))
    stats, gradients, loss, accuracy = jax.lax.pmean(carry, DATA_AXIS)
    gradients = jax.tree.map(lambda g: g / (accumulation * state.loss_scale), gradients)
    loss, accuracy = loss / accumulation, accuracy / accumulation
    return _update(optimizer, ema_decay, model.dtype, state, stats, gradients, loss, accuracy)


def _frozen_norms(frozen, stats) -> dict:
    """The collection that tells the norms whose parameters are all frozen."""
    norms = {path[:-1]: [] for path in flax.traverse_util.flatten_dict(stats)}
    for path, still in flax.traverse_util.flatten_dict(frozen).items():
        norms.get(path[:-1], []).append(still)
    return flax.traverse_util.unflatten_dict({(*norm, 'norm'): () for norm, still in norms.items()
                                              if still and all(still)})


def _update(optimizer, ema_decay, dtype, state, stats, gradients, loss, accuracy):
    """Applies one update, or where anything is not finite none of it."""
    grad_norm = optax.tree.norm(gradients)
    good = jnp.isfinite(loss) & jnp.isfinite(grad_norm)
    updates, opt_state = optimizer.transform.update(gradients, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
    ema = state.ema
    if ema_decay:
        t = state.opt_state[-1].count.astype(jnp.float32)
        decay = jnp.minimum(ema_decay, (1 + t) / (10 + t))
        ema = jax.tree.map(lambda old, new: decay * old + (1 - decay) * new, ema,
                           {'params': params, 'batch_stats': stats})
    old = (state.params, state.batch_stats, state.opt_state, state.ema)
    params, stats, opt_state, ema = jax.tree.map(partial(jnp.where, good), (params, stats, opt_state, ema), old)

    loss_scale, good_steps = state.loss_scale, state.good_steps
    if dtype == jnp.float16:
        grow = good & (good_steps + 1 >= SCALE_INTERVAL)
        loss_scale = jnp.where(good, jnp.where(grow, jnp.minimum(loss_scale * 2, MAX_SCALE), loss_scale),
                               jnp.maximum(loss_scale / 2, 1.0))
        good_steps = jnp.where(good & ~grow, good_steps + 1, 0)
    bad = (~good).astype(jnp.int32)
    new = state.replace(step=state.step + 1, params=params, batch_stats=stats, opt_state=opt_state, ema=ema,
                        loss_scale=loss_scale, good_steps=good_steps, bad_steps=state.bad_steps + bad,
                        bad_in_a_row=bad * (state.bad_in_a_row + 1))
    metrics = {'loss': loss, 'accuracy': accuracy, 'learning_rate': optimizer.learning_rate(state.opt_state),
               'grad_norm': grad_norm, 'loss_scale': state.loss_scale, 'bad_steps': new.bad_steps,
               'bad_in_a_row': new.bad_in_a_row}
    return new, jax.tree.map(lambda x: x.astype(jnp.float32), metrics)


def make_eval_step(model: nn.Module, preprocess: Callable, mesh: Mesh, *, loss: str = 'softmax') -> Callable:
    """Makes (variables, batch) -> sums over the batch's real images, jitted.

    The batch is `input_pipeline.eval_batches`'s. The sums: count and bad_samples (int32), loss (float32), and

    for 'softmax': top1 and top5 (int32), confusion (int32 (K, K), rows the label, columns the prediction). An
    unreadable image counts, and counts as wrong; it has no place in the confusion matrix;

    for 'sigmoid', where a measure needs the whole split: scores and labels, float32 (B, K), the rows of all devices
    on each. A score is the logit, or where it is not finite or the image is unreadable -inf, the worst; labels are NaN
    in rows of padding.
    """
    if loss == 'softmax':
        step, specs = _eval_step, P()
    else:
        step, specs = _score_step, {'count': P(), 'bad_samples': P(), 'loss': P(),
                                   'scores': P(DATA_AXIS), 'labels': P(DATA_AXIS)}
    step = jax.shard_map(partial(step, model, preprocess), mesh=mesh, in_specs=(P(), P(DATA_AXIS)), out_specs=specs)
    return jax.jit(step, out_shardings=NamedSharding(mesh, P()))


def _eval_step(model, preprocess, variables, batch):
    logits = model.apply(variables, preprocess(batch['image']), train=False)
    label, mask = batch['label'], batch['mask']
    classes = logits.shape[-1]
    loss = losses.cross_entropy(logits, label)
    # top_k answers ties by index and sorts NaN first: a collapsed model must not count as right.
    _, best = jax.lax.top_k(logits, min(5, classes))
    valid = mask & (batch['bad'] < 0) & jnp.isfinite(loss)
    hits = (best == label[:, None]) & valid[:, None]
    sums = {**_counts(batch), 'top1': hits[:, 0].sum(dtype=jnp.int32),
            'top5': hits.sum(dtype=jnp.int32), 'loss': jnp.where(mask, loss, 0.0).sum(),
            'confusion': jnp.zeros((classes, classes), jnp.int32).at[label, best[:, 0]].add(valid.astype(jnp.int32))}
    return jax.lax.psum(sums, DATA_AXIS)


def _score_step(model, preprocess, variables, batch):
    logits = model.apply(variables, preprocess(batch['image']), train=False)
    label, mask = batch['label'], batch['mask']
    loss = losses.sigmoid_cross_entropy(logits, label)
    sums = {**_counts(batch), 'loss': jnp.where(mask, loss, 0.0).sum()}
    valid = (batch['bad'] < 0)[:, None] & jnp.isfinite(logits)
    return jax.lax.psum(sums, DATA_AXIS) | {'scores': jnp.where(valid, logits, -jnp.inf),
                                            'labels': jnp.where(mask[:, None], label, jnp.nan)}


def _counts(batch):
    """Images, and those of them that cannot be read."""
    return {'count': batch['mask'].sum(dtype=jnp.int32), 'bad_samples': (batch['bad'] >= 0).sum(dtype=jnp.int32)}
