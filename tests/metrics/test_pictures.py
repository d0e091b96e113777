"""Pictures for TensorBoard."""

import numpy as np
import pytest

from imagenet_jax.metrics.calibration import BINS, Calibration
from imagenet_jax.metrics.pictures import confusion_image, image_grid, reliability_image


def test_a_grid_has_its_images_in_rows_with_gaps_and_a_line_under_each():
    images = np.arange(5, dtype=np.uint8)[:, None, None, None] + np.full((5, 96, 96, 3), 10, np.uint8)
    grid = image_grid(images, list('abcde'))
    assert grid.shape == (8 + 2 * (96 + 15 + 8), 8 + 3 * (96 + 8), 3) and grid.dtype == np.uint8
    white = 255
    assert grid[8::119, 8::104, 0][:2].tolist() == [[10, 11, 12], [13, 14, white]]
    np.testing.assert_array_equal(grid[127:223, 112:208], images[4])
    assert (grid[:8] == white).all() and (grid[8:104, 104:112] == white).all()
    titles = [grid[104:119, 8 + 104 * i:104 + 104 * i] for i in range(3)]
    assert all((title < 100).any() for title in titles) and not np.array_equal(titles[0], titles[1])
    np.testing.assert_array_equal(image_grid(np.stack([images, 255 - images], 1), list('abcde')), grid)  # of two views
    assert image_grid(images, list('abcde'), 5).shape[:2] == (8 + 119, 8 + 5 * 104)
    assert image_grid(images, ['a\nb'] * 5).shape[0] == len(grid) + 2 * 15


@pytest.mark.parametrize(('side', 'zoom'), [(8, 12), (32, 3), (60, 1), (224, 1)])
def test_small_images_are_enlarged(side, zoom):
    image = np.random.default_rng(0).integers(256, size=(1, side, side, 3), dtype=np.uint8)
    grid = image_grid(image, ['a name that is much too long for so small an image ' * 9])
    assert grid.shape == (zoom * side + 31, zoom * side + 16, 3)
    np.testing.assert_array_equal(grid[8:8 + zoom * side:zoom, 8:-8:zoom], image[0])


@pytest.mark.parametrize('names', [(), ('ant', 'bee'), tuple(map(str, range(50)))])
def test_confusion_has_a_row_for_each_label(names):
    count = len(names) or 3
    pixels = confusion_image(np.eye(count) * 7, names)  # every image right, and one class may have none
    assert pixels.shape == (700, 800, 3) and pixels.dtype == np.uint8
    assert confusion_image(np.zeros((count, count)), names).shape == pixels.shape
    brightest, darkest = (253, 231, 36), (68, 1, 84)  # viridis
    found = {tuple(pixel) for pixel in pixels.reshape(-1, 3)[::7].tolist()}
    assert brightest in found and darkest in found


def test_every_cell_of_many_classes_has_pixels():
    """Each of 700 rows, and a fraction that is small shows."""
    matrix = np.eye(700) * 99
    matrix[300, 500] = 1
    pixels = confusion_image(matrix, tuple(map(str, range(700))))
    darkest = (pixels == (68, 1, 84)).all(-1)
    inside = darkest.any(1)
    assert inside.sum() > 700 and pixels.shape[0] <= 1000
    row = np.flatnonzero(inside)[0] + round(300.5 / 700 * inside.sum())
    assert (~darkest[row] & (pixels[row] != 255).any(-1)).sum() >= 2  # of the diagonal and of the other


def test_cells_of_few_classes_have_their_numbers_whatever_the_names():
    """Names may look like formulas, or be no text."""
    matrix = np.array([[3, 1], [0, 2]])
    names = ('a$b$_{', '\udcff 漢字' * 20)
    assert not np.array_equal(confusion_image(matrix, names), confusion_image(matrix * 2, names))


def test_a_reliability_diagram_has_a_bar_for_each_bin():
    images = np.zeros(BINS, int)
    images[[4, 14]] = 10, 30
    calibration = Calibration(images, images * 8 // 10, images * 0.9)
    pixels = reliability_image(calibration)
    blue = (np.abs(pixels.astype(int) - (31, 119, 180)) < 3).all(-1)
    columns = np.flatnonzero(blue[100:].any(0))
    assert pixels.shape == (700, 600, 3) and 1 + np.count_nonzero(np.diff(columns) > 5) == 2
