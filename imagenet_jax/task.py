"""What a model is trained for: targets made of labels, the loss, accuracy, what an evaluation adds up, and the answer.

A task is chosen by config.loss and asked for everything that depends on it; no other file asks which one it is.
"""

import abc
import dataclasses
from typing import TYPE_CHECKING, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import optax

from imagenet_jax.errors import UserError
from imagenet_jax.metrics.average_precision import average_precision
from imagenet_jax.metrics.calibration import binned
from imagenet_jax.metrics.evaluation_result import Result
from imagenet_jax.metrics.per_class import Counts, mean
from imagenet_jax.models.layers import at_least_float32
from imagenet_jax.options import refuse_above

if TYPE_CHECKING:  # a step can be compiled where no reader of data is installed
    from imagenet_jax.sources import Source


@dataclasses.dataclass(frozen=True, kw_only=True)
class Task(abc.ABC):
    """What images are labelled with, and how a model's logits are held against it.

    Attributes:
      smoothing: of the targets that training takes; each task says how. An evaluation's loss has none.
      score: the number of an evaluation that the best checkpoint is chosen by.
      multi_label: whether an image may have several classes.
      consistency: where not 0, training gives logits of several views of each image; each task says how.
    """
    smoothing: float = 0.0
    score: ClassVar[str]
    multi_label: ClassVar[bool]
    consistency: ClassVar[float] = 0.0

    def __post_init__(self):
        if not 0 <= self.smoothing < 1:
            raise UserError(f'config.loss.smoothing={self.smoothing} must be in [0, 1)')

    def loss(self, logits: jax.Array, targets: jax.Array) -> jax.Array:
        """(N, K) of either -> (N,), in nats: float32 or, of float64 logits, float64.

        Raises:
          ValueError: targets of another shape, such as labels that no targets were made of.
        """
        if logits.shape != targets.shape:
            raise ValueError(f'targets {targets.shape} must have the shape of the logits, {logits.shape}')
        return self._loss(at_least_float32(logits), targets)

    @abc.abstractmethod
    def targets(self, labels: jax.Array, num_classes: int, dtype: jnp.dtype = jnp.float32) -> jax.Array:
        """Labels as a source has them -> smoothed targets, (N, K) of `dtype`, which is float32 or wider."""

    @abc.abstractmethod
    def _loss(self, logits, targets): ...

    @abc.abstractmethod
    def accuracy(self, logits: jax.Array, targets: jax.Array) -> jax.Array:
        """(N, K) of either -> float32 (N,), in 0..1."""

    @abc.abstractmethod
    def measure(self, logits: jax.Array, labels: jax.Array, mask: jax.Array,
                readable: jax.Array) -> tuple[dict, dict]:
        """What a batch of evaluation gives.

        Args:
          logits: (N, K) float.
          labels: as a source has them.
          mask: bool (N,), False for padding, which counts as nothing.
          readable: bool (N,), False for images that could not be decoded, which count as wrong.

        Returns:
          Sums over the batch, and what has to be kept of each image, arrays of N rows.
        """

    @abc.abstractmethod
    def result(self, sums: dict, rows: dict, count: int) -> Result:
        """Of the whole split: the sums of `measure` added up, its rows one after the other, and how many images."""

    @abc.abstractmethod
    def probabilities(self, logits: jax.Array) -> jax.Array:
        """(N, K) -> (N, K) in 0..1: how likely each class is."""

    def own(self, logits: jax.Array, labels: jax.Array) -> jax.Array:
        """int32 (N,): each image's class; of several that of the largest logit, -1 where it has none."""
        return labels

    @abc.abstractmethod
    def average(self, logits: jax.Array) -> jax.Array:
        """(V, N, K) of several answers -> (N, K): logits of the mean of their probabilities.

        In logarithms, so that what is nearly certain keeps its degree.
        """

    @abc.abstractmethod
    def likely(self, probabilities: np.ndarray, top: int) -> np.ndarray:
        """Of one image's (K,): numbers of the classes to name, likeliest first."""

    @abc.abstractmethod
    def check(self, source: 'Source') -> None:
        """Raises UserError where the source's labels are of another kind."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Softmax(Task):
    """Each image is of one class; labels are int (N,).

    Smoothing eps (arXiv 1512.00567): the target of the label is 1 - eps + eps/K, of every other class eps/K.

    Attributes:
      exclude_target: smoothing takes nothing back to the label: its target is 1 - eps, of every other eps/(K-1).
      consistency: of `loss` where logits are of V views of each image, (N, V, K): the loss of the first, and this
        weight, 12 in AugMix (arXiv 1912.02781), times `jensen_shannon`. Accuracy is that of the first.
    """
    score = 'top1'
    multi_label = False
    exclude_target: bool = False
    consistency: float = 0.0

    def __post_init__(self):
        super().__post_init__()
        if self.exclude_target and not self.smoothing:
            raise UserError('config.loss.exclude_target says how labels are smoothed, and config.loss.smoothing is 0')
        if self.consistency < 0:
            raise UserError(f'config.loss.consistency={self.consistency} must not be negative')
        refuse_above(self, 'config.loss', consistency=10**6)

    def targets(self, labels, num_classes, dtype=jnp.float32):
        own = jax.nn.one_hot(labels, num_classes, dtype=dtype)
        if self.exclude_target:
            return own * (1 - self.smoothing) + (1 - own) * self.smoothing / max(1, num_classes - 1)
        return optax.smooth_labels(own, self.smoothing)

    def loss(self, logits, targets):
        if logits.ndim == 2:
            return super().loss(logits, targets)
        return super().loss(logits[:, 0], targets) + self.consistency * jensen_shannon(logits)

    def _loss(self, logits, targets):
        return optax.softmax_cross_entropy(logits, targets)

    def accuracy(self, logits, targets):
        """Whether the largest logit is that of the largest target."""
        logits = logits if logits.ndim == 2 else logits[:, 0]
        return (logits.argmax(-1) == targets.argmax(-1)).astype(jnp.float32)

    def measure(self, logits, labels, mask, readable):
        classes = logits.shape[-1]
        loss = optax.softmax_cross_entropy(at_least_float32(logits), jax.nn.one_hot(labels, classes, dtype=jnp.float32))
        # top_k answers ties by index and sorts NaN first: a collapsed model must not count as right.
        _, best = jax.lax.top_k(logits, min(5, classes))
        valid = mask & readable & jnp.isfinite(loss)
        hits = (best == labels[:, None]) & valid[:, None]
        confusion = jnp.zeros((classes, classes), jnp.int32).at[labels, best[:, 0]].add(valid.astype(jnp.int32))
        confidence = jnp.where(valid, jax.nn.softmax(at_least_float32(logits)).max(-1), 0)
        return {'loss': jnp.where(mask, loss, 0.0).sum(), 'top1': hits[:, 0].sum(dtype=jnp.int32),
                'top5': hits.sum(dtype=jnp.int32), 'confusion': confusion,
                'labels': jnp.zeros(classes, jnp.int32).at[labels].add(mask.astype(jnp.int32)),
                'calibration': binned(confidence, hits[:, 0], mask)}, {}

    def result(self, sums, rows, count):
        """An image without an answer is of its class, and predicted as none."""
        counts = Counts(sums['confusion'].diagonal(), sums['confusion'].sum(0), sums['labels'])
        scalars = {name: float(sums[name]) / count for name in ('top1', 'top5', 'loss')} | {
            'macro_f1': counts.macro_f1(), 'mean_class_accuracy': mean(counts.accuracy()),
            'expected_calibration_error': sums['calibration'].error}
        return Result(scalars, {'class_accuracy': counts.accuracy()}, sums['confusion'], sums['calibration'])

    def probabilities(self, logits):
        return jax.nn.softmax(logits)

    def average(self, logits):
        return jax.nn.logsumexp(jax.nn.log_softmax(logits), 0)

    def likely(self, probabilities, top):
        return np.argsort(-probabilities, kind='stable')[:top]

    def check(self, source):
        if source.multi_label:
            raise UserError('this loss is for images of one class each, and these may have several: that is what '
                            'config.loss.name=sigmoid is for')


@dataclasses.dataclass(frozen=True, kw_only=True)
class BinaryCrossEntropy(Softmax):
    """As `Softmax`, trained by a yes or no for each class ("ResNet strikes back", arXiv 2110.00476): the loss of an
    image is the mean over the classes, and mixed images may be of both of theirs.

    All else is that of `Softmax`, the loss of an evaluation too, which so compares with that of other runs. A softmax
    of such logits is what is likely, given that exactly one of the answers is yes.

    Attributes:
      threshold: targets above it, once mixed, become 1 and all others 0, which undoes their smoothing; unset: they stay
        what they are.
    """
    threshold: float = None

    def __post_init__(self):
        super().__post_init__()
        if self.threshold is not None and not 0 <= self.threshold < 1:
            raise UserError(f'config.loss.threshold={self.threshold} must be in [0, 1)')

    def _loss(self, logits, targets):
        if self.threshold is not None:
            targets = (targets > self.threshold).astype(targets.dtype)
        return optax.sigmoid_binary_cross_entropy(logits, targets).mean(-1)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sigmoid(Task):
    """Each class is there or not; labels are float (N, K) of 0 and 1, and NaN where a class is not counted.

    Smoothing eps: a target is 1 - eps/2 for 1 and eps/2 for 0, as `Softmax` has it for two classes. The loss of an
    image is the mean over its counted classes, 0 where it has none. F1 is of classes that are likelier than not.
    """
    score = 'mean_average_precision'
    multi_label = True

    def targets(self, labels, num_classes, dtype=jnp.float32):
        del num_classes
        return labels.astype(dtype) * (1 - self.smoothing) + self.smoothing / 2

    def _loss(self, logits, targets):
        # NaN is replaced before the loss, not masked after it: its gradient would be NaN all the same.
        return _mean_of_counted(optax.sigmoid_binary_cross_entropy(logits, jnp.nan_to_num(targets)), targets)

    def accuracy(self, logits, targets):
        """The fraction of counted classes that the logit has the right sign for."""
        return _mean_of_counted((logits > 0) == (targets > 0.5), targets)

    def measure(self, logits, labels, mask, readable):
        """Rows, since the measure needs the whole split: scores, the logits, or -inf, the worst, where one is not
        finite or the image unreadable; labels, NaN in rows of padding."""
        loss = self.loss(logits, labels)
        valid = readable[:, None] & jnp.isfinite(logits)
        return {'loss': jnp.where(mask, loss, 0.0).sum()}, {
            'scores': jnp.where(valid, logits, -jnp.inf), 'labels': jnp.where(mask[:, None], labels, jnp.nan)}

    def result(self, sums, rows, count):
        scores, labels = rows['scores'], rows['labels']
        precision, said, there = average_precision(scores, labels), scores > 0, labels == 1
        counts = Counts(*(x.sum(0) for x in (said & there, said & ~np.isnan(labels), there)))
        return Result({'mean_average_precision': mean(precision), 'macro_f1': counts.macro_f1(),
                       'loss': float(sums['loss']) / count}, {'average_precision': precision})

    def probabilities(self, logits):
        return jax.nn.sigmoid(logits)

    def own(self, logits, labels):
        best = jnp.where(labels == 1, logits, -jnp.inf).argmax(-1).astype(jnp.int32)
        return jnp.where((labels == 1).any(-1), best, -1)

    def average(self, logits):
        yes, no = (jax.nn.logsumexp(jax.nn.log_sigmoid(each), 0) for each in (logits, -logits))
        return yes - no

    def likely(self, probabilities, top):
        """All that are likelier than not, however many."""
        del top
        order = np.argsort(-probabilities, kind='stable')
        return order[probabilities[order] > 0.5]

    def check(self, source):
        if not source.multi_label:
            raise UserError('loss sigmoid is for images that may have several classes, and these have one each: that '
                            'is what config.loss.name=softmax is for (voc has both: config.data.labels=all)')
        if not (source.labels == 1).any():
            raise UserError(f'none of {len(source)} images is of any class')


def _mean_of_counted(values, targets) -> jax.Array:
    """Over the classes whose target is not NaN."""
    counted = ~jnp.isnan(targets)
    values = at_least_float32(jnp.where(counted, values, 0))
    return values.sum(-1) / jnp.maximum(counted.sum(-1), 1)


def jensen_shannon(logits: jax.Array) -> jax.Array:
    """How far the answers to V views of an image are from one another (arXiv 1912.02781).

    Args:
      logits: (N, V, K) float.

    Returns:
      (N,), in nats: the mean over the views of the Kullback-Leibler divergence of their mean from each. The mean is at
      least 1e-7 for each class, as in the authors' code.
    """
    log_p = jax.nn.log_softmax(at_least_float32(logits))
    mean = jnp.exp(log_p).mean(1, keepdims=True).clip(1e-7, 1)
    return optax.losses.kl_divergence_with_log_targets(jnp.log(mean), log_p).mean(1)


# config.loss.name -> the task.
TASKS = {'softmax': Softmax, 'sigmoid': Sigmoid, 'bce': BinaryCrossEntropy}
