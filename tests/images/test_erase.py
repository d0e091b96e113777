"""What is erased in each image."""

import random

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from imagenet_jax.errors import UserError
from imagenet_jax.images.erase import ERASERS, Cutout, RandomErasing
from imagenet_jax.options import create

SIZE = 24, 20


def erased(erase, count=1000, step=0, value=9.0):
    """Images of one value throughout, erased."""
    images, places = jnp.full((count, *SIZE, 3), value), jnp.arange(count)
    return np.asarray(jax.jit(erase)(jax.random.key(0), step, images, places))


def moments(masks):
    """Of bool (N, H, W), a box in each: means and deviations of area, log aspect, and of where it starts."""
    tops, lefts, heights, widths = [], [], [], []
    for mask in masks:
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        assert mask.sum() == len(rows) * len(columns)
        tops.append(rows[0] / max(1, len(mask) - len(rows)))
        lefts.append(columns[0] / max(1, mask.shape[1] - len(columns)))
        heights.append(len(rows))
        widths.append(len(columns))
    heights, widths = np.array(heights), np.array(widths)
    columns = np.array([heights * widths / np.prod(SIZE), np.log(heights / widths), tops, lefts])
    return np.concatenate([columns.mean(1), columns.std(1)])


def test_boxes_are_drawn_as_in_timm():
    """Which has the algorithm of torchvision. Up to the whole area and beyond its sides, many do not fit at first."""
    torch_reference = pytest.importorskip('torch_reference')
    timm = torch_reference.timm_file('data/random_erasing.py')
    reference = timm.RandomErasing(1.0, 0.02, 0.9, min_aspect=0.3, max_aspect=4.0, device='cpu')
    random.seed(0)
    theirs = reference(torch_reference.torch.ones(3000, 1, *SIZE))[:, 0].numpy() == 0
    ours = erased(RandomErasing(probability=1.0, area=(0.02, 0.9), aspect=(0.3, 4.0)), 3000)[..., 0] == 0
    for masks in (ours, theirs):
        assert masks.any((1, 2)).mean() > 0.99
    differences = moments(ours[ours.any((1, 2))]) - moments(theirs[theirs.any((1, 2))])
    # Five standard errors of a difference of two such means: area, log aspect, top, left; then of their deviations.
    np.testing.assert_array_less(np.abs(differences), [0.03, 0.09, 0.045, 0.045, 0.015, 0.06, 0.03, 0.03])


def test_fills():
    """And the same boxes, in as many images as should be, whatever is put there."""
    noise, channel = (erased(RandomErasing(probability=0.7, fill=fill), 400) for fill in ('noise', 'channel'))
    boxes, has_box = noise != 9, (noise != 9).any((1, 2, 3))
    np.testing.assert_array_equal(channel != 9, boxes)
    assert has_box.mean() == pytest.approx(0.7, abs=0.09)
    assert noise[boxes].mean() == pytest.approx(0, abs=0.02) and noise[boxes].std() == pytest.approx(1, abs=0.02)
    assert len(np.unique(noise[boxes])) > 0.9 * boxes.sum()
    colors = np.array([image[box[..., 0]][0] for image, box in zip(channel[has_box], boxes[has_box], strict=True)])
    np.testing.assert_array_equal(channel[has_box], np.where(boxes[has_box], colors[:, None, None], 9))
    assert len(np.unique(colors)) > 0.99 * colors.size
    assert colors.mean() == pytest.approx(0, abs=0.15) and colors.std() == pytest.approx(1, abs=0.1)


@pytest.mark.parametrize('side', [5, 30])
def test_cutout_is_a_square_around_any_pixel(side):
    masks = erased(Cutout(side=side), 4000)[..., 0] == 0
    expected = np.zeros(SIZE)
    for row in range(SIZE[0]):
        for column in range(SIZE[1]):
            top, left = row - side // 2, column - side // 2
            expected[max(0, top):top + side, max(0, left):left + side] += 1 / np.prod(SIZE)
    np.testing.assert_allclose(masks.mean(0), expected, atol=0.04)
    assert masks.any((1, 2)).all()


def test_off_in_the_last_epochs():
    """The last 2 of 4 epochs of 2.5 steps: steps 5 to 9."""
    erase = Cutout(side=4, off_epochs=2, steps=10, steps_per_epoch=2.5)
    for step, whole in ((0, False), (4, False), (5, True), (9, True)):
        assert (erased(erase, 3, step) == 9).all() == whole


@pytest.mark.parametrize(('section', 'message'), [
    ({'name': 'rendom'}, "'rendom'; did you mean random"),
    ({'name': 'none', 'off_epochs': 1.0}, r'config\.erase\.off_epochs=1\.0 is read by .* or cutout, not by none'),
    ({'name': 'random', 'side': 8}, r'config\.erase\.side=8 is read by config\.erase\.name=cutout, not by random'),
    ({'name': 'cutout', 'side': 8, 'fill': 'noise'}, r'config\.erase\.fill=.* is read by .*=random, not by cutout'),
    ({'name': 'cutout'}, r'config\.erase lacks side'),
    ({'name': 'cutout', 'side': 0}, r'config\.erase\.side=0 must be positive'),
    ({'name': 'random', 'probability': 0.0}, r'config\.erase\.probability=0\.0 must be in \(0, 1\]'),
    ({'name': 'random', 'area': (0.4, 0.2)}, r'config\.erase\.area=\(0\.4, 0\.2\) must be'),
    ({'name': 'random', 'area': (0.0, 0.2)}, r'config\.erase\.area=\(0\.0, 0\.2\) must be'),
    ({'name': 'random', 'aspect': (0.0, 2.0)}, r'config\.erase\.aspect=\(0\.0, 2\.0\) must be'),
    ({'name': 'random', 'area': (1.0, 1.0)}, r'config\.erase\.area=\(1\.0, 1\.0\) with .* no such box fits'),
    ({'name': 'random', 'area': (0.5, 0.5), 'aspect': (2.0, 3.0)}, r'config\.erase\.aspect=.*: no such box fits'),
    ({'name': 'random', 'fill': 'nose'}, "'nose'; did you mean noise"),
    ({'name': 'random', 'off_epochs': -1.0}, r'config\.erase\.off_epochs=-1\.0 must not be negative'),
    ({'name': 'random', 'off_epochs': 9.0}, r'config\.erase\.off_epochs=9\.0 is 90 steps, and the run has only 90')])
def test_refused(section, message):
    with pytest.raises(UserError, match=message):
        create(ERASERS, section, 'config.erase', steps=90, steps_per_epoch=10.0)


@pytest.mark.parametrize(('eraser', 'message'), [
    (Cutout(side=32), r'config\.erase\.side=32 must be below the side of an image, 32'),
    (RandomErasing(area=(1e-9, 1e-4)), r'config\.erase\.area=\(1e-09, 0\.0001\) must be at least a pixel of 32 x 32')])
def test_what_erases_all_or_nothing_of_such_images(eraser, message):
    with pytest.raises(UserError, match=message):
        eraser.check(32)
    eraser.check(128)
