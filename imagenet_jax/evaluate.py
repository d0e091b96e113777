"""Evaluation: every image of a split counted exactly once."""

from collections.abc import Callable, Iterable

import jax
import jax.numpy as jnp
import numpy as np

from imagenet_jax.metrics.average_precision import average_precision


def evaluate(eval_step: Callable, variables: dict, batches: Iterable[tuple[dict, dict]], expected: int,
             check: Callable[[dict], None] = lambda batch: None) -> dict:
    """Runs a split through the model.

    Args:
      eval_step: from `step.make_eval_step`.
      variables: of the model, on the devices.
      batches: pairs (host batch, device batch) of the whole split.
      expected: images in the split.
      check: called with each host batch, such as `BadSamples.check`.

    Returns:
      top1, top5 (fractions of all images), loss (nats an image), bad_samples (unreadable ones, of all processes), and
      confusion, int (K, K), rows the label; from an eval step for 'sigmoid', average_precision, (K,), its
      mean_average_precision over the classes that have images, loss and bad_samples.

    Raises:
      AssertionError: the images counted are not `expected`.
    """
    total, rows = None, []
    for host_batch, batch in batches:
        check(host_batch)
        sums = eval_step(variables, batch)
        rows.append({name: sums.pop(name) for name in ('scores', 'labels') if name in sums})
        # The sum of the batch before last is waited for, so that batches do not pile up on the devices.
        jax.block_until_ready(total)
        total = sums if total is None else jax.tree.map(jnp.add, total, sums)
        rows[-2:-1] = jax.device_get(rows[-2:-1])
    total = jax.device_get(total)
    count = int(total['count'])
    assert count == expected, f'evaluation counted {count} images of {expected}'
    both = {'loss': float(total['loss']) / count, 'bad_samples': int(total['bad_samples'])}
    if rows[0]:
        scores, labels = (np.concatenate([row[name] for row in jax.device_get(rows)]) for name in ('scores', 'labels'))
        classes = average_precision(scores, labels)
        return {'mean_average_precision': _mean(classes), 'average_precision': classes, **both}
    return {'top1': int(total['top1']) / count, 'top5': int(total['top5']) / count, **both,
            'confusion': total['confusion']}


def _mean(values: np.ndarray) -> float:
    """Of those that are not NaN; NaN where there are none."""
    return float(np.mean(values[~np.isnan(values)])) if np.isfinite(values).any() else float('nan')
