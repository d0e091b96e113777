"""What a model says of images, averaged over the views that evaluation has of each."""

import dataclasses
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp

from imagenet_jax.images.eval_view import EvalView
from imagenet_jax.task import Task


@dataclasses.dataclass(frozen=True, kw_only=True)
class Answer:
    """(variables, uint8 (N, *view.shape)) -> logits (N, K), at least float32; to be compiled.

    Of several crops they are those of the mean of their probabilities. Crops of one size are answered one after the
    other, so that many take no more memory than one.

    Attributes:
      model, task: as the modules of those names say.
      normalize: uint8 images -> what the model takes.
      view: what one image gives.
    """
    model: nn.Module
    normalize: Callable
    view: EvalView
    task: Task

    def __call__(self, variables: dict, images: jax.Array) -> jax.Array:
        model = self.model
        if self.view.whole and hasattr(model, 'fully_convolutional'):  # of others the mean of the map is their answer
            model = model.clone(fully_convolutional=True)

        def logits(images):
            return model.apply(variables, self.normalize(images), train=False)
        if images.ndim == 4 and not self.view.mirrored:
            return logits(images)

        def of_crop(crop):
            return jnp.stack([logits(crop), logits(crop[:, :, ::-1])] if self.view.mirrored else [logits(crop)])
        found = jnp.concatenate([jax.lax.map(of_crop, crops) for crops in self.view.unpack(images)])
        return self.task.average(found.reshape(-1, *found.shape[2:]))
