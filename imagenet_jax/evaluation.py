"""A model on a split, every image counted exactly once: for the loop and for the command alike."""

import contextlib
import dataclasses
import functools
import itertools
import logging
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from imagenet_jax import input_pipeline, memory
from imagenet_jax.images.decode import DecodeError
from imagenet_jax.metrics.evaluation_result import Result
from imagenet_jax.models.layers import DATA_AXIS, at_least_float32
from imagenet_jax.sources import Source
from imagenet_jax.task import Task
from imagenet_jax.workers import Workers

log = logging.getLogger(__name__)


class Mistake(NamedTuple):
    """An image whose class was not the one predicted: uint8 pixels as the model saw them, its place in the source, the
    class it was taken for, and the probability of that."""
    image: np.ndarray
    index: int
    predicted: int
    confidence: float


def make_eval_step(answer: Callable, task: Task, mesh: Mesh, top: int = 0,
                   outputs: Sequence[int] | None = None) -> Callable:
    """Makes (variables, batch) -> (sums, rows), jitted.

    `answer` is (variables, images) -> logits (N, K), such as an `Answer`. The batch is `input_pipeline.eval_batches`'s.
    The sums are over its real images: count, bad_samples and not_finite (int32: those that could not be read, and of
    the others those whose logits are not all finite), and the task's; the rows are the task's, of all devices on each;
    with `top` those of `Result.images` too, so many classes an image, for which the batch has to have `index`. Where
    `outputs` are given the model has no others, and labels are places among them.
    """
    def step(variables, batch):
        logits = answer(variables, batch['image'])
        logits = logits if outputs is None else logits[:, np.array(outputs)]
        mask, readable = batch['mask'], batch['bad'] < 0
        finite = jnp.isfinite(logits).all(-1)
        counts = {'count': mask, 'bad_samples': ~readable, 'not_finite': mask & readable & ~finite}
        sums, rows = task.measure(logits, batch['label'], mask, readable)
        sums |= {name: each.sum(dtype=jnp.int32) for name, each in counts.items()}
        if top:
            rows['images'] = _images(task, at_least_float32(logits), batch, mask & readable & finite, top)
        return jax.lax.psum(sums, DATA_AXIS), rows

    step = jax.shard_map(step, mesh=mesh, in_specs=(P(), P(DATA_AXIS)), out_specs=(P(), P(DATA_AXIS)))
    return jax.jit(step, out_shardings=NamedSharding(mesh, P()))


def _images(task, logits, batch, answered, top) -> dict:
    """The rows of `Result.images`."""
    _, classes = jax.lax.top_k(logits, min(top, logits.shape[-1]))
    own = task.own(logits, batch['label'])[:, None]
    score, number = jnp.take_along_axis(logits, own, -1), jnp.arange(logits.shape[-1])
    before = (logits > score) | ((logits == score) & (number < own))  # equals by number, as top_k has them
    return {'index': jnp.where(batch['mask'], batch['index'], -1), 'readable': batch['bad'] < 0,
            'classes': jnp.where(answered[:, None], classes, -1),
            'probabilities': jnp.take_along_axis(task.probabilities(logits), classes, -1),
            'rank': jnp.where(answered & (own[:, 0] >= 0), 1 + before.sum(-1, dtype=jnp.int32), 0)}


def measure(eval_step: Callable, task: Task, variables: dict, batches: Iterable[tuple[dict, dict]], expected: int,
            check: Callable[[dict], None] = lambda batch: None) -> Result:
    """Runs a split through the model.

    Args:
      eval_step: from `make_eval_step`.
      task: the same as in it.
      variables: of the model, on the devices.
      batches: pairs (host batch, device batch) of the whole split.
      expected: images in the split.
      check: called with each host batch, such as `BadSamples.check`.

    Returns:
      The task's result; its scalars have bad_samples too (unreadable images, of all processes).

    Raises:
      AssertionError: the images counted are not `expected`.
    """
    total, rows = None, []
    for host_batch, batch in batches:
        check(host_batch)
        sums, kept = eval_step(variables, batch)
        rows.append(kept)
        # The sum of the batch before last is waited for, so that batches do not pile up on the devices.
        jax.block_until_ready(total)
        total = sums if total is None else jax.tree.map(jnp.add, total, sums)
        rows[-2:-1] = jax.device_get(rows[-2:-1])
    total = jax.device_get(total)
    count = int(total['count'])
    assert count == expected, f'evaluation counted {count} images of {expected}'
    rows = jax.tree.map(lambda *parts: np.concatenate(parts), *jax.device_get(rows))
    images = rows.pop('images', {})
    result = task.result(total, rows, count)._replace(images=images)
    result.scalars['bad_samples'] = int(total['bad_samples'])
    _warn_not_finite(int(total['not_finite']), count, result.scalars['loss'])
    return result


def _warn_not_finite(images: int, count: int, loss: float) -> None:
    if images or not np.isfinite(loss):
        log.error('EVALUATION IS NOT FINITE: the answer to %d of %d images is NaN or infinite, which counts as wrong; '
                  'the loss is %s. The weights may have gone astray, or the dtype of the computation is too narrow: '
                  'float32 tells (config.model.dtype; --dtype of the command evaluate)', images, count, loss)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Evaluator:
    """Measures variables of a model on one split, as often as it is called.

    Attributes:
      answer, task: what is measured, and how; see `make_eval_step`.
      view: encoded image -> uint8 pixels, on the host, of its `shape`; its `one` makes a picture.
      source: the split.
      batch_size: on all devices together; changes no result.
      workers: who decodes.
      bad_samples: source -> what counts the unreadable ones of one pass.
      remedy: what to do where it takes too much memory.
      batches: of the split that are looked at; None: all.
      mistakes: how many `worst` gives; 0: nothing is kept for it.
      top: how many classes of each image the result has; 0: no more than `worst` needs.
      outputs: see `make_eval_step`; None: all of the model's.
      mesh: the devices.
    """
    answer: Callable
    task: Task
    view: Callable
    source: Source
    batch_size: int
    workers: Workers
    bad_samples: Callable[[Source], input_pipeline.BadSamples]
    mesh: Mesh
    remedy: str
    batches: int | None = None
    mistakes: int = 0
    top: int = 0
    outputs: Sequence[int] | None = None

    @functools.cached_property
    def _step(self) -> Callable:
        step = make_eval_step(self.answer, self.task, self.mesh, self._top, self.outputs)
        return memory.guarded(step, 'a step of evaluation', self.remedy)

    @property
    def _top(self) -> int:
        return max(self.top, bool(self.mistakes))

    def on(self, source: Source, view: Callable) -> 'Evaluator':
        """The same on another split, seen by another view; what is compiled serves both."""
        other = dataclasses.replace(self, source=source, view=view)
        other.__dict__['_step'] = self._step
        return other

    def __len__(self) -> int:
        """Batches of a pass."""
        return self.batches or -(-len(self.source) // self.batch_size)

    def __call__(self, variables: dict, shown: Callable[[Iterable], Iterable] = iter,
                 check: Callable[[int], None] = lambda at: None) -> Result:
        """One pass; `shown` is given the batches as they come, such as a progress bar, `check` the number of each.

        Raises:
          UserError: too many unreadable images, or too little memory; and what `check` raises.
        """
        bad, at = self.bad_samples(self.source), itertools.count()

        def look(host_batch):
            bad.check(host_batch)
            check(next(at))
        batches = input_pipeline.eval_batches(self.source, self.view, self.batch_size, self.workers)
        count = min(len(self) * self.batch_size, len(self.source))
        left_out = () if self._top else ('index',)
        with (memory.explained('evaluation', self.remedy),
              contextlib.closing(input_pipeline.to_devices(batches, self.mesh, left_out)) as pairs):
            result = measure(self._step, self.task, variables, shown(itertools.islice(pairs, len(self))), count, look)
        bad.check_total(result.scalars['bad_samples'])
        return result

    def worst(self, result: Result, among: np.ndarray | bool = True) -> list[Mistake]:
        """Of a pass, the mistakes that the model was surest of, `mistakes` at most; these images alone are read again.

        `among` is a bool for each row of `result.images`, False for those to leave out.
        """
        if not result.images:
            return []
        index, rank = result.images['index'], result.images['rank']
        predicted, confidence = result.images['classes'][:, 0], result.images['probabilities'][:, 0]
        wrong = np.flatnonzero((rank > 1) & (index >= 0) & among)
        found = []
        for at in wrong[np.lexsort((index[wrong], -confidence[wrong]))][:self.mistakes]:
            with contextlib.suppress(DecodeError, OSError):  # it could be read before
                found.append(Mistake(self.view.one(self.source.image(int(index[at]))), int(index[at]),
                                     int(predicted[at]), float(confidence[at])))
        return found
