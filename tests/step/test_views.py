"""Several views of each image under one step: what is computed of which, on any number of devices."""

import jax
import numpy as np
import pytest
from fixtures_step import CLASSES, SIZE, Run, Tiny, batch, preprocess

from imagenet_jax.task import BinaryCrossEntropy, Softmax

pytestmark = pytest.mark.numerics

VIEWS = 3


def views():
    """16 images, 3 views of each."""
    data = batch(16 * VIEWS)
    return {'image': data['image'].reshape(16, VIEWS, SIZE, SIZE, 3), 'label': data['label'][:16]}


@pytest.mark.parametrize('kind', [Softmax, BinaryCrossEntropy])
def test_by_hand(kind):
    """The norm sees all views; the labels' loss and accuracy are of the first, consistency is of all."""
    task = kind(smoothing=0.1, consistency=12.0)
    run, data = Run(Tiny(), task=task), views()
    images = preprocess(data['image'].reshape(-1, SIZE, SIZE, 3))
    logits, stats = Tiny().apply(run.host().variables, images, train=True, mutable=['batch_stats'])
    logits = np.asarray(logits).reshape(16, VIEWS, CLASSES)
    p = np.asarray(jax.nn.softmax(logits), np.float64)
    divergence = (p * np.log(p / p.mean(1, keepdims=True))).sum(-1).mean()
    targets = task.targets(data['label'], CLASSES)
    metrics = run.step(data)
    expected = float(kind().loss(logits[:, 0], targets).mean()) + 12 * divergence
    assert metrics['loss'] == pytest.approx(expected, rel=1e-4)
    assert metrics['accuracy'] == np.mean(logits[:, 0].argmax(-1) == data['label'])
    jax.tree.map(lambda ours, theirs: np.testing.assert_allclose(ours, theirs, rtol=1e-5), run.host().batch_stats,
                 stats['batch_stats'])


def test_devices_and_parts_train_as_one():
    task = Softmax(consistency=12.0)
    one = Run(Tiny(norm='none'), task=task).step(views())
    for options in ({'devices': 8}, {'accumulation': 4}):
        assert Run(Tiny(norm='none'), task=task, **options).step(views()) == pytest.approx(one, rel=1e-4)
