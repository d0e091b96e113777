"""Pictures for TensorBoard."""

import numpy as np
import pytest

from imagenet_jax.metrics.pictures import confusion_image, image_grid


def test_a_grid_has_its_images_in_rows():
    images = np.arange(5, dtype=np.uint8)[:, None, None, None] + np.full((5, 64, 80, 3), 10, np.uint8)
    grid = image_grid(images)
    assert grid.shape == (2 * 64, 3 * 80, 3) and grid.dtype == np.uint8
    assert grid[::64, ::80, 0].tolist() == [[10, 11, 12], [13, 14, 0]]  # the rest is black
    np.testing.assert_array_equal(grid[64:, 80:160], images[4])
    np.testing.assert_array_equal(image_grid(np.stack([images, 255 - images], 1)), grid)  # of two views the first


@pytest.mark.parametrize(('side', 'zoom'), [(8, 8), (32, 2), (33, 1), (224, 1)])
def test_small_images_are_enlarged(side, zoom):
    image = np.random.default_rng(0).integers(256, size=(1, side, side, 3), dtype=np.uint8)
    grid = image_grid(image)
    assert grid.shape == (zoom * side, zoom * side, 3)
    np.testing.assert_array_equal(grid[::zoom, ::zoom], image[0])


@pytest.mark.parametrize('names', [(), ('ant', 'bee'), tuple(map(str, range(50)))])
def test_confusion_has_a_row_for_each_label(names):
    count = len(names) or 3
    pixels = confusion_image(np.eye(count) * 7, names)  # every image right, and one class may have none
    assert pixels.shape == (700, 800, 3) and pixels.dtype == np.uint8
    assert confusion_image(np.zeros((count, count)), names).shape == pixels.shape
    brightest, darkest = (253, 231, 36), (68, 1, 84)  # viridis
    found = {tuple(pixel) for pixel in pixels.reshape(-1, 3)[::7].tolist()}
    assert brightest in found and darkest in found
