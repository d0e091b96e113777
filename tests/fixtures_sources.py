"""Opening data sets, good and refused; one that needs no disk."""

import pytest

from imagenet_jax import sources
from imagenet_jax.errors import UserError

NAMES = ('ant', 'bee', 'cat')


def create(format, path, split='train', num_classes=3, **options):
    """A split, for a model of so many classes and 8 pixels."""
    return sources.create(format, str(path), split, num_classes, 8, **options)


def refused(*words, format='folder', path='', **kwargs):
    """Asserts a UserError that contains every word."""
    with pytest.raises(UserError) as caught:
        create(format, path, **kwargs)
    for word in words:
        assert str(word) in str(caught.value)


def folder(root, split='train'):
    """Of class folders."""
    return sources.create('folder', str(root), split)


class Pixels(sources.Source):
    """Arrays, with labels of any form."""

    def __init__(self, images, labels, class_names=()):
        self.images, self.labels, self.class_names = images, labels, class_names

    def image(self, index):
        return self.images[index]

    def key(self, index):
        return str(index)
