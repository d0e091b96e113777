"""Random pixels and labels, for measuring throughput: batches of it are made on the device."""

import numpy as np

from imagenet_jax.errors import UserError
from imagenet_jax.sources.base import Source


class Synthetic(Source):
    """As many images as ImageNet has, unless `num_examples` says otherwise.

    Args:
      path: not read.
      split: 'train' (1,281,167 images), or any other (50,000).
      num_classes: labels are uniform over them.
      size: side of the square images, in pixels.
      num_examples: of each split.
    """
    on_disk = False
    draws = True

    def __init__(self, path: str, split: str, num_classes: int, size: int, num_examples: int = 0):
        if not 0 <= num_examples <= 10**8:
            raise UserError(f'config.data.num_examples={num_examples} must be in 0..{10**8}')
        self.num_classes, self.size = num_classes, size
        count = num_examples or (1_281_167 if split == 'train' else 50_000)
        self.labels = np.random.default_rng(0).integers(num_classes, size=count, dtype=np.int32)

    def image(self, index):
        return np.random.default_rng(index).integers(256, size=(self.size, self.size, 3), dtype=np.uint8)

    def draw(self, key, shape: tuple[int, ...]) -> dict:
        """A training batch from a JAX key: uint8 images of that shape, int32 labels."""
        import jax  # of all sources this one alone needs it
        pixels, labels = jax.random.split(key)
        return {'image': jax.random.bits(pixels, shape, np.uint8),
                'label': jax.random.randint(labels, shape[:1], 0, self.num_classes, np.int32)}

    def key(self, index):
        return f'synthetic/{index}'
