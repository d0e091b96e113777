"""A tiny model under the train step, and batches that may be broken."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from imagenet_jax import optim, step
from imagenet_jax.models.layers import FLOAT32, Layers
from imagenet_jax.task import Softmax

CLASSES, SIZE = 4, 8


def waves(key, shape, dtype):
    """Initial values without random bits, whose program takes longer to compile than the train step."""
    del key
    return jnp.cos(jnp.arange(np.prod(shape), dtype=dtype) * 1.7).reshape(shape) / 3


class Tiny(nn.Module):
    """A convolution, a norm ('none': a bias), dropout and a classifier."""
    dtype: jnp.dtype = FLOAT32
    norm: str = 'batch'
    dropout: float = 0.0

    @nn.compact
    def __call__(self, images, train=False):
        layers = Layers(train, self.dtype, norm_kind='batch' if self.norm == 'none' else self.norm,
                        dropout_rate=self.dropout)
        x = nn.Conv(8, (3, 3), (2, 2), use_bias=self.norm == 'none', kernel_init=waves, dtype=self.dtype)(images)
        x = layers.act(x if self.norm == 'none' else layers.norm('bn1')(x))
        x = layers.dropout()(x.mean((1, 2)))
        return nn.Dense(CLASSES, kernel_init=waves, dtype=self.dtype)(x).astype(jnp.float32)


class Norm(nn.Module):
    """A norm of the images themselves, and a classifier."""
    norm: str = 'batch'
    dtype: jnp.dtype = FLOAT32

    @nn.compact
    def __call__(self, images, train=False):
        norm = Layers(train, self.dtype, norm_kind=self.norm).norm('bn1')
        return nn.Dense(CLASSES, dtype=self.dtype)(norm(images).mean((1, 2))).astype(jnp.float32)


def preprocess(images):
    """A pixel of 255 is infinite, so that a batch can be made to overflow."""
    return jnp.where(images == 255, jnp.inf, images / 128.0 - 1)


def batch(n=16, seed=0, broken=False):
    rng = np.random.default_rng(seed)
    images = rng.integers(255, size=(n, SIZE, SIZE, 3), dtype=np.uint8)
    images[0, 0, 0] = 255 if broken else 0
    return {'image': images, 'label': rng.integers(CLASSES, size=n, dtype=np.int32)}


class Run:
    """A model with its step and state on the first `devices` devices."""

    def __init__(self, model, devices=1, rate=0.1, momentum=0.9, decay=1e-4, task=Softmax(), optimizer=None,
                 **options):
        self.mesh = step.make_mesh(jax.devices()[:devices])
        self.train_step = step.TrainStep(
            model=model, optimizer=optimizer or optim.SGD(momentum=momentum, weight_decay=decay), task=task,
            normalize=preprocess, mesh=self.mesh,
            schedule=rate if callable(rate) else optax.constant_schedule(rate), **options)
        self.state = self.train_step.init(0, SIZE)

    def step(self, batch):
        """The metrics, as floats."""
        self.state, metrics = self.train_step(self.state, self.on_devices(batch))
        return {name: float(value) for name, value in metrics.items()}

    def on_devices(self, batch):
        return jax.device_put(batch, NamedSharding(self.mesh, P('data')))

    def set(self, **values):
        replicated = NamedSharding(self.mesh, P())
        self.state = self.state.replace(**jax.device_put(values, replicated))

    def host(self):
        """A copy of the state that donation leaves alone."""
        return jax.tree.map(np.array, self.state)


def assert_trees_equal(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


def assert_trees_close(a, b, rtol, atol=0.0):
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=rtol, atol=atol), a, b)


def relative_difference(a, b):
    """Of two trees taken as vectors."""
    a, b = (np.concatenate([np.ravel(x) for x in jax.tree.leaves(tree)]) for tree in (a, b))
    return np.linalg.norm(a - b) / np.linalg.norm(b)
