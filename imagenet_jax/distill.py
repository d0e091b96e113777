"""Learning from another model: knowledge distillation (arXiv 1503.02531), config.distill."""

import dataclasses
import functools
import logging
from collections.abc import Sequence
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from imagenet_jax import contents, trained
from imagenet_jax.class_names import match
from imagenet_jax.errors import UserError, first_line
from imagenet_jax.images.batch import Normalize
from imagenet_jax.models.layers import at_least_float32
from imagenet_jax.task import Task

log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Teacher:
    """A trained model whose answers are targets: the losses of a batch become (1 - w) * losses + w * T^2 * KL, of the
    teacher's softmax at temperature T against the student's at the same.

    It is called as in evaluation, on the very pixels that the student sees, mixed as they are.

    Attributes:
      model, variables: for `model.apply`; its variables are an argument of a call, so that a program has them as one.
      places: of each class of the student, the teacher's output; () where they are in one order.
      seen_as: the student's normalisation, which images come with.
      normalize: the teacher's own.
      temperature: T, above 0.
      weight: w, above 0 and at most 1.
    """
    model: nn.Module
    variables: dict
    seen_as: Normalize
    normalize: Normalize
    temperature: float
    weight: float
    places: tuple[int, ...] = ()

    def __call__(self, variables: dict, images: jax.Array, logits: jax.Array, losses: jax.Array) -> jax.Array:
        """Images (N, H, W, 3) as the student sees them, its logits (N, K), its task's losses (N,) -> losses (N,)."""
        answers = (at_least_float32(x) / self.temperature for x in (logits, self.logits(variables, images)))
        divergence = optax.losses.kl_divergence_with_log_targets(*map(jax.nn.log_softmax, answers))
        return (1 - self.weight) * losses + self.weight * self.temperature**2 * divergence

    def logits(self, variables: dict, images: jax.Array) -> jax.Array:
        """Images (N, H, W, 3) as the student sees them -> (N, K), classes in the student's order."""
        if self.seen_as != self.normalize:
            mean, std, own_mean, own_std = map(np.asarray, (self.seen_as.mean, self.seen_as.std, self.normalize.mean,
                                                            self.normalize.std))
            scale, shift = (jnp.asarray(x, images.dtype) for x in (std / own_std, (mean - own_mean) / own_std))
            images = images * scale + shift
        answers = self.model.apply(variables, images, train=False)
        return answers[:, jnp.array(self.places)] if self.places else answers

    @functools.cached_property
    def checksum(self) -> int:
        """CRC-32 of its arrays: whether a run that resumes has the teacher that it had."""
        return contents.checksum(self.variables)


def load(*, teacher: str, temperature: float = 4.0, weight: float = 0.9, student: nn.Module, task: Task,
         normalize: Normalize, class_names: Sequence[str], size: int) -> Teacher:
    """Reads the section; to be called by `options.apply`.

    Args:
      teacher: the folder of a run (its best checkpoint, or where none was evaluated the newest) or of an import, or
        weights that say what they are, as `trained.load` takes them.
      temperature, weight: see `Teacher`. The paper tells of 1 to 20, and of little weight on the labels; the defaults
        are those of most comparisons since, such as arXiv 1910.10699.
      student, task, normalize: of the run. The teacher computes in the student's dtype, since it takes most of the
        step's time and an import would always be of float32.
      class_names: of the run's data, in the order of the student's outputs; () where unknown.
      size: side in pixels of the images it is shown.

    Raises:
      UserError: no such folder, it is damaged, its classes are others, or it does not take such images.
    """
    if not 0 < temperature <= 1000:
        raise UserError(f'config.distill.temperature={temperature} must be positive, and at most 1000')
    if not 0 < weight <= 1:
        raise UserError(f'config.distill.weight={weight} must be above 0 and at most 1')
    where = f'config.distill.teacher={teacher}'
    try:
        found = trained.load(teacher, best=True, dtype=student.dtype.name)
    except UserError as error:
        raise UserError(f'{where}: {error}') from error
    if task.multi_label or found.task.multi_label:
        raise UserError(f'{where}: a teacher is for images of one class each, and the loss of the '
                        f'{"run" if task.multi_label else "teacher"} is for images of several (sigmoid)')
    if found.model.num_classes != student.num_classes:
        raise UserError(f'{where} has {found.model.num_classes} classes, and config.model.num_classes='
                        f'{student.num_classes}')
    places = _places(where, found.class_names, tuple(class_names), student.num_classes)
    try:
        jax.eval_shape(partial(found.model.apply, train=False), found.variables, jnp.zeros((1, size, size, 3)))
    except UserError as error:
        raise UserError(f'{where} takes no images of config.augment.size={size}: {first_line(error)}') from error
    return Teacher(model=found.model, variables=found.variables, seen_as=normalize, normalize=found.normalize,
                   temperature=temperature, weight=weight, places=places)


def _places(where: str, theirs: tuple[str, ...], ours: tuple[str, ...], num_classes: int) -> tuple[int, ...]:
    """Of each of our classes, the teacher's output; () where the two have one order."""
    if not theirs or not ours:
        log.warning('%s: the %s no class names: its classes are taken by number, unchecked', where,
                    'data has' if theirs else 'teacher has')
    if not theirs or not ours or theirs == ours:
        return ()
    try:
        places = match(ours, theirs)
    except UserError as error:
        raise UserError(f'{where} was trained for other classes: {error}') from error
    if len(places) != num_classes:
        raise UserError(f'{where} has {num_classes} classes, and the data {len(places)} of them')
    if places == tuple(range(num_classes)):
        return ()
    log.info('%s has the classes in another order: they are matched by name', where)
    return places
