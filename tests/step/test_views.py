"""Several views of each image under one step: what is computed of which, on any number of devices."""

from functools import partial

import jax
import numpy as np
import pytest
from fixtures_step import CLASSES, SIZE, Run, Tiny, assert_trees_close, batch, preprocess

from imagenet_jax.task import Softmax

pytestmark = pytest.mark.numerics

VIEWS = 3


def views():
    """16 images, 3 views of each."""
    data = batch(16 * VIEWS)
    return {'image': data['image'].reshape(16, VIEWS, SIZE, SIZE, 3), 'label': data['label'][:16]}


@pytest.mark.parametrize(('norm', 'options'), [('sync', {'devices': 8}), ('none', {'accumulation': 4})])
def test_by_hand(norm, options):
    """The norm sees all views; the labels' loss and accuracy are of the first, consistency is of all."""
    run, data = Run(Tiny(norm=norm), task=Softmax(smoothing=0.1, consistency=12.0), **options), views()
    images = preprocess(data['image'].reshape(-1, SIZE, SIZE, 3))
    whole = Tiny(norm={'sync': 'batch'}.get(norm, norm))  # on one device
    apply = jax.jit(partial(whole.apply, train=True, mutable=['batch_stats']))
    logits, updated = apply(run.host().variables, images)
    logits = np.asarray(logits).reshape(16, VIEWS, CLASSES)
    p = np.asarray(jax.nn.softmax(logits), np.float64)
    divergence = (p * np.log(p / p.mean(1, keepdims=True))).sum(-1).mean()
    metrics = run.step(data)
    one = Softmax(smoothing=0.1)
    expected = one.loss(logits[:, 0], one.targets(data['label'], CLASSES)).mean() + 12 * divergence
    assert metrics['loss'] == pytest.approx(float(expected), rel=1e-4)
    assert metrics['accuracy'] == np.mean(logits[:, 0].argmax(-1) == data['label'])
    assert_trees_close(run.host().batch_stats, updated.get('batch_stats', {}), rtol=1e-5)
