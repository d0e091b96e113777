"""Where pixels go, beside torchvision's."""

import math

import numpy as np
import pytest
from fixtures_images import difference, scene
from PIL import Image
from torchvision_reference import functional, transforms

from imagenet_jax.images.ops import OPERATIONS

SLOPES, SHIFTS = (-0.99, -0.3, 0.09, 0.3), (-32, -5.7, 0, 9.9, 300)
CASES = [*((name, slope) for name in ('shear_x', 'shear_y') for slope in SLOPES),
         *((name, shift) for name in ('translate_x', 'translate_y') for shift in SHIFTS),
         *(('rotate', angle) for angle in (-135, -30, 0, 7.5, 90, 180))]


def theirs(name, image, magnitude, **options):
    """torchvision's, as its policies call it."""
    if name == 'rotate':
        return functional().rotate(image, magnitude, **options)
    which, along_x = name.split('_')[0], name.endswith('x')
    value = math.degrees(math.atan(magnitude)) if which == 'shear' else int(magnitude)
    pair, none = ([value, 0] if along_x else [0, value]), [0, 0]
    shear, shift = (pair, none) if which == 'shear' else (none, pair)
    return functional().affine(image, 0.0, shift, 1.0, shear, center=none if which == 'shear' else None, **options)


@pytest.mark.parametrize('shape', [(32, 32), (40, 57), pytest.param((224, 224), marks=pytest.mark.slow),
                                   pytest.param((101, 37), marks=pytest.mark.slow)], ids=str)
@pytest.mark.parametrize(('name', 'magnitude'), CASES)
def test_pixels_go_where_torchvisions_do(name, magnitude, shape):
    pixels = scene(*shape)
    assert difference(OPERATIONS[name](pixels, magnitude),
                      np.asarray(theirs(name, Image.fromarray(pixels), magnitude))) < 0.5


@pytest.mark.parametrize(('name', 'magnitude'), [('shear_x', 0.2), ('shear_y', -0.1), ('rotate', 10),
                                                 ('rotate', -33.3)])
def test_smooth_is_torchvisions_bilinear_of_a_tensor(name, magnitude):
    pixels = scene(40, 57)
    mode = transforms().InterpolationMode.BILINEAR
    tensor = pytest.importorskip('torch').from_numpy(pixels).permute(2, 0, 1)
    expected = theirs(name, tensor, magnitude, interpolation=mode).permute(1, 2, 0).numpy()
    assert difference(OPERATIONS[name](pixels, magnitude, smooth=True), expected) < 0.5


def test_what_comes_from_outside_is_black():
    assert not OPERATIONS['translate_x'](scene(8, 8), 3)[:, :3].any()
    assert not OPERATIONS['rotate'](scene(16, 16) | 1, 45)[0, 0].any()
