"""Colours: what each operation makes of them, beside torchvision's."""

import colorsys

import numpy as np
import pytest
from fixtures_images import difference, scene
from PIL import Image
from torchvision_reference import functional

from imagenet_jax.images.ops import OPERATIONS

FACTORS = (0.0, 0.5, 0.8, 1.0, 1.4, 1.9)
CASES = [*((name, factor) for name in ('brightness', 'contrast', 'saturation', 'sharpness') for factor in FACTORS),
         *(('posterize', bits) for bits in (1, 4, 7, 8)), *(('solarize', level) for level in (0, 76.5, 128, 255)),
         *((name, 0) for name in ('auto_contrast', 'equalize', 'invert', 'grey')),
         *(('hue', turn) for turn in (-0.5, -0.1, 0.05, 0.3)), *(('blur', sigma) for sigma in (0.1, 0.5, 1.0, 2.0))]
PEERS = {'brightness': 'adjust_brightness', 'contrast': 'adjust_contrast', 'saturation': 'adjust_saturation',
         'sharpness': 'adjust_sharpness', 'hue': 'adjust_hue', 'auto_contrast': 'autocontrast'}


def theirs(name, pixels, magnitude):
    """torchvision's, of an image of Pillow's."""
    more = {'grey': {'num_output_channels': 3}, 'auto_contrast': {}, 'equalize': {}, 'invert': {},
            'blur': {'kernel_size': [13, 13], 'sigma': [magnitude] * 2}}.get(name)
    call = getattr(functional(), {**PEERS, 'grey': 'rgb_to_grayscale', 'blur': 'gaussian_blur'}.get(name, name))
    if name == 'hue':  # theirs of an image of Pillow's cuts off what falls between its 255 hues, ours is near the other
        tensor = pytest.importorskip('torch').from_numpy(pixels).permute(2, 0, 1)
        return call(tensor, magnitude).permute(1, 2, 0).numpy()
    image = Image.fromarray(pixels)
    return np.asarray(call(image, magnitude) if more is None else call(image, **more))


@pytest.mark.parametrize('shape', [(40, 56), pytest.param((224, 224), marks=pytest.mark.slow),
                                   pytest.param((101, 37), marks=pytest.mark.slow)], ids=str)
@pytest.mark.parametrize(('name', 'magnitude'), CASES)
def test_colors_are_torchvisions(name, magnitude, shape):
    pixels = scene(*shape)
    assert difference(OPERATIONS[name](pixels, magnitude), theirs(name, pixels, magnitude)) < 0.75


@pytest.mark.parametrize('name', ['posterize', 'solarize', 'equalize', 'invert'])
@pytest.mark.parametrize('pixels', [scene(33, 20), np.full((5, 4, 3), 77, np.uint8), scene(40, 40) // 8 + 90])
def test_tables_are_pillows_to_the_bit(name, pixels):
    np.testing.assert_array_equal(OPERATIONS[name](pixels, 3), theirs(name, pixels, 3))


def test_auto_contrast_stretches_each_channel_but_one_of_one_value():
    pixels = scene(20, 30) // 3 + np.array([40, 90, 0], np.uint8)
    pixels[..., 2] = 7
    changed = OPERATIONS['auto_contrast'](pixels, 0)
    assert changed.min((0, 1)).tolist() == [0, 0, 7] and changed.max((0, 1)).tolist() == [255, 255, 7]
    assert np.abs(changed.astype(int) - theirs('auto_contrast', pixels, 0)).max() <= 1


@pytest.mark.parametrize('shape', [(1, 1), (2, 9), (9, 1)])
def test_sharpness_leaves_the_outermost_pixels(shape):
    np.testing.assert_array_equal(OPERATIONS['sharpness'](scene(*shape), 1.9), scene(*shape))


def test_saturation_value_scales_both():
    pixels = scene(12, 12)

    def reference(pixel):
        h, s, v = colorsys.rgb_to_hsv(*(pixel / 255))
        return 255 * np.array(colorsys.hsv_to_rgb(h, min(1, s * 1.2), min(1, v * 0.8)))
    expected = np.apply_along_axis(reference, 2, pixels).round().astype(np.uint8)
    assert difference(OPERATIONS['saturation_value'](pixels, (1.2, 0.8)), expected) < 1.2
    assert difference(OPERATIONS['saturation_value'](pixels, (1, 1)), pixels) < 1


def test_lighting_adds_one_color():
    """Along the first component, nearly grey; along the third, green against the others."""
    pixels = np.full((3, 4, 3), 100, np.uint8)
    assert OPERATIONS['lighting'](pixels, np.array([0.2, 0, 0]))[1, 1].tolist() == [94, 94, 94]
    assert OPERATIONS['lighting'](pixels, np.array([0, 0, 10]))[1, 1].tolist() == [105, 91, 105]
    assert OPERATIONS['lighting'](pixels, np.array([-9, 0, 0])).min() == 255


def test_saturation_of_grey_is_grey():
    pixels = np.repeat(scene(6, 6)[..., :1], 3, axis=2)
    np.testing.assert_array_equal(OPERATIONS['saturation'](pixels, 1.9), pixels)
