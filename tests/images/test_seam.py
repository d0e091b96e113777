"""Seam carving: an image made square without losing its edges."""

import sys

import numpy as np
import pytest
from fixtures_images import scene

from imagenet_jax.errors import UserError
from imagenet_jax.images.eval_view import EvalView
from imagenet_jax.images.limits import DecodeError
from imagenet_jax.images.seam import SeamCarved, square


def test_without_the_package_it_is_refused(monkeypatch):
    monkeypatch.setitem(sys.modules, 'seam_carving', None)
    with pytest.raises(UserError, match=r"needs seam-carving: pip install 'imagenet_jax\[seam\]'"):
        SeamCarved(8, 8)


def test_edges_stay_that_a_crop_loses():
    """Two patterns at the ends of a flat image, across and down: the seams go through what is flat."""
    pytest.importorskip('seam_carving')
    pixels = np.full((16, 48, 3), 100, np.uint8)
    ends = np.random.default_rng(0).integers(256, size=(2, 16, 3, 3))
    pixels[:, :3], pixels[:, -3:] = ends
    for image, turn in ((pixels, 0), (pixels.swapaxes(0, 1), 1)):
        carved = SeamCarved(16, 16)(image)
        carved = carved.swapaxes(0, 1) if turn else carved
        assert (carved[:, :3] == ends[0]).all() and (carved[:, -3:] == ends[1]).all()
        assert (EvalView(16, 16)(image) == 100).all()


def test_it_is_the_view_of_the_square():
    pytest.importorskip('seam_carving')
    image = scene(40, 60)
    for more in ({}, {'views': 'five_crop'}, {'scales': (12, 20)}):
        view = SeamCarved(16, 20, **more)
        np.testing.assert_array_equal(view(image), EvalView(16, 20, **more)(square(image, 20)))
        assert view.one == SeamCarved(16, 20)
    np.testing.assert_array_equal(SeamCarved(16, 20)(scene(30, 30)), EvalView(16, 20)(square(scene(30, 30), 20)))
    with pytest.raises(DecodeError, match='100 x 20 pixels are too long'):
        SeamCarved(16, 20)(scene(20, 100))
