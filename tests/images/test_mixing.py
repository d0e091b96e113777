"""mixup and CutMix of a batch: as timm has them, and drawn as often as they should be."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from imagenet_jax.errors import UserError
from imagenet_jax.images import mix
from imagenet_jax.images.mix import Mix, Mixing
from imagenet_jax.task import Softmax

SIZE = 10, 13


@pytest.fixture
def quick(monkeypatch):
    """Beta(1, 1) without the seconds that compiling it takes: it is uniform."""
    def beta(key, a, b):
        assert (a, b) == (1, 1)
        return jax.random.uniform(key)
    monkeypatch.setattr(mix.jax.random, 'beta', beta)


def drawn(mix, count=2000, steps=(0,)):
    """Of so many batches, at each of the steps: mixup's share, that which is taken, the fraction of pixels that an
    image keeps, and whether it keeps the same of all."""
    def one(key, step):
        of_share, choices = jax.random.split(key)
        mixing = mix.draw(of_share, choices, step, SIZE)
        pixels = jnp.broadcast_to(mixing.pixels, (*SIZE, 1))
        return mix.share(of_share), mixing.share, pixels.mean(), (pixels == pixels[0, 0]).all()
    keys, compiled = jax.random.split(jax.random.key(0), count), jax.jit(jax.vmap(one, (0, None)))
    return [[np.asarray(x) for x in compiled(keys, step)] for step in steps]


@pytest.mark.parametrize(('share', 'middle'), [
    (0.5, (5, 6)), (0.3, (0, 12)), (0.9, (9, 0)), (0.0, (5, 6)), (0.05, (2, 11)), (0.62, (7, 3))])
@pytest.mark.parametrize('kind', ['mixup', 'cutmix'])
def test_as_timm(monkeypatch, kind, share, middle):
    """With its share and the middle of its box: images, and targets, which go by the box after it was clipped."""
    torch_reference = pytest.importorskip('torch_reference')
    timm, torch = torch_reference.timm_file('data/mixup.py'), torch_reference.torch
    reference = timm.Mixup(mixup_alpha=0.4, cutmix_alpha=1.0, label_smoothing=0.1, num_classes=5)
    monkeypatch.setattr(reference, '_params_per_batch', lambda: (share, kind == 'cutmix'))
    middles = iter(middle)
    monkeypatch.setattr(timm.np.random, 'randint', lambda *_, **__: next(middles))
    monkeypatch.setattr(mix.jax.random, 'beta', lambda *_: jnp.float32(share))
    monkeypatch.setattr(mix.jax.random, 'randint', lambda *_: jnp.array(middle))
    rng = np.random.default_rng(0)
    images, labels = rng.normal(size=(6, *SIZE, 3)).astype(np.float32), rng.integers(5, size=6)
    key = jax.random.key(0)
    mixing, targets = Mix(**{kind: 1.0}).draw(key, key, 0, SIZE), Softmax(smoothing=0.1).targets(labels, 5)
    expected = reference(torch.tensor(images.transpose(0, 3, 1, 2)), torch.tensor(labels))
    np.testing.assert_allclose(mixing.images(images, images[::-1]), expected[0].permute(0, 2, 3, 1), atol=1e-6)
    np.testing.assert_allclose(mixing.targets(targets, targets[::-1]), expected[1], atol=1e-6)


def test_cutmix(quick):
    """Targets are weighed by what is pasted, whose area is that of boxes around any pixel, clipped."""
    mix = Mix(cutmix=1.0)
    keys = jax.random.split(jax.random.key(0), 2000)
    shares, pixels = jax.jit(jax.vmap(lambda key: mix.draw(key, key, 0, SIZE)))(keys)
    np.testing.assert_allclose(shares, pixels.mean((1, 2, 3)), atol=1e-6)
    assert set(np.unique(pixels)) == {0, 1}
    expected = np.mean([pasted(share, row, column) for share in np.linspace(0.005, 0.995, 100)
                        for row in range(SIZE[0]) for column in range(SIZE[1])])
    assert 1 - shares.mean() == pytest.approx(expected, abs=0.02)


def pasted(share, row, column):
    """The fraction of an image that CutMix pastes."""
    sides = []
    for middle, length in ((row, SIZE[0]), (column, SIZE[1])):
        cut = int(length * np.sqrt(1 - share))
        sides.append((min(middle - cut // 2 + cut, length) - max(middle - cut // 2, 0)) / length)
    return sides[0] * sides[1]


def test_how_many_batches_are_mixed_by_which(quick):
    """And mixup's share is what it is alone."""
    [(alone, shares, kept, even)] = drawn(Mix(1.0, 1.0, probability=0.6, switch=0.3))
    mixup = even & (shares < 1)
    assert np.mean(mixup) == pytest.approx(0.6 * 0.7, abs=0.05)
    # Boxes of no pixel, one in 30, leave all to the images.
    assert np.mean(~even) == pytest.approx(0.6 * 0.3, abs=0.05)
    np.testing.assert_array_equal(shares[mixup], alone[mixup])
    rounding = math.prod(SIZE) * 2**-24  # of a mean over so many pixels, added up in any order
    np.testing.assert_allclose(shares, kept, rtol=0, atol=rounding)


def test_off_in_the_last_epochs(quick):
    """The last 2 of 4 epochs of 2.5 steps: steps 5 to 9."""
    mix = Mix(1.0, 1.0, off_epochs=2, steps=10, steps_per_epoch=2.5)
    for step, (_, shares, kept, _) in zip((4, 5, 9), drawn(mix, 20, (4, 5, 9)), strict=True):
        assert (shares < 1).sum() > 10 if step == 4 else (shares == 1).all() and (kept == 1).all()


def test_a_class_that_is_not_counted():
    """Is not in a mixture of the two; but an image that keeps all, or nothing, of its own has no part of the other."""
    nan = np.nan
    own, partners = np.array([[1, nan, 0, nan]], np.float32), np.array([[nan, 0, 0, nan]], np.float32)
    for share, expected in ((0.5, [nan, nan, 0, nan]), (1, own[0]), (0, partners[0])):
        targets = Mixing(jnp.float32(share), jnp.float32(share)).targets(own, partners)
        np.testing.assert_array_equal(targets, [expected])


@pytest.mark.parametrize(('options', 'message'), [
    ({'mixup': -0.1}, r'config\.mix\.mixup=-0\.1 must not be negative'),
    ({'cutmix': -1.0}, r'config\.mix\.cutmix=-1\.0 must not be negative'),
    ({'mixup': 0.2, 'probability': 0.0}, r'config\.mix\.probability=0\.0 must be in \(0, 1\]'),
    ({'mixup': 0.2, 'cutmix': 1.0, 'switch': 1.0}, r'config\.mix\.switch=1\.0 must be in \(0, 1\)'),
    ({'probability': 0.5}, r'config\.mix\.probability=0\.5 is read where config\.mix\.mixup or cutmix is not 0'),
    ({'off_epochs': 1.0, 'steps': 20, 'steps_per_epoch': 10}, r'config\.mix\.off_epochs=1\.0 is read where'),
    ({'cutmix': 1.0, 'switch': 0.3}, r'config\.mix\.switch=0\.3 is read where neither'),
    ({'mixup': 0.2, 'off_epochs': -1.0}, r'config\.mix\.off_epochs=-1\.0 must not be negative'),
    ({'mixup': 0.2, 'off_epochs': 2.0, 'steps': 20, 'steps_per_epoch': 10}, 'is 20 steps, and the run has only 20')])
def test_refused(options, message):
    with pytest.raises(UserError, match=message):
        Mix(**options)
