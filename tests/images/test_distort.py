"""The random distortions of config.augment."""

import re

import numpy as np
import pytest
from fixtures_images import difference, scene
from torchvision_reference import transforms

from imagenet_jax.errors import UserError
from imagenet_jax.images.distort import Distort, jitter
from imagenet_jax.images.ops import OPERATIONS


class OneJitter:
    """Stands in for a Generator: one of the three distortions, with a factor of choice."""

    def __init__(self, kind, factor):
        self.kind, self.factor, self.bounds = kind, factor, None

    def permutation(self, count):
        assert count == 3
        return [self.kind]

    def uniform(self, low, high):
        self.bounds = low, high
        return self.factor


@pytest.mark.parametrize('kind,name', [(0, 'brightness'), (1, 'contrast'), (2, 'saturation')])
def test_color_jitter_draws_order_and_factors(kind, name):
    pixels, rng = scene(16, 16), OneJitter(kind, 1.3)
    np.testing.assert_array_equal(jitter(pixels, 0.4, 0, rng), OPERATIONS[name](pixels, 1.3))
    np.testing.assert_allclose(rng.bounds, (0.6, 1.4))


def test_color_jitter_never_draws_a_negative_factor():
    rng = OneJitter(0, 1.0)
    jitter(scene(4, 4), 1.5, 0, rng)
    assert rng.bounds == (0.0, 2.5)


def test_color_jitter_of_strength_near_zero_is_the_identity():
    pixels = scene(16, 16)
    np.testing.assert_array_equal(jitter(pixels, 1e-6, 0, np.random.default_rng(0)), pixels)


def test_color_jitter_stays_in_bounds_and_varies():
    grey = np.full((4, 4, 3), 100, np.uint8)  # contrast and saturation leave it alone
    levels = {int(jitter(grey, 0.4, 0, np.random.default_rng(seed)).max()) for seed in range(200)}
    assert 60 <= min(levels) < 70 and 130 < max(levels) <= 140


def test_jitter_draws_as_it_always_did():
    """What came after in the stream of draws stays where it was: runs that go on depend on it."""
    rng, same, pixels = np.random.default_rng(0), np.random.default_rng(0), scene(24, 17)
    changed = Distort(color_jitter=0.4)(pixels, rng)
    for kind in same.permutation(3):
        pixels = OPERATIONS[('brightness', 'contrast', 'saturation')[kind]](pixels, same.uniform(0.6, 1.4))
    np.testing.assert_array_equal(changed, pixels)
    assert rng.random() == same.random()


def test_nothing_is_drawn_for_what_is_off():
    rng, pixels = np.random.default_rng(0), scene(8, 8)
    np.testing.assert_array_equal(Distort()(pixels, rng), pixels)
    assert rng.random() == np.random.default_rng(0).random()


def test_hue_joins_the_jitter():
    """All four take part, in every order; alone it is one."""
    pixels, rng = scene(16, 16), OneJitter(3, 0.1)
    rng.permutation = lambda count: [3] if count == 4 else [0]
    expected = OPERATIONS['hue'](pixels, 0.1)
    np.testing.assert_array_equal(jitter(pixels, 0.4, 0.2, rng), expected)
    assert rng.bounds == (-0.2, 0.2)
    np.testing.assert_array_equal(jitter(pixels, 0.0, 0.2, rng), expected)


@pytest.mark.parametrize('name', ['grey', 'blur', 'solarize', 'jitter_probability'])
def test_probability(name):
    pixels, rng = scene(8, 8), np.random.default_rng(0)
    more = {'hue': 0.3} if name == 'jitter_probability' else {}
    for probability, low, high in ((0.0, 0, 0), (0.3, 0.2, 0.4), (1.0, 0.8, 1)):
        distort = Distort(**{name: probability}, **more)
        changed = np.mean([(distort(pixels, rng) != pixels).any() for _ in range(300)])
        assert low <= changed <= high


@pytest.mark.parametrize(('options', 'name', 'given'), [
    ({'rotation': 15.0}, 'rotate', lambda rng: rng.uniform(-15, 15)),
    ({'hsv': (0.8, 1.25)}, 'saturation_value', lambda rng: rng.uniform(0.8, 1.25, 2)),
    ({'lighting': 0.1}, 'lighting', lambda rng: rng.normal(0, 0.1, 3)),
    ({'blur': 1.0}, 'blur', lambda rng: rng.uniform(0.1, 2)),
    ({'solarize': 1.0}, 'solarize', lambda rng: 128)])
def test_each_draws_its_magnitude(options, name, given):
    pixels = scene(16, 16)
    more = {'smooth': True} if name == 'rotate' else {}
    np.testing.assert_array_equal(Distort(**options)(pixels, np.random.default_rng(5)),
                                  OPERATIONS[name](pixels, given(np.random.default_rng(5)), **more))


@pytest.mark.slow
def test_jitter_changes_as_much_as_torchvisions():
    pixels, torch = scene(64, 64), pytest.importorskip('torch')
    torch.manual_seed(0)
    theirs, ours = transforms().ColorJitter(0.4, 0.4, 0.4, 0.1), Distort(color_jitter=0.4, hue=0.1)
    tensor, rng = torch.from_numpy(pixels).permute(2, 0, 1), np.random.default_rng(0)
    off = [np.mean([difference(view(), pixels) for _ in range(400)]) for view in (
        lambda: ours(pixels, rng), lambda: theirs(tensor).permute(1, 2, 0).numpy())]
    assert abs(off[0] / off[1] - 1) < 0.1


@pytest.mark.parametrize(('options', 'message'), [
    ({'color_jitter': -0.1}, 'config.augment.color_jitter=-0.1 must be finite and not negative'),
    ({'lighting': float('inf')}, 'config.augment.lighting=inf must be finite and not negative'),
    ({'hue': 0.6}, 'config.augment.hue=0.6 must be in 0..0.5'),
    ({'rotation': 200}, 'config.augment.rotation=200 must be in 0..180'),
    ({'grey': 1.5}, 'config.augment.grey=1.5 must be in 0..1'),
    ({'blur': -1}, 'config.augment.blur=-1 must be in 0..1'),
    ({'hsv': (1.2, 0.8)}, 'config.augment.hsv=(1.2, 0.8) must be (low, high)'),
    ({'jitter_probability': 0.8}, 'config.augment.jitter_probability=0.8 is of config.augment.color_jitter and hue')])
def test_wrong_options_are_refused(options, message):
    with pytest.raises(UserError, match=re.escape(message)):
        Distort(**options)
