"""Evaluation's view of one image, as published results have it."""

import dataclasses

import numpy as np
from PIL import Image

from imagenet_jax.errors import UserError, unknown
from imagenet_jax.images.decode import decode

# Published weights were measured with one or the other.
FILTERS = {'bilinear': Image.Resampling.BILINEAR, 'bicubic': Image.Resampling.BICUBIC}
# Side in pixels of an image that a model is shown: that of a JPEG, of which one batch would be terabytes.
LARGEST = 65_535


@dataclasses.dataclass(frozen=True)
class EvalView:
    """Shorter side to `resize`, then the centre crop, uint8 (size, size, 3).

    Decoded in full and filtered antialiased, as Pillow and torchvision do; `interpolation` is one of `FILTERS`.
    """
    size: int
    resize: int
    interpolation: str = 'bilinear'

    def __post_init__(self):
        for name in ('size', 'resize'):
            if not 1 <= getattr(self, name) <= LARGEST:
                raise UserError(f'config.eval.{name}={getattr(self, name)} must be in 1..{LARGEST}')
        if self.size > self.resize:
            raise UserError(f'config.eval.size={self.size} must be at most config.eval.resize={self.resize}')
        if self.interpolation not in FILTERS:
            raise unknown('eval.interpolation', self.interpolation, FILTERS)

    def __call__(self, image: bytes | np.ndarray) -> np.ndarray:
        pixels = decode(image)
        height, width = pixels.shape[:2]
        short = min(height, width)
        to_height, to_width = int(self.resize * height / short), int(self.resize * width / short)
        top, left = round((to_height - self.size) / 2), round((to_width - self.size) / 2)
        if (to_height, to_width) == (height, width):
            return pixels[top:top + self.size, left:left + self.size]
        # One filter pass that computes the crop alone: the box is the crop in the image's own coordinates.
        down, across = height / to_height, width / to_width
        box = (left * across, top * down, (left + self.size) * across, (top + self.size) * down)
        return np.asarray(Image.fromarray(pixels).resize((self.size, self.size), FILTERS[self.interpolation], box=box))
