"""JPEGs -> pixels: by TurboJPEG, of usual ones; a crop of those by the compiled reader (jpeg.c), where it was built;
any other by Pillow.

Installing builds the reader where a C compiler and libjpeg-turbo's headers are. It changes the speed and no pixel.
"""

import ctypes
import importlib.machinery
from pathlib import Path

import numpy as np
import simplejpeg

from imagenet_jax.images import pillow
from imagenet_jax.images.jpeg_header import Header
from imagenet_jax.images.limits import DecodeError


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


def decode(image: bytes, header: Header, shrink: int = 1, rows: int | None = None) -> np.ndarray:
    """uint8 RGB of a JPEG; one that is not plain comes whole, and at its full size.

    Args:
      image, header: it, and what was read of it.
      shrink: 1, 2, 4 or 8: at 1/shrink of its size.
      rows: how many from the top are needed, counted at full size; the others may be left out. None: all.

    Raises:
      DecodeError: it is damaged, or has no end.
    """
    if header.plain:
        # Decoding is most of an image's cost, and as a stream cannot be entered in the middle, but it can be left
        # early. Some rows more, since chroma is interpolated between neighbours.
        if rows is not None and rows + 4 * shrink < header.height and (
                cut := header.with_rows(image, rows + 4 * shrink)):
            try:
                return _decode_plain(cut, rows + 4 * shrink, header.width, shrink)
            except ValueError:  # the whole image has to say why, so that it is bad for all or for none
                pass
        try:
            return _decode_plain(image, header.height, header.width, shrink)
        except ValueError as error:
            if 'extraneous bytes' not in str(error):  # those cost no pixel, but all have yet to be decoded
                raise DecodeError(str(error)) from error
    return _decode_other(image, header)


def _decode_plain(image: bytes | bytearray, height: int, width: int, shrink: int) -> np.ndarray:
    pixels = np.empty((-(-height // shrink), -(-width // shrink), 3), np.uint8)
    try:
        return simplejpeg.decode_jpeg(image, 'RGB', min_height=pixels.shape[0], min_width=pixels.shape[1],
                                      min_factor=shrink, buffer=pixels)
    except ValueError as error:
        # Strict decoding, which alone notices a missing end, takes every warning for an error, and stops there. Stray
        # bytes ahead of the end come after the last pixel.
        if 'extraneous bytes before marker 0xd9' in str(error):
            return pixels
        raise


def _decode_other(image: bytes, header: Header) -> np.ndarray:
    """By Pillow, which passes over missing data in silence, and so decodes twice: see `Header.data`."""
    start, (data, strayed) = header.without_notes(image), header.data(image)
    pixels = pillow.decode_jpeg(start + data)
    if not np.array_equal(pixels, pillow.decode_jpeg(start + strayed)):
        raise DecodeError('Corrupt JPEG data: premature end of data segment')
    return pixels
