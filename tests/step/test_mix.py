"""mixup: the pairs and the share that the paper has, whatever the number of devices and of parts."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from fixtures_step import CLASSES, Run, Tiny, batch, preprocess, relative_difference

from imagenet_jax import step
from imagenet_jax.errors import UserError
from imagenet_jax.images.mix import Mix
from imagenet_jax.task import Softmax

pytestmark = pytest.mark.numerics


def test_by_hand():
    """The loss of images and targets mixed with those of the batch reversed, by the share that the step's key gives."""
    task = Softmax(smoothing=0.1)
    run, data, shares = Run(Tiny(norm='none'), task=task, mix=Mix(0.4)), batch(), []
    for at in range(3):
        key = jax.random.fold_in(jax.random.fold_in(jax.random.key(0), at), step.STREAMS['mix'])
        shares.append(share := float(jax.random.beta(key, 0.4, 0.4)))
        images, targets = preprocess(data['image']), task.targets(data['label'], CLASSES)
        images, targets = (share * x + (1 - share) * x[::-1] for x in (images, targets))
        logits = Tiny(norm='none').apply({'params': run.host().params}, images, train=True)
        metrics = run.step(data)
        assert metrics['loss'] == pytest.approx(float(task.loss(logits, targets).mean()), rel=1e-5)
        assert metrics['accuracy'] == np.mean(np.argmax(logits, -1) == np.argmax(targets, -1))
    assert len(set(shares)) == 3


@pytest.mark.parametrize('options', [
    {'devices': 4}, {'devices': 8}, {'accumulation': 4}, {'devices': 2, 'accumulation': 2}])
def test_pairs_do_not_depend_on_devices_or_parts(options):
    one, other = Run(Tiny(norm='none'), mix=Mix(0.4)), Run(Tiny(norm='none'), mix=Mix(0.4), **options)
    for seed in range(2):
        assert other.step(batch(seed=seed)) == pytest.approx(one.step(batch(seed=seed)), rel=1e-4)
    assert relative_difference(other.host().params, one.host().params) < 1e-5


def test_dropout_is_drawn_as_without():
    """Of a batch whose images are all alike, what is mixed is what was there."""
    data = {'image': np.full((16, 8, 8, 3), 100, np.uint8), 'label': np.zeros(16, np.int32)}
    plain, mixing = (Run(Tiny(norm='none', dropout=0.5), mix=mix) for mix in (Mix(), Mix(0.4)))
    assert mixing.step(data)['loss'] == pytest.approx(plain.step(data)['loss'], rel=1e-5)


def test_share_is_beta():
    shares = jax.vmap(Mix(0.2).share)(jax.random.split(jax.random.key(0), 4000))
    # Of Beta(a, a): mean 1/2, variance 1 / (4 (2a + 1)).
    assert jnp.mean(shares) == pytest.approx(0.5, abs=0.03) and jnp.var(shares) == pytest.approx(1 / 5.6, abs=0.01)


def test_refused():
    with pytest.raises(UserError, match=r'config\.mix\.mixup=-0\.1 must not be negative'):
        Mix(-0.1)
