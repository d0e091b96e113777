"""Where a training image is cut, by name: config.augment.crop. A crop reads its own options and no others.

Called with (image, size, rng), each gives uint8 pixels (size, size, 3). A new one is a class here and a line in CROPS.
"""

import dataclasses
import math

import numpy as np

from imagenet_jax.errors import UserError
from imagenet_jax.images.decode import decode, decode_box, image_size
from imagenet_jax.images.eval_view import LARGEST
from imagenet_jax.images.ops import resize


@dataclasses.dataclass(frozen=True)
class RandomResized:
    """A random box of the image, resized; of a JPEG no more is decoded than it needs.

    Attributes:
      scale: the box's area, as a fraction of the image's.
      ratio: the box's width over its height.
    """
    scale: tuple[float, float] = (0.08, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)

    def __post_init__(self):
        for name, most in (('scale', 1), ('ratio', 100)):
            low, high = getattr(self, name)
            if not 0 < low <= high <= most:
                raise UserError(f'config.augment.{name}={getattr(self, name)} must be (low, high), in (0, {most}]')

    def __call__(self, image: bytes | np.ndarray, size: int, rng: np.random.Generator) -> np.ndarray:
        height, width = image_size(image)
        return _resized(image, width, crop_box(height, width, self.scale, self.ratio, rng), size)


def _resized(image: bytes | np.ndarray, width: int, box: tuple[int, int, int, int], size: int) -> np.ndarray:
    """The box (top, left, height, width) of an image so wide; a JPEG is decoded no larger than it has to be."""
    top, left, h, w = box
    shrink = max(n for n in (1, 2, 4, 8) if n == 1 or n * size <= min(h, w))
    return resize(decode_box(image, width, (top, left, top + h, left + w), shrink), size, size)


def crop_box(height: int, width: int, scale, ratio, rng: np.random.Generator) -> tuple[int, int, int, int]:
    """(top, left, height, width) of a random-resized crop (arXiv 1409.4842), sampled as torchvision does.

    Area uniform in `scale` of the image's, log of width/height uniform in `ratio`; after ten misses the largest centre
    crop within `ratio`.
    """
    low, high = math.log(ratio[0]), math.log(ratio[1])
    for _ in range(10):
        area, aspect, down, across = rng.random(4).tolist()  # Python's numbers: numpy's scalars are slow
        area = height * width * (scale[0] + area * (scale[1] - scale[0]))
        aspect = math.exp(low + aspect * (high - low))
        w, h = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < w <= width and 0 < h <= height:
            return int(down * (height - h + 1)), int(across * (width - w + 1)), h, w
    w = min(width, max(1, round(height * ratio[1])))
    h = min(height, max(1, round(width / ratio[0])))
    return (height - h) // 2, (width - w) // 2, h, w


@dataclasses.dataclass(frozen=True)
class ShorterSide:
    """Scale augmentation (VGG, arXiv 1409.1556; ResNet, 1512.03385): resized, then a random window of `size`.

    The window is cut first, to whole pixels of the image as it is stored, so that no more is decoded than it needs.

    Attributes:
      shorter: (least, most) pixels that the shorter side is resized to, uniform.
    """
    shorter: tuple[int, int] = (256, 480)

    def __post_init__(self):
        if not 0 < self.shorter[0] <= self.shorter[1]:
            raise UserError(f'config.augment.shorter={self.shorter} must be (least, most), 0 < least <= most')
        if self.shorter[1] > LARGEST:
            raise UserError(f'config.augment.shorter={self.shorter} must be at most {LARGEST}, the side of a JPEG')

    def check(self, size: int, ramp: bool) -> None:
        """Raises UserError where windows of `size` do not fit, or where the size is to change."""
        if self.shorter[0] < size:
            raise UserError(f'config.augment.shorter={self.shorter} must not be below config.augment.size={size}')
        if ramp:
            raise UserError('config.augment.crop=shorter_side counts its sides in pixels, and config.augment.first_size'
                            ' changes what they mean: use config.augment.crop=random_resized with it')

    def __call__(self, image: bytes | np.ndarray, size: int, rng: np.random.Generator) -> np.ndarray:
        height, width = image_size(image)
        shorter = rng.integers(self.shorter[0], self.shorter[1] + 1)
        side = max(1, round(min(height, width) * size / shorter))
        top, left = int(rng.integers(height - side + 1)), int(rng.integers(width - side + 1))
        return _resized(image, width, (top, left, side, side), size)


@dataclasses.dataclass(frozen=True)
class Pad:
    """CIFAR's: resized to `size` where it differs, zeros around, then a random window.

    Attributes:
      pad: pixels of zeros on each side.
    """
    pad: int = 4

    def __post_init__(self):
        if self.pad < 0:
            raise UserError(f'config.augment.pad={self.pad} must not be negative')

    def check(self, size: int, ramp: bool) -> None:
        """Raises UserError where a window could be of nothing but zeros; a ramp changes nothing here."""
        del ramp
        if self.pad >= size:
            raise UserError(f'config.augment.pad={self.pad} must be below the side of an image, {size}: a window could '
                            'be of nothing but zeros')

    def __call__(self, image: bytes | np.ndarray, size: int, rng: np.random.Generator) -> np.ndarray:
        pad = self.pad
        pixels = np.pad(resize(decode(image), size, size), ((pad, pad), (pad, pad), (0, 0)))
        top, left = rng.integers(2 * pad + 1, size=2)
        return pixels[top:top + size, left:left + size]


@dataclasses.dataclass(frozen=True)
class Whole:
    """No crop: the whole image, resized without regard to its shape."""

    def __call__(self, image: bytes | np.ndarray, size: int, rng: np.random.Generator) -> np.ndarray:
        return resize(decode(image), size, size)


CROPS = {'random_resized': RandomResized, 'shorter_side': ShorterSide, 'pad': Pad, 'none': Whole}
