"""What a step makes of its batch: the pairs, shares and boxes that its key gives, whatever the devices and parts."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from fixtures_step import CLASSES, SIZE, Run, Tiny, batch, preprocess, relative_difference
from jax.sharding import PartitionSpec as P

from imagenet_jax.images.batch import draw
from imagenet_jax.images.erase import Cutout, RandomErasing
from imagenet_jax.images.mix import Mix
from imagenet_jax.step import make_mesh
from imagenet_jax.streams import STREAMS
from imagenet_jax.task import Softmax

pytestmark = pytest.mark.numerics


def test_by_hand():
    """The loss of images and targets mixed with those of the batch reversed, by the share that the step's key gives."""
    task = Softmax(smoothing=0.1)
    run, data, shares = Run(Tiny(norm='none'), task=task, mix=Mix(0.4)), batch(), []
    for at in range(3):
        key = jax.random.fold_in(jax.random.fold_in(jax.random.key(0), at), STREAMS['mix'])
        shares.append(share := float(jax.random.beta(key, 0.4, 0.4)))
        images, targets = preprocess(data['image']), task.targets(data['label'], CLASSES)
        images, targets = (share * x + (1 - share) * x[::-1] for x in (images, targets))
        logits = Tiny(norm='none').apply({'params': run.host().params}, images, train=True)
        metrics = run.step(data)
        assert metrics['loss'] == pytest.approx(float(task.loss(logits, targets).mean()), rel=1e-5)
        assert metrics['accuracy'] == np.mean(np.argmax(logits, -1) == np.argmax(targets, -1))
    assert len(set(shares)) == 3


def test_erased_then_mixed_by_hand(monkeypatch):
    """Each image by its place, then with its partner, erased likewise; and not in the last steps. One program."""
    monkeypatch.setattr(jax.random, 'beta', lambda key, a, b: jax.random.uniform(key))  # which compiles sooner
    erase = Cutout(side=4, off_epochs=1.0, steps=5, steps_per_epoch=2)
    mix = Mix(1.0, 1.0, off_epochs=0.5, steps=5, steps_per_epoch=2)
    model, task, data = Tiny(norm='none'), Softmax(), batch()
    run, kinds = Run(model, task=task, erase=erase, mix=mix), []
    for at in range(5):
        key = jax.random.fold_in(jax.random.key(0), at)
        of_erase, of_mix, choices = (jax.random.fold_in(key, STREAMS[name]) for name in ('erase', 'mix', 'mix_choice'))
        images, targets = preprocess(data['image']), task.targets(data['label'], CLASSES)
        if at < 3:
            images = erase(of_erase, 0, images, jnp.arange(16))
        share, pixels = mix.draw(of_mix, choices, 0, images.shape[1:3]) if at < 4 else (1.0, 1.0)
        kinds.append(np.ndim(pixels) and len(np.unique(pixels)))
        images, targets = (x * y + (1 - x) * y[::-1] for x, y in ((pixels, images), (share, targets)))
        logits = model.apply({'params': run.host().params}, images, train=True)
        assert run.step(data)['loss'] == pytest.approx(float(task.loss(logits, targets).mean()), rel=1e-5)
    assert {1, 2} <= set(kinds[:4])  # mixup and CutMix
    assert run.train_step.compiled._cache_size() == 1


@pytest.mark.parametrize('options', [{'devices': 2, 'accumulation': 2}, pytest.param(
    {'devices': 8}, marks=pytest.mark.slow)])
def test_pairs_do_not_depend_on_devices_or_parts(options):
    one, other = Run(Tiny(norm='none'), mix=Mix(0.4)), Run(Tiny(norm='none'), mix=Mix(0.4), **options)
    for seed in range(2):
        assert other.step(batch(seed=seed)) == pytest.approx(one.step(batch(seed=seed)), rel=1e-4)
    assert relative_difference(other.host().params, one.host().params) < 1e-5


def made(devices, parts, step=3):
    """Images of a batch, cut into so many on each device, as the model sees them; and what its labels become."""
    mesh, data = make_mesh(jax.devices()[:devices]), batch()

    def make(data, step):
        key = partial(jax.random.fold_in, jax.random.key(7))
        drawn = draw(preprocess, RandomErasing(fill='noise'), Mix(cutmix=1.0),
                     lambda name: key(STREAMS[name]), step, (SIZE, SIZE))
        data = drawn.with_partners(data, 'data')
        cut = jax.tree.map(lambda x: x.reshape(parts, -1, *x.shape[1:]), data)
        seen = jax.lax.map(lambda part: (drawn.images(part), drawn.targets(part, jnp.float32)), cut)
        return [x.reshape(-1, *x.shape[2:]) for x in seen]
    sharded = jax.shard_map(make, mesh=mesh, in_specs=(P('data'), P()), out_specs=P('data'))
    return [np.asarray(x) for x in jax.jit(sharded)(data, step)]


def test_boxes_and_noise_do_not_depend_on_devices_or_parts(monkeypatch):
    """To the bit."""
    monkeypatch.setattr(jax.random, 'beta', lambda key, a, b: jax.random.uniform(key))
    images, labels = made(1, 1)
    plain = preprocess(batch()['image'])
    for changed in (images, labels):
        assert 0.05 < np.mean(changed != (plain if changed.ndim > 1 else batch()['label'])) < 1
    for devices, parts in ((4, 2), (8, 1)):
        for one, other in zip((images, labels), made(devices, parts), strict=True):
            np.testing.assert_array_equal(one, other)


def test_dropout_is_drawn_as_without():
    """Of a batch whose images are all alike, what is mixed is what was there."""
    data = {'image': np.full((16, 8, 8, 3), 100, np.uint8), 'label': np.zeros(16, np.int32)}
    plain, mixing = (Run(Tiny(norm='none', dropout=0.5), mix=mix) for mix in (Mix(), Mix(0.4)))
    assert mixing.step(data)['loss'] == pytest.approx(plain.step(data)['loss'], rel=1e-5)


def test_share_is_beta():
    shares = jax.vmap(Mix(0.2).share)(jax.random.split(jax.random.key(0), 4000))
    # Of Beta(a, a): mean 1/2, variance 1 / (4 (2a + 1)).
    assert jnp.mean(shares) == pytest.approx(0.5, abs=0.03) and jnp.var(shares) == pytest.approx(1 / 5.6, abs=0.01)
