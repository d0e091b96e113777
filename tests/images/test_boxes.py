"""Boxes as masks."""

import jax.numpy as jnp
import numpy as np
import pytest

from imagenet_jax.images.boxes import inside


@pytest.mark.parametrize(('corner', 'box'), [
    ((1, 2), (3, 4)), ((0, 0), (5, 7)), ((-2, -1), (4, 3)), ((3, 5), (9, 9)), ((2, 3), (0, 4)), ((-4, 0), (4, 2))])
def test_box_is_a_slice_clipped(corner, box):
    expected = np.zeros((5, 7, 1), bool)
    (top, left), (height, width) = corner, box
    expected[max(top, 0):max(top + height, 0), max(left, 0):max(left + width, 0)] = True
    mask = inside(jnp.array(corner), jnp.array(box), (5, 7))
    assert mask.dtype == bool
    np.testing.assert_array_equal(mask, expected)
