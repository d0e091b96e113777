"""Where a training image is cut."""

import cv2
import numpy as np
import pytest
from fixtures_images import difference, encode, scene
from PIL import Image

from imagenet_jax.images import crops as crops_module
from imagenet_jax.images.crops import Pad, RandomResized, ShorterSide, crop_box
from imagenet_jax.images.decode import decode, decode_box
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


def test_shorter_side_is_a_window_of_the_resized_image():
    """The scale and the place are read off two slopes, one down and one across the image."""
    height, width, size = 300, 400, 100
    rows, columns = (x * 255.0 / (side - 1) for x, side in zip(np.mgrid[:height, :width], (height, width), strict=True))
    pixels, rng = np.stack([rows, columns, rows], -1).round().astype(np.uint8), np.random.default_rng(0)
    found = []
    for _ in range(1500):
        crop = ShorterSide((120, 240))(pixels, size, rng).astype(float)
        down, across = crop[:, :, 0].mean(1), crop[:, :, 1].mean(0)
        scales = [255 * size / side / (edge[-5:].mean() - edge[:5].mean()) * 0.95
                  for side, edge in ((height, down), (width, across))]
        assert scales[0] == pytest.approx(scales[1], rel=0.05)  # nothing is stretched
        found.append((scales[0] * height, down.mean() / 255, across.mean() / 255))
    shorter, top, left = np.array(found).T
    assert 116 < shorter.min() < 123 and 236 < shorter.max() < 246
    assert shorter.mean() == pytest.approx(180, abs=3)  # uniform
    room = 1 - size / shorter.clip(size), 1 - size / (shorter * width / height).clip(size)
    for at, free in zip((top, left), room, strict=True):
        np.testing.assert_allclose(((at - 0.5) / free).std(), 1 / np.sqrt(12), rtol=0.08)  # so is the place
        assert abs(at.mean() - 0.5) < 0.01


def test_shorter_side_of_a_whole_image_is_what_pillow_makes():
    pixels = cv2.GaussianBlur(scene(90, 90), (0, 0), 1)
    crop = ShorterSide((40, 40))(pixels, 40, np.random.default_rng(0))
    assert difference(crop, np.asarray(Image.fromarray(pixels).resize((40, 40), Image.Resampling.BILINEAR))) < 0.7


def test_shorter_side_decodes_jpegs_small():
    data, asked = encode(cv2.GaussianBlur(scene(400, 300), (0, 0), 4), quality=95), []
    whole = decode(data)
    for seed in range(6):
        crops = [ShorterSide((40, 70))(image, 32, np.random.default_rng(seed)) for image in (data, whole)]
        assert difference(*crops) < 2.5
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(crops_module, 'decode_box', lambda image, width, box, shrink: (
            asked.append(shrink), decode_box(image, width, box, shrink))[1])
        ShorterSide((40, 40))(data, 32, np.random.default_rng(0))
        ShorterSide((140, 140))(data, 32, np.random.default_rng(0))
    assert asked == [4, 2]
