"""scikit-learn's bundled handwritten digits: 1,797 real 8x8 images with no download."""

from importlib.util import find_spec
from pathlib import Path

import numpy as np

from imagenet_jax.errors import UserError
from imagenet_jax.sources.base import Source


class Digits(Source):
    """Splits 'train' (1,437 images) and 'test' (360): every fifth image, from the first, is a test image."""
    class_names = tuple('0123456789')
    on_disk = False

    def __init__(self, path: str, split: str):
        if split not in ('train', 'test'):
            raise UserError(f'digits has the splits train and test, not {split!r}')
        # Found, not imported: that takes two seconds.
        folder = Path(find_spec('sklearn').origin).parent / 'datasets' / 'data'
        table = np.loadtxt(folder / 'digits.csv.gz', delimiter=',')
        self._rows = np.flatnonzero((np.arange(len(table)) % 5 == 0) == (split == 'test'))
        # Of 8x8 grey levels, 0 to 16, and the digit.
        self._images = np.rint(table[self._rows, :-1] * (255 / 16)).astype(np.uint8).reshape(-1, 8, 8, 1)
        self.labels = table[self._rows, -1].astype(np.int32)

    def image(self, index):
        return self._images[index]

    def key(self, index):
        return f'digits/{self._rows[index]}'
