"""data.exif: images are turned as their EXIF orientation says."""

import numpy as np

from imagenet_jax.sources.base import Source


class Upright(bytes):
    """Encoded bytes that are decoded upright; any others are as they are stored, whatever EXIF says."""


def as_stored(image: bytes | np.ndarray) -> bytes | np.ndarray:
    """The same image without the mark."""
    return bytes(image) if isinstance(image, Upright) else image


class UprightSource(Source):
    """Another source, its encoded images marked so; pixels and everything else stay."""

    def __init__(self, source: Source):
        self._source, self.labels, self.class_names = source, source.labels, source.class_names
        self.class_words = dict(source.class_words)  # the view of none does not pickle

    def image(self, index):
        image = self._source.image(index)
        return Upright(image) if isinstance(image, bytes) else image

    def key(self, index):
        return self._source.key(index)
