"""Evaluation's views of one image, as published results have them."""

import dataclasses
import math
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from imagenet_jax.errors import UserError, unknown
from imagenet_jax.images.decode import decode

if TYPE_CHECKING:
    import jax

# Published weights were measured with one or the other.
FILTERS = {'bilinear': Image.Resampling.BILINEAR, 'bicubic': Image.Resampling.BICUBIC}
VIEWS = ('center', 'five_crop', 'ten_crop', 'fully_convolutional')
# Side in pixels of an image that a model is shown: that of a JPEG, of which one batch would be terabytes.
LARGEST = 65_535
# Of `scales`: each is a part of the program, and of every batch.
_MOST_SCALES = 16


@dataclasses.dataclass(frozen=True)
class EvalView:
    """An image with its shorter side resized, and the crops of it that a model's answers are averaged over.

    Decoded in full and filtered antialiased, as Pillow and torchvision do.

    Attributes:
      size: side of a crop.
      resize: what the shorter side becomes before.
      interpolation: one of `FILTERS`.
      views: 'center': the centre crop; 'five_crop': the corners too; 'ten_crop': these and their mirror images (NIPS
        2012's AlexNet); 'fully_convolutional': the centre square, whole, a map of answers (arXiv 1312.6229).
      scales: shorter sides, instead of `resize` and `size`: the centre square at each (arXiv 1409.1556).
      flip: each crop's mirror image too.
      crop_ratio: where given, instead of `resize`: the part of the shorter side that the crop shows.
    """
    size: int
    resize: int
    interpolation: str = 'bilinear'
    views: str = 'center'
    scales: tuple[int, ...] = ()
    flip: bool = False
    crop_ratio: float = None

    def __post_init__(self):
        for name, sides in (('size', (self.size,)), ('resize', (self.resize,)), ('scales', self.scales)):
            if not all(1 <= side <= LARGEST for side in sides):
                raise UserError(f'config.eval.{name}={getattr(self, name)} must be in 1..{LARGEST}')
        if len(self.scales) > _MOST_SCALES:
            raise UserError(f'config.eval.scales={self.scales} has more than {_MOST_SCALES} of them')
        if self.interpolation not in FILTERS:
            raise unknown('eval.interpolation', self.interpolation, FILTERS)
        if self.views not in VIEWS:
            raise unknown('eval.views', self.views, VIEWS)
        if self.crop_ratio is not None and not 0.01 <= self.crop_ratio <= 1:
            raise UserError(f'config.eval.crop_ratio={self.crop_ratio} must be in .01..1')
        if self.crop_ratio is None and self.size > self.resize and not self.scales:
            raise UserError(f'config.eval.size={self.size} must be at most config.eval.resize={self.resize}')
        if self.scales and self.views in ('five_crop', 'ten_crop'):
            raise UserError(f'config.eval.views={self.views} is of one size, and config.eval.scales={self.scales} '
                            'shows the image whole at each: unset one of them')
        if self.flip and self.views == 'ten_crop':
            raise UserError('config.eval.views=ten_crop has the mirror images already: unset config.eval.flip')

    @property
    def whole(self) -> bool:
        """Whether the model sees more than crops of `size`: it is to answer a map, and the mean of that counts."""
        return bool(self.scales) or self.views == 'fully_convolutional'

    @property
    def shorter(self) -> int:
        """The shorter side, in pixels, that crops are of."""
        # As timm rounds it.
        return self.resize if self.crop_ratio is None else math.floor(self.size / self.crop_ratio)

    @property
    def crops(self) -> tuple[tuple[int, int], ...]:
        """(side, number of crops of it), in the order in which they are given."""
        if self.whole:
            return tuple((side, 1) for side in self.scales or (self.shorter,))
        return ((self.size, 1 if self.views == 'center' else 5),)

    @property
    def mirrored(self) -> bool:
        """Whether the device adds each crop's mirror image."""
        return self.flip or self.views == 'ten_crop'

    @property
    def shape(self) -> tuple[int, ...]:
        """Of what one image gives: (side, side, 3) of one crop; of several (bytes,), all their pixels in a row."""
        (side, number), *more = self.crops
        if number == 1 and not more:
            return side, side, 3
        return (sum(number * side * side * 3 for side, number in self.crops),)

    @property
    def one(self) -> 'EvalView':
        """The centre crop alone, for pictures."""
        return type(self)(self.size, max(self.shorter, self.size), self.interpolation)

    def __call__(self, image: bytes | np.ndarray) -> np.ndarray:
        """An encoded image, or its pixels -> uint8 of `shape`."""
        pixels = decode(image)
        if self.whole:
            found = [_center(pixels, side, side, self.interpolation) for side, _ in self.crops]
        elif self.views == 'center':
            found = [_center(pixels, self.shorter, self.size, self.interpolation)]
        else:
            found = _five(pixels, self.shorter, self.size, self.interpolation)
        return found[0] if len(found) == 1 else np.concatenate([crop.ravel() for crop in found])

    def unpack(self, images: 'jax.Array') -> list['jax.Array']:
        """(N, *shape) -> for each of `crops` an array (number, N, side, side, 3)."""
        if images.ndim == 4:
            return [images[None]]
        parts, start = [], 0
        for side, number in self.crops:
            stop = start + number * side * side * 3
            parts.append(images[:, start:stop].reshape(-1, number, side, side, 3).swapaxes(0, 1))
            start = stop
        return parts


def _resized(pixels: np.ndarray, shorter: int) -> tuple[int, int]:
    """(height, width) of an image whose shorter side becomes so many pixels."""
    height, width = pixels.shape[:2]
    return int(shorter * height / min(height, width)), int(shorter * width / min(height, width))


def _center(pixels: np.ndarray, shorter: int, size: int, interpolation: str) -> np.ndarray:
    height, width = pixels.shape[:2]
    to_height, to_width = _resized(pixels, shorter)
    top, left = round((to_height - size) / 2), round((to_width - size) / 2)
    if (to_height, to_width) == (height, width):
        return pixels[top:top + size, left:left + size]
    # One filter pass that computes the crop alone: the box is the crop in the image's own coordinates.
    down, across = height / to_height, width / to_width
    box = (left * across, top * down, (left + size) * across, (top + size) * down)
    return np.asarray(Image.fromarray(pixels).resize((size, size), FILTERS[interpolation], box=box))


def _five(pixels: np.ndarray, shorter: int, size: int, interpolation: str) -> list[np.ndarray]:
    """The corners, of the whole image and not of its centre square, and the centre."""
    height, width = _resized(pixels, shorter)
    if (height, width) != pixels.shape[:2]:
        pixels = np.asarray(Image.fromarray(pixels).resize((width, height), FILTERS[interpolation]))
    bottom, right = height - size, width - size
    places = (0, 0), (0, right), (bottom, 0), (bottom, right), (round(bottom / 2), round(right / 2))
    return [pixels[top:top + size, left:left + size] for top, left in places]
