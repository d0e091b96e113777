"""Half precision on this CPU, as `runtime.configure_jax` sets its compiler up, gives numbers: trained and evaluated."""

import os
import subprocess
import sys

import flax.linen as nn
import jax
import jax.numpy as jnp
import jaxlib
import numpy as np
import pytest
from fixtures_blocks import KINDS
from runs import ROOT

from imagenet_jax import models
from imagenet_jax.models.blocks import classify
from imagenet_jax.models.layers import Layers
from imagenet_jax.task import Softmax

pytestmark = pytest.mark.skipif(tuple(map(int, jaxlib.__version__.split('.')[:2])) < (0, 11),
                                reason='the compiler that gave NaN came with jaxlib 0.11')
CLASSES = 10


class OneBlock(nn.Module):
    """Convolution, norm, activation, a block of that kind, mean and classifier."""
    kind: str
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, images, train=False):
        layers = Layers(train=train, dtype=self.dtype)
        x = layers.act(layers.norm('bn')(layers.conv(8, 3, name='conv')(images)))
        x = KINDS[self.kind](layers=layers, name='block')(
            (x, x[:, ::2, ::2]) if self.kind.startswith('octave') else x)
        return classify(jax.tree.leaves(x)[0], CLASSES, layers, 'fc')


def drawn(shapes):
    """Variables of these shapes: kernels that keep the scale of what goes through, norms that do nothing."""
    rng = np.random.default_rng(0)

    def draw(path, shape):
        if path[-1].key == 'kernel':
            return rng.normal(0, (2 / np.prod(shape.shape[:-1]))**0.5, shape.shape).astype(np.float32)
        return np.full(shape.shape, path[-1].key in ('scale', 'var'), np.float32)
    return jax.tree.map_with_path(draw, shapes)


@pytest.mark.parametrize('dtype', ['bfloat16', 'float16'])
@pytest.mark.parametrize('name', [*KINDS, 'resnet8_cifar', 'vgg11_bn'])
def test_numbers_are_finite(name, dtype):
    """The two models are those that the fault was found by."""
    known = name in models.names()
    model = models.create(name, num_classes=CLASSES, dtype=dtype) if known else OneBlock(name, jnp.dtype(dtype))
    size = 64 if name == 'vgg11_bn' else 32
    images = np.random.default_rng(0).normal(size=(2, size, size, 3)).astype(np.float32)
    variables = drawn(jax.eval_shape(model.init, jax.random.key(0), images))
    task = Softmax()

    @jax.jit
    def train(params):
        def loss(params):
            logits, updated = model.apply({**variables, 'params': params}, images, train=True, mutable=['batch_stats'],
                                          rngs={'dropout': jax.random.key(0)})
            return task.loss(logits, task.targets(jnp.arange(2), CLASSES)).mean(), updated
        return jax.value_and_grad(loss, has_aux=True)(params)

    for leaf in jax.tree.leaves(train(variables['params'])):
        assert np.isfinite(leaf).all()
    assert np.isfinite(jax.jit(lambda variables: model.apply(variables, images, train=False))(variables)).all()


LIBRARY = """
import jax
from imagenet_jax import models
{before}
model = models.create('resnet8_cifar', dtype='bfloat16')
images = jax.random.normal(jax.random.key(1), (2, 32, 32, 3))
variables = jax.jit(model.init)(jax.random.key(0), images)
print(bool(jax.numpy.isfinite(jax.jit(model.apply)(variables, images)).all()))
"""


@pytest.mark.parametrize(('before', 'says'), [
    ('', 'True\n'), ("jax.numpy.zeros(1).block_until_ready()", 'JAX has computed before it could be told')])
def test_as_a_library(before, says):
    """A model made before anything is computed is safe too; where it is too late, that is said."""
    flags = os.environ['XLA_FLAGS'].replace('--xla_cpu_experimental_ynn_fusion_type=-reduce', '')
    done = subprocess.run([sys.executable, '-c', LIBRARY.format(before=before)], cwd=ROOT, text=True,
                          capture_output=True, env=os.environ | {'XLA_FLAGS': flags})
    assert done.returncode == 0, done.stderr
    assert says in done.stdout + done.stderr
