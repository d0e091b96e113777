"""Sides of images by epoch."""

import numpy as np
import pytest

from imagenet_jax.errors import UserError
from imagenet_jax.images.ramp import Ramp


def ffcv(epoch, first, size, start, end):
    """get_resolution of its ImageNet example, by the formula."""
    if epoch <= start:
        return first
    if epoch >= end:
        return size
    return int(np.round(np.interp([epoch], [start, end], [first, size])[0] / 32)) * 32


@pytest.mark.parametrize('numbers', [(160, 192, 65, 76), (160, 192, 6, 13), (128, 224, 10, 23), (96, 224, 0, 7)])
def test_sides_are_ffcvs(numbers):
    first, size, start, end = numbers
    ramp = Ramp(size=size, first_size=first, ramp_epochs=(start, end))
    for epoch in range(end + 20):
        exact = np.interp(epoch, [start, end], [first, size]) / 32
        if abs(exact % 1 - 0.5) > 1e-9:  # halfway numpy goes to the even one
            assert ramp(epoch) == ffcv(epoch, *numbers), epoch


@pytest.mark.parametrize(('first', 'size', 'sides'), [
    (128, 224, [128, 160, 192, 224]), (100, 164, [100, 132, 164]), (160, 192, [160, 192]),
    (176, 224, [176, 192, 208, 224]), (16, 32, [16, 24, 32]), (24, 32, [24, 28, 32]), (8, 16, [8, 12, 16]),
    (5, 8, [5, 6, 7, 8]), (8, 8, [8])])
def test_steps_are_as_large_as_the_ends_allow(first, size, sides):
    ramp = Ramp(size=size, first_size=first, ramp_epochs=(2, 42))
    assert [side for _, side in ramp.sizes()] == sides


def test_a_side_begins_at_the_nearest_to_the_line():
    ramp = Ramp(size=16, first_size=8, ramp_epochs=(1, 5))
    assert [ramp(epoch) for epoch in range(8)] == [8, 8, 12, 12, 16, 16, 16, 16]
    assert ramp.sizes() == [(0, 8), (2, 12), (4, 16)]
    assert Ramp(size=16, first_size=8, ramp_epochs=(2.5, 2.5)).sizes() == [(0, 8), (3, 16)]
    assert Ramp(size=16, first_size=8, ramp_epochs=(0, 0)).sizes() == [(0, 16)]


@pytest.mark.parametrize(('first', 'epochs', 'message'), [
    (17, (0, 1), r'config\.augment\.first_size=17 must be in 1\.\.16, which is config\.augment\.size'),
    (0, (0, 1), 'first_size=0'),
    (8, (3, 2), r'config\.augment\.ramp_epochs=\(3, 2\) must be \(start, end\)'), (8, (-1, 2), 'ramp_epochs')])
def test_wrong_ramps_are_refused(first, epochs, message):
    with pytest.raises(UserError, match=message):
        Ramp(size=16, first_size=first, ramp_epochs=epochs)
