"""scikit-learn's bundled handwritten digits: 1,797 real 8x8 images with no download."""

import numpy as np

from imagenet_jax.errors import UserError
from imagenet_jax.sources.base import Source


class Digits(Source):
    """Splits 'train' (1,437 images) and 'test' (360): every fifth image, from the first, is a test image."""
    class_names = tuple('0123456789')
    on_disk = False

    def __init__(self, path: str, split: str):
        from sklearn.datasets import load_digits  # half a second that no other source should pay
        if split not in ('train', 'test'):
            raise UserError(f'digits has the splits train and test, not {split!r}')
        digits = load_digits()
        self._rows = np.flatnonzero((np.arange(len(digits.target)) % 5 == 0) == (split == 'test'))
        # Grey levels are stored as 0..16.
        self._images = np.rint(digits.images[self._rows] * (255 / 16)).astype(np.uint8)[..., None]
        self.labels = digits.target[self._rows].astype(np.int32)

    def image(self, index):
        return self._images[index]

    def key(self, index):
        return f'digits/{self._rows[index]}'
