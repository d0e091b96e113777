"""Operations on one image's uint8 RGB pixels, on the CPU."""

import functools

import cv2
import numpy as np

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


def brightness(pixels: np.ndarray, factor: float) -> np.ndarray:
    """Away from black by the factor, as Pillow's enhancement of that name; 1 leaves the pixels as they are."""
    return _away_from(0.0, pixels, factor)


def contrast(pixels: np.ndarray, factor: float) -> np.ndarray:
    """Away from the image's mean grey by the factor."""
    return _away_from(np.rint(cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY).mean()), pixels, factor)


def saturation(pixels: np.ndarray, factor: float) -> np.ndarray:
    """Away from each pixel's own grey by the factor."""
    grey = cv2.cvtColor(cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
    return cv2.addWeighted(pixels, factor, grey, 1 - factor, 0)


def _away_from(level: float, pixels: np.ndarray, factor: float) -> np.ndarray:
    table = np.rint(level + factor * (np.arange(256) - level)).clip(0, 255).astype(np.uint8)
    return cv2.LUT(pixels, table)


# By name, each (pixels, factor) -> pixels.
OPERATIONS = {'brightness': brightness, 'contrast': contrast, 'saturation': saturation}
_JITTER = ('brightness', 'contrast', 'saturation')


def color_jitter(pixels: np.ndarray, strength: float, rng: np.random.Generator) -> np.ndarray:
    """Brightness, contrast and saturation, in random order, each times U[1 - strength, 1 + strength], never below 0."""
    for kind in rng.permutation(len(_JITTER)):
        pixels = OPERATIONS[_JITTER[kind]](pixels, rng.uniform(max(0.0, 1 - strength), 1 + strength))
    return pixels
