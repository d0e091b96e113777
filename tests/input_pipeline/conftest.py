"""A small data set, whole and with an image that cannot be read."""

import pytest
from fixtures_images import class_tree
from fixtures_input import COUNT

from imagenet_jax import sources


@pytest.fixture(scope='session')
def good(tmp_path_factory):
    """Eleven readable images."""
    return sources.create('folder', str(class_tree(tmp_path_factory.mktemp('good'), COUNT)), 'train', 3, 8)


@pytest.fixture
def spoiled(tmp_path):
    """The same, image 4 ('bee/001.JPEG') with nothing in it."""
    source = sources.create('folder', str(class_tree(tmp_path, COUNT)), 'train', 3, 8)
    assert source.key(4) == 'bee/001.JPEG'
    (tmp_path / 'train' / source.key(4)).write_bytes(b'')
    return source
