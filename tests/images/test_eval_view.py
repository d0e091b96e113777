"""Evaluation's view."""

import numpy as np
import pytest
from fixtures_images import difference, encode, scene
from PIL import Image

from imagenet_jax.errors import UserError
from imagenet_jax.images.eval_view import EvalView


def resized_then_cropped(pixels, size, resize):
    """What torchvision does: the whole image resized with Pillow, then the centre crop."""
    height, width = pixels.shape[:2]
    short = min(height, width)
    height, width = int(resize * height / short), int(resize * width / short)
    whole = Image.fromarray(pixels).resize((width, height), Image.Resampling.BILINEAR)
    top, left = round((height - size) / 2), round((width - size) / 2)
    return np.asarray(whole)[top:top + size, left:left + size]


@pytest.mark.parametrize('shape,size,resize', [
    ((37, 53), 16, 18), ((53, 37), 16, 18), ((101, 31), 24, 24), ((16, 203), 15, 17), ((64, 64), 28, 32),
    ((13, 11), 32, 36), ((375, 499), 224, 256)])
def test_eval_view_is_resize_then_centre_crop(shape, size, resize):
    pixels = scene(*shape)
    view = EvalView(size, resize)(encode(pixels, 'PNG'))
    assert difference(view, resized_then_cropped(pixels, size, resize)) < 0.5


def test_eval_view_without_resize_keeps_the_pixels():
    pixels = scene(20, 33)
    np.testing.assert_array_equal(EvalView(15, 20)(pixels), pixels[2:17, 9:24])


@pytest.mark.parametrize('shape', [(1, 300), (300, 1), (1, 1), (7, 3)])
def test_eval_view_of_extreme_shapes(shape):
    assert EvalView(8, 9)(scene(*shape)).shape == (8, 8, 3)


def test_eval_crop_larger_than_the_resized_image_is_refused():
    with pytest.raises(UserError, match=r'config\.eval\.size=9 must be at most config\.eval\.resize=8'):
        EvalView(9, 8)
