"""A small data set and what it becomes."""

import pytest
from fixtures_convert import ROWS, plan
from fixtures_images import class_tree

from imagenet_jax.convert import convert


@pytest.fixture(scope='session')
def tree(tmp_path_factory):
    """A folder of class folders, 40 images."""
    return class_tree(tmp_path_factory.mktemp('tree'), ROWS)


@pytest.fixture(scope='session')
def packed(tree, tmp_path_factory):
    """The same, packed into four shards."""
    output = tmp_path_factory.mktemp('packed')
    convert(plan(tree, output, shards=4), workers=2)
    return output
