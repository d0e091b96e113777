"""States that are small, saved and restored."""

import jax
import jax.numpy as jnp
import numpy as np

from imagenet_jax import models, step
from imagenet_jax.checkpoint import Checkpoints
from imagenet_jax.optim import SGD
from imagenet_jax.task import Softmax


def train_step(**options):
    return step.TrainStep(
        model=models.create('resnet8_cifar'), schedule=lambda updates: 0.1, task=Softmax(),
        normalize=lambda images: images, mesh=step.make_mesh(jax.devices()[:2]),
        **{'optimizer': SGD(), 'ema_decay': 0.9} | options)


def abstract(state):
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), state)


def at(state, number):
    """The state as if of another step, its parameters changed."""
    return state.replace(step=jnp.asarray(number, jnp.int32), params=jax.tree.map(lambda x: x + number, state.params))


def assert_equal(a, b):
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_array_equal(np.asarray(x), np.asarray(y))


def save(workdir, state, steps=(1, 2), top1=(), ema_top1=()):
    checkpoints = Checkpoints(workdir)
    for number in steps:
        checkpoints.save(at(state, number), *(dict(zip(steps, scores, strict=False)).get(number)
                                              for scores in (top1, ema_top1)))
    checkpoints.close()


def restore(workdir, state):
    checkpoints = Checkpoints(workdir)
    result = checkpoints.restore(abstract(state), train_step().beside)
    checkpoints.close()
    return result
