"""Operations on pixels."""

import cv2
import numpy as np
import pytest
from fixtures_images import difference, scene
from PIL import Image

from imagenet_jax.images.ops import OPERATIONS, flip, flip_vertical, resize


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


WORKS = {'rotate': 30, 'translate_x': 3, 'translate_y': -3, 'posterize': 3, 'solarize': 100, 'lighting': (0.3, 0, 0),
         'saturation_value': (0.5, 0.5)}


@pytest.mark.parametrize('pixels', [scene(24, 30), np.pad(scene(28, 30), ((0, 0), (4, 0), (0, 0)))[2:26, 4:]],
                         ids=['whole', 'cut'])
@pytest.mark.parametrize('name', OPERATIONS)
def test_operations_leave_their_input_alone(name, pixels):
    before = pixels.copy()
    pixels.flags.writeable = False
    changed = OPERATIONS[name](pixels, WORKS.get(name, 0.3))
    assert changed.shape == pixels.shape and changed.dtype == np.uint8 and (changed != pixels).any()
    np.testing.assert_array_equal(pixels, before)
