"""Where the pixels of one image go, on the CPU: uint8 RGB (H, W, 3) -> the same shape, black where nothing comes from.

Positions are those of Pillow and torchvision, where pixel (x, y) covers x to x + 1: rotation is about the middle of the
image, shears hold its upper left corner. Pixels are taken, not interpolated, unless `smooth`: then bilinearly.
"""

import math

import cv2
import numpy as np


def shear_x(pixels: np.ndarray, slope: float, smooth: bool = False) -> np.ndarray:
    """Each row is `slope` pixels further to the left than the one above it."""
    return _warp(pixels, (1, slope, 0, 0, 1, 0), smooth)


def shear_y(pixels: np.ndarray, slope: float, smooth: bool = False) -> np.ndarray:
    """Each column is `slope` pixels higher than the one to the left of it."""
    return _warp(pixels, (1, 0, 0, slope, 1, 0), smooth)


def translate_x(pixels: np.ndarray, shift: float) -> np.ndarray:
    """To the right by the whole part of `shift`, in pixels."""
    shift, width = int(shift), pixels.shape[1]
    if abs(shift) >= width:
        return np.zeros_like(pixels)
    left, right = max(shift, 0), max(-shift, 0)
    return cv2.copyMakeBorder(pixels[:, right:width - left], 0, 0, left, right, cv2.BORDER_CONSTANT)


def translate_y(pixels: np.ndarray, shift: float) -> np.ndarray:
    """Down by the whole part of `shift`, in pixels."""
    shift, height = int(shift), pixels.shape[0]
    if abs(shift) >= height:
        return np.zeros_like(pixels)
    top, bottom = max(shift, 0), max(-shift, 0)
    return cv2.copyMakeBorder(pixels[bottom:height - top], top, bottom, 0, 0, cv2.BORDER_CONSTANT)


def rotate(pixels: np.ndarray, degrees: float, smooth: bool = False) -> np.ndarray:
    """Counter-clockwise; the corners that leave the image are lost."""
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    x, y = pixels.shape[1] / 2, pixels.shape[0] / 2
    return _warp(pixels, (cos, -sin, x - cos * x + sin * y, sin, cos, y - sin * x - cos * y), smooth)


def _warp(pixels, source, smooth):
    """`source` is (a, b, c, d, e, f): what comes to (x, y) is from (a x + b y + c, d x + e y + f)."""
    a, b, c, d, e, f = source
    # OpenCV's positions are of the pixels' centres.
    matrix = np.array(((a, b, c + (a + b - 1) / 2), (d, e, f + (d + e - 1) / 2)))
    size = pixels.shape[1::-1]
    if not smooth:
        matrix[:, 2] += 1e-4  # halfway between two pixels Pillow takes the next, OpenCV now this and now that
        return cv2.warpAffine(pixels, matrix, size, flags=cv2.INTER_NEAREST | cv2.WARP_INVERSE_MAP)
    four = cv2.cvtColor(pixels, cv2.COLOR_RGB2RGBA)  # of four channels OpenCV interpolates twice as fast
    return cv2.cvtColor(cv2.warpAffine(four, matrix, size, flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP),
                        cv2.COLOR_RGBA2RGB)
