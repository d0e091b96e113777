"""Where a training image is cut."""

import cv2
import numpy as np
import pytest
from fixtures_images import difference, encode, scene

from imagenet_jax.images.crops import Pad, RandomResized, crop_box
from imagenet_jax.images.decode import decode
from imagenet_jax.images.ops import resize

SCALE, RATIO = (0.08, 1.0), (3 / 4, 4 / 3)


def test_random_resized_crop_boxes_have_the_right_law():
    height, width, rng = 300, 400, np.random.default_rng(0)
    top, left, h, w = np.array([crop_box(height, width, SCALE, RATIO, rng) for _ in range(4000)]).T
    assert top.min() >= 0 and left.min() >= 0 and (top + h).max() <= height and (left + w).max() <= width
    area, log_aspect = h * w / (height * width), np.log(w / h)
    assert 0.078 < area.min() < 0.09 and 0.9 < area.max() <= 1
    assert np.abs(log_aspect).max() < np.log(4 / 3) + 0.02 and np.abs(log_aspect).max() > np.log(4 / 3) - 0.02
    small = area < 0.4  # boxes that fit whatever their aspect: nothing was drawn again
    assert abs(area[small].mean() - 0.24) < 0.01  # uniform
    assert abs(np.median(log_aspect[small])) < 0.02  # symmetric in the logarithm, as torchvision draws it
    centre = (top + h / 2).mean() / height, (left + w / 2).mean() / width
    np.testing.assert_allclose(centre, 0.5, atol=0.01)


@pytest.mark.parametrize('shape,box', [((10, 1000), (0, 493, 10, 13)), ((1000, 10), (493, 0, 13, 10)),
                                       ((1, 1), (0, 0, 1, 1))])
def test_random_resized_crop_falls_back_to_the_centre(shape, box):
    assert crop_box(*shape, (0.9, 1.0), RATIO, np.random.default_rng(0)) == box


def test_a_box_lies_inside_images_of_any_shape():
    rng = np.random.default_rng(1)
    for _ in range(500):
        height, width = rng.integers(1, 60, size=2)
        top, left, h, w = crop_box(height, width, SCALE, RATIO, rng)
        assert 0 <= top < top + h <= height and 0 <= left < left + w <= width
        pixels = RandomResized()(np.zeros((height, width, 3), np.uint8), 8, rng)
        assert pixels.shape == (8, 8, 3)


def test_crop_of_a_scaled_jpeg_is_close_to_the_crop_of_the_whole():
    data = encode(cv2.GaussianBlur(scene(203, 261), (0, 0), 4), quality=95)
    whole = decode(data)
    for seed in range(12):
        crops = [RandomResized((0.3, 1.0))(image, 32, np.random.default_rng(seed))
                 for image in (data, whole)]
        assert difference(*crops) < 2.5


def test_random_resized_crop_of_everything_is_a_resize():
    pixels = scene(24, 24)
    crop = RandomResized((1.0, 1.0), (1.0, 1.0))(pixels, 12, np.random.default_rng(0))
    np.testing.assert_array_equal(crop, resize(pixels, 12, 12))


def test_pad_crop_takes_every_window_of_the_padded_image():
    pixels, rng = scene(8, 8), np.random.default_rng(0)
    padded = np.zeros((12, 12, 3), np.uint8)
    padded[2:10, 2:10] = pixels
    windows = {padded[y:y + 8, x:x + 8].tobytes() for y in range(5) for x in range(5)}
    assert {Pad(2)(pixels, 8, rng).tobytes() for _ in range(400)} == windows
