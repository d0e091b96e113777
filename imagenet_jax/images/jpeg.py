"""The compiled reader of JPEG crops (jpeg.c), where it was built: installing builds it where a C compiler and
libjpeg-turbo's headers are. It changes the speed and no pixel."""

import ctypes
import importlib.machinery
from pathlib import Path

import numpy as np


def _load():
    """decode_crop, or None."""
    for suffix in importlib.machinery.EXTENSION_SUFFIXES:
        file = Path(__file__).with_name(f'_jpeg{suffix}')
        if file.exists():
            try:
                function = ctypes.CDLL(str(file)).decode_crop  # a call leaves the interpreter lock
            except (OSError, AttributeError):  # the system's libjpeg is gone, or not libjpeg-turbo
                continue
            function.argtypes = [ctypes.c_char_p, ctypes.c_size_t, *[ctypes.c_int] * 5, ctypes.c_void_p]
            return function
    return None


_decode_crop = _load()
BUILT = _decode_crop is not None


def decode_crop(image: bytes, shrink: int, top: int, left: int, height: int, width: int) -> np.ndarray | None:
    """A crop of a JPEG at 1/shrink of its size (1, 2, 4 or 8), in whose pixels the box is counted: uint8 RGB.

    None where somebody else has to read it, or say why it cannot be read: no reader, CMYK, any damage, no end.
    """
    if _decode_crop is None:
        return None
    pixels = np.empty((height, width, 3), np.uint8)
    failed = _decode_crop(image, len(image), shrink, top, left, height, width, pixels.ctypes.data)
    return None if failed else pixels
