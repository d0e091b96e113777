"""What the colours of one image become, on the CPU: uint8 RGB (H, W, 3) -> the same shape.

What has no magnitude takes one all the same, so that all are called alike.
"""

import math

import cv2
import numpy as np


def brightness(pixels: np.ndarray, factor: float) -> np.ndarray:
    """Away from black by the factor, as Pillow's enhancement of that name; 1 leaves the pixels as they are."""
    return _away_from(0.0, pixels, factor)


def contrast(pixels: np.ndarray, factor: float) -> np.ndarray:
    """Away from the image's mean grey by the factor."""
    level = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)
    return _away_from(np.rint(cv2.sumElems(level)[0] / level.size), pixels, factor)


def saturation(pixels: np.ndarray, factor: float) -> np.ndarray:
    """Away from each pixel's own grey by the factor."""
    return cv2.addWeighted(pixels, factor, grey(pixels), 1 - factor, 0)


def sharpness(pixels: np.ndarray, factor: float) -> np.ndarray:
    """Away from the mean of each pixel's surroundings, 3 by 3 with itself five times, but for the outermost pixels."""
    # Of that mean 9 / 13 is of the box and 4 / 13 the pixel itself.
    box = (1 - factor) * 9 / 13
    changed = cv2.addWeighted(pixels, 1 - box, cv2.blur(pixels, (3, 3)), box, 0)
    changed[::max(1, len(pixels) - 1)] = pixels[::max(1, len(pixels) - 1)]
    changed[:, ::max(1, pixels.shape[1] - 1)] = pixels[:, ::max(1, pixels.shape[1] - 1)]
    return changed


def posterize(pixels: np.ndarray, bits: float) -> np.ndarray:
    """The upper `bits`, 0 to 8 and rounded, of each value."""
    return pixels & np.uint8(256 - (1 << (8 - round(bits))))


def solarize(pixels: np.ndarray, threshold: float = 128) -> np.ndarray:
    """Inverts the values from `threshold`, in levels, on."""
    return pixels ^ -(pixels >= threshold).view(np.uint8)


def invert(pixels: np.ndarray, _: float = 0) -> np.ndarray:
    """255 less each value."""
    return ~pixels


def auto_contrast(pixels: np.ndarray, _: float = 0) -> np.ndarray:
    """Stretches each channel to 0..255; one of a single value stays as it is."""
    matrix = np.eye(3, 4)
    edges = pixels.min(0).min(0).tolist(), pixels.max(0).max(0).tolist()
    for channel, (low, high) in enumerate(zip(*edges, strict=True)):
        if low < high:
            scale = 255 / (high - low)
            # Pillow cuts fractions off, OpenCV rounds. A fraction is a multiple of 1 / (high - low).
            matrix[channel, [channel, 3]] = scale, -low * scale - 0.5 + 1e-3
    return cv2.transform(pixels, matrix)


def equalize(pixels: np.ndarray, _: float = 0) -> np.ndarray:
    """Each channel's histogram made flat, as Pillow counts."""
    counts = np.array([cv2.calcHist([pixels], [channel], None, [256], [0, 256]).ravel() for channel in range(3)])
    sums = counts.astype(np.int64).cumsum(1)
    all_but_brightest = np.where(sums < sums[:, -1:], sums, 0).max(1, keepdims=True)
    step = all_but_brightest // 255
    before = np.pad(sums, ((0, 0), (1, 0)))[:, :-1]
    tables = np.where(step, (step // 2 + before) // np.maximum(step, 1), np.arange(256)).clip(max=255).astype(np.uint8)
    return cv2.LUT(pixels, np.ascontiguousarray(tables.T[:, None]))


def grey(pixels: np.ndarray, _: float = 0) -> np.ndarray:
    """Its luma (ITU-R 601) in all three channels."""
    return cv2.cvtColor(cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)


def hue(pixels: np.ndarray, turn: float) -> np.ndarray:
    """Turns the colour circle by a fraction of itself, -0.5 to 0.5; saturation and value stay."""
    # Of 256 hues, in bytes that overflow as the circle does.
    hsv = cv2.cvtColor(pixels, cv2.COLOR_RGB2HSV_FULL)
    rows = hsv.reshape(len(hsv), -1)
    rows += np.tile(np.array((round(turn * 256) % 256, 0, 0), np.uint8), hsv.shape[1])
    return cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB_FULL)


def saturation_value(pixels: np.ndarray, factors: tuple[float, float]) -> np.ndarray:
    """S and V of HSV times a factor each, at most 255."""
    levels = np.arange(256)
    table = np.stack([levels, *(np.rint(levels * factor).clip(0, 255) for factor in factors)], axis=-1)
    hsv = cv2.LUT(cv2.cvtColor(pixels, cv2.COLOR_RGB2HSV_FULL), table[:, None].astype(np.uint8))
    return cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB_FULL)


# Of ImageNet's pixels in 0..1, as published with ResNet in Torch (github.com/facebookarchive/fb.resnet.torch,
# datasets/imagenet.lua): what it calls the eigenvalues, and a principal component in RGB a column.
_EIGENVALUES = np.array((0.2175, 0.0188, 0.0045))
_COMPONENTS = np.array(((-0.5675, 0.7192, 0.4009), (-0.5808, -0.0045, -0.8140), (-0.5836, -0.6948, 0.4203)))


def lighting(pixels: np.ndarray, amounts: np.ndarray) -> np.ndarray:
    """AlexNet's change of light (NIPS 2012, section 4.1): one colour added, `amounts` along the principal components.

    `amounts` are 3 multiples of ImageNet's eigenvalues.
    """
    return cv2.add(pixels, (*(255 * _COMPONENTS @ (_EIGENVALUES * amounts)), 0))


def blur(pixels: np.ndarray, sigma: float) -> np.ndarray:
    """Gaussian, of a deviation in pixels, to three deviations; edges are mirrored."""
    taps = cv2.getGaussianKernel(2 * math.ceil(3 * sigma) + 1, sigma, cv2.CV_32F)
    # Half the time of cv2.GaussianBlur from seven taps on, and as near.
    return cv2.sepFilter2D(pixels, -1, taps, taps, borderType=cv2.BORDER_REFLECT_101)


def _away_from(level: float, pixels: np.ndarray, factor: float) -> np.ndarray:
    table = np.rint(level + factor * (np.arange(256) - level)).clip(0, 255).astype(np.uint8)
    return cv2.LUT(pixels, table)
