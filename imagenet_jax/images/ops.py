"""Operations on one image's uint8 RGB pixels, on the CPU: all by name, size and mirror image here."""

import functools

import cv2
import numpy as np

from imagenet_jax.images import color, geometry

# Parallelism is over images; OpenCV's own threads would only fight the workers for the same cores.
cv2.setNumThreads(0)


def resize(pixels: np.ndarray, height: int, width: int) -> np.ndarray:
    """Training's resize: bilinear, antialiased as Pillow's is, to within a level on the mean."""
    # Not OpenCV's own integers, but a fourth faster and nearer to the true value; OpenCV keeps the setting by thread.
    cv2.ipp.setUseIPP_NotExact(True)
    down, across = _antialiasing(pixels.shape[0], height), _antialiasing(pixels.shape[1], width)
    if len(down) > 1 or len(across) > 1:
        pixels = cv2.sepFilter2D(pixels, -1, across, down, borderType=cv2.BORDER_REPLICATE)
    return cv2.resize(pixels, (width, height), interpolation=cv2.INTER_LINEAR)


@functools.lru_cache(4096)
def _antialiasing(size: int, to: int) -> np.ndarray:
    """What to filter one axis with before bilinear interpolation at a lower rate.

    Interpolation is a triangle of half-width 1, and antialiasing takes one of half-width s = size / to. With the
    triangle sampled at whole pixels between them they have the same variance: (s**2 - 1) / 6 + 1 / 6 = s**2 / 6; where
    s is not whole, with the mean of the two nearest that has it.
    """
    shrink = size / to
    if shrink < 1.15:  # such as 256 to 224, where it would cost a fourth more and change a tenth of a level
        return np.ones(1, np.float32)
    n = int(shrink)
    share = (shrink**2 - n**2) / (2 * n + 1)  # of the wider triangle
    narrow, wide = (np.maximum(0, m - np.abs(np.arange(-n, n + 1))) / m**2 for m in (n, n + 1))
    return ((1 - share) * narrow + share * wide).astype(np.float32)


def flip(pixels: np.ndarray) -> np.ndarray:
    """Left and right change places."""
    return cv2.flip(pixels, 1)


def flip_vertical(pixels: np.ndarray) -> np.ndarray:
    """Top and bottom change places."""
    return cv2.flip(pixels, 0)


# By name, each (pixels, magnitude) -> pixels, uint8 and of the same shape; what the magnitude is, its function says.
OPERATIONS = {function.__name__: function for function in (
    geometry.shear_x, geometry.shear_y, geometry.translate_x, geometry.translate_y, geometry.rotate, color.brightness,
    color.contrast, color.saturation, color.sharpness, color.posterize, color.solarize, color.auto_contrast,
    color.equalize, color.invert, color.hue, color.saturation_value, color.lighting, color.grey, color.blur)}
