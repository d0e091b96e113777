"""Operations on pixels."""

import cv2
import numpy as np
import pytest
from fixtures_images import difference, scene
from PIL import Image, ImageEnhance

from imagenet_jax.images.ops import OPERATIONS, color_jitter, flip, flip_vertical, resize


@pytest.mark.parametrize('shape,to', [((96, 128), (48, 60)), ((60, 70), (24, 24)), ((96, 60), (32, 70)),
                                      ((50, 40), (45, 33)), ((20, 24), (48, 64))])
def test_training_resize_is_close_to_pillows_antialiased_bilinear(shape, to):
    pixels = cv2.GaussianBlur(scene(*shape), (0, 0), 0.7)
    pillow = np.asarray(Image.fromarray(pixels).resize(to[::-1], Image.Resampling.BILINEAR))
    off, aliased = (difference(y, pillow) for y in (resize(pixels, *to), cv2.resize(pixels, to[::-1])))
    assert off < 0.7
    assert off <= aliased
    assert off < 0.25 * aliased or 1.5 * to[0] > shape[0]


def test_flip_mirrors():
    np.testing.assert_array_equal(flip(scene(5, 7)), scene(5, 7)[:, ::-1])
    np.testing.assert_array_equal(flip_vertical(scene(5, 7)), scene(5, 7)[::-1])


@pytest.mark.parametrize('name,pillow', [('brightness', ImageEnhance.Brightness), ('contrast', ImageEnhance.Contrast),
                                         ('saturation', ImageEnhance.Color)])
@pytest.mark.parametrize('factor', [0.0, 0.5, 0.8, 1.0, 1.4])
def test_enhancements_are_pillows(name, pillow, factor):
    pixels = scene(16, 16)
    expected = np.asarray(pillow(Image.fromarray(pixels)).enhance(factor))
    assert np.abs(OPERATIONS[name](pixels, factor).astype(int) - expected).max() <= 1


@pytest.mark.parametrize('name', OPERATIONS)
def test_operations_leave_their_input_alone(name):
    pixels = scene(9, 12)
    changed = OPERATIONS[name](pixels, 0.3)
    assert changed.shape == pixels.shape and changed.dtype == np.uint8 and (changed != pixels).any()
    np.testing.assert_array_equal(pixels, scene(9, 12))


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
    np.testing.assert_array_equal(color_jitter(pixels, 0.4, rng), OPERATIONS[name](pixels, 1.3))
    np.testing.assert_allclose(rng.bounds, (0.6, 1.4))


def test_color_jitter_never_draws_a_negative_factor():
    rng = OneJitter(0, 1.0)
    color_jitter(scene(4, 4), 1.5, rng)
    assert rng.bounds == (0.0, 2.5)


def test_color_jitter_of_strength_near_zero_is_the_identity():
    pixels = scene(16, 16)
    np.testing.assert_array_equal(color_jitter(pixels, 1e-6, np.random.default_rng(0)), pixels)


def test_color_jitter_stays_in_bounds_and_varies():
    grey = np.full((4, 4, 3), 100, np.uint8)  # contrast and saturation leave it alone
    levels = {int(color_jitter(grey, 0.4, np.random.default_rng(seed)).max()) for seed in range(200)}
    assert 60 <= min(levels) < 70 and 130 < max(levels) <= 140
