"""Every model on real photographs: how it starts, that it learns, and what half precision does to it."""

from typing import NamedTuple

import cv2
import flax.linen as nn
import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from sklearn.datasets import load_sample_images

from imagenet_jax import models, options
from imagenet_jax.images.batch import Normalize

pytestmark = pytest.mark.numerics

# For the default run: without and with norms, plain and pre-activation residuals, depthwise with attention. Of a model
# that compiles for long, a short form.
FAST = ('alexnet_v1', 'resnet20_cifar', 'resnet18v2', 'mobilenet_v3_small-short')
CLASSES, BATCH, RATE = 1000, 4, 0.01


def photographs(size):
    """(BATCH, size, size, 3) float32, normalised: parts of scikit-learn's two pictures, which are 427x640."""
    random, parts = np.random.default_rng(0), []
    for i in range(BATCH):
        picture, side = load_sample_images().images[i % 2], random.integers(128, 428)
        top, left = (random.integers(0, length - side + 1) for length in picture.shape[:2])
        parts.append(cv2.resize(picture[top:top + side, left:left + side], (size, size), interpolation=cv2.INTER_AREA))
    return np.asarray(Normalize()(np.stack(parts)))


class Started(NamedTuple):
    """A model before its first step, without dropout, and what that step is made of.

    Attributes:
      model, images, params: of the step.
      stats: the batch's own BatchNorm statistics.
      loss, gradients: at `params`.
      next_loss: of the same batch, after the step.
    """
    model: nn.Module
    images: np.ndarray
    params: dict
    stats: dict
    loss: np.ndarray
    gradients: dict
    next_loss: jax.Array


def kept_by_norms(name):
    """Fraction of the running statistics that a step keeps."""
    return 0.99 if name.startswith('mobilenet_v3') else 0.9


@pytest.fixture(scope='module', params=[
    *FAST, *(pytest.param(name, marks=pytest.mark.slow) for name in models.names() if name not in FAST)])
def started(request):
    name, _, short = request.param.partition('-')
    dropout = {'dropout': 0.0} if 'dropout' in options.reads(models._REGISTRY[name]) else {}
    model = models.create(name, num_classes=CLASSES, **dropout)
    if short:
        model = model.clone(rows=model.rows[:4]) if hasattr(model, 'rows') else model.clone(depths=(1, 1, 1, 1))
    images = photographs(32 if name.endswith('_cifar') else 64)
    labels = jnp.arange(BATCH) * (CLASSES // BATCH)
    # Between compiled functions, numpy: JAX would compile every operation for every shape.
    variables = jax.device_get(jax.jit(model.init)(jax.random.key(0), images[:1]))
    params, stats = variables['params'], jax.tree.map(np.zeros_like, variables.get('batch_stats', {}))

    def loss_fn(params):
        logits, updated = model.apply({'params': params, 'batch_stats': stats}, images, train=True,
                                      mutable=['batch_stats'])
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean(), updated.get('batch_stats', {})

    step = jax.jit(jax.value_and_grad(loss_fn, has_aux=True))
    (loss, stats), gradients = jax.device_get(step(params))
    (next_loss, _), _ = step(jax.tree.map(lambda p, g: p - np.float32(RATE) * g, params, gradients))
    # Of statistics that were 0 nothing is kept: the rest is the batch's.
    stats = jax.tree.map(lambda s: s / np.float32(1 - kept_by_norms(name)), stats)
    return Started(model, images, params, stats, loss, gradients, next_loss)


def test_starts_undecided(started):
    """Logits of variance v raise the loss by about v / 2: a classifier that starts at He's deviation, by half."""
    assert started.loss == pytest.approx(np.log(CLASSES), rel=0.1)


def test_a_step_lowers_the_loss(started):
    assert started.next_loss < started.loss - 1e-3


def test_every_parameter_has_a_gradient(started):
    """Zero throughout is a path that is cut. A bias that BatchNorm subtracts again has rounding noise at least."""
    gradients = flax.traverse_util.flatten_dict(started.gradients, sep='/')
    assert [path for path, gradient in gradients.items() if not np.any(gradient)] == []
    assert [path for path, gradient in gradients.items() if not np.isfinite(gradient).all()] == []


def test_half_precision(started):
    """Largest error of a logit, relative to the largest logit.

    At random weights BatchNorm takes away most of a deep feature, its mean, and with it enlarges rounding errors, in
    whatever way they came: hence no more than four times what rounding nothing but weights and images does.
    """
    def forward(dtype):
        return jax.jit(started.model.clone(dtype=dtype).apply)
    exact = forward(jnp.dtype('float32'))
    variables = {'params': started.params, 'batch_stats': started.stats}
    expected = np.asarray(exact(variables, started.images))
    for dtype in map(jnp.dtype, ('bfloat16', 'float16')):
        params, images = jax.tree.map(lambda x, dtype=dtype: x.astype(dtype).astype(np.float32),
                                      (started.params, started.images))
        logits = {'ours': forward(dtype)(variables, started.images),
                  'rounded': exact({**variables, 'params': params}, images)}
        assert np.isfinite(logits['ours']).all()
        error = {name: np.abs(value - expected).max() / np.abs(expected).max() for name, value in logits.items()}
        assert error['ours'] < max(0.05, 4 * error['rounded'])
