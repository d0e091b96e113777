"""One image: encoded bytes -> uint8 RGB pixels, whole or a crop of them."""

from collections.abc import Callable

import numpy as np
from PIL import UnidentifiedImageError

from imagenet_jax.images import jpeg, jpeg_header, orientation, pillow
from imagenet_jax.images.limits import MAX_WHOLE, DecodeError, turns
from imagenet_jax.sources.upright import Upright, as_stored

_TIFF = b'II*\0', b'MM\0*', b'II+\0', b'MM\0+'


def decode(image: bytes | np.ndarray, shrink: int = 1, rows: int | None = None) -> np.ndarray:
    """Decodes one image in any of pillow.FORMATS; JPEG goes the fast way.

    Args:
      image: encoded bytes, or pixels (uint8, HWC with 1 or 3 channels) that pass through.
      shrink: 1, 2, 4 or 8: a JPEG may be decoded at 1/shrink of its size, at no cost.
      rows: how many from the top are needed, counted at full size: a JPEG's others may be left out. Default: all.

    Returns:
      uint8 RGB pixels of shape (height, width, 3), of half of that where a JPEG has more than limits.MAX_WHOLE pixels.
      16-bit grey keeps its upper byte, alpha is dropped, palettes and CMYK are converted, a PNG's colour profile is
      ignored, and so is EXIF's orientation, but of `Upright` bytes.

    Raises:
      DecodeError: truncated, damaged as far as that can be told, unrecognised, larger than images/limits.py allows, or
        of pixels that no scale is known of: floats, signed ones and those of 32 bits.
    """
    if isinstance(image, np.ndarray):
        return np.repeat(image, 3, axis=2) if image.shape[2] == 1 else image
    turned = _orientation(image)
    pixels = _readable(image, lambda: _decode(image, shrink, rows if turned == 1 else None))
    return pixels if turned == 1 else orientation.upright(pixels, turned)


def image_size(image: bytes | np.ndarray) -> tuple[int, int]:
    """(height, width) from the header alone. Raises DecodeError, of images that are too large too."""
    if isinstance(image, np.ndarray):
        return image.shape[:2]
    height, width = _readable(image, lambda: _size(image))
    return orientation.size(height, width, _orientation(image))


def decode_box(image: bytes | np.ndarray, width: int, box: tuple[int, int, int, int], shrink: int = 1) -> np.ndarray:
    """A crop of an image: of a JPEG no more is decoded than the crop needs.

    Args:
      image, shrink: as for `decode`, which also says what is raised.
      width: of the image.
      box: (top, left, bottom, right) within it, at full size; a JPEG's crop has 1/shrink of that.
    """
    if (turned := _orientation(image)) != 1:
        image = as_stored(image)
        height, stored_width = image_size(image)
        box = orientation.stored_box(box, *orientation.size(height, stored_width, turned), turned)
        return orientation.upright(decode_box(image, stored_width, box, shrink), turned)
    top, left, bottom, right = box
    if isinstance(image, np.ndarray):
        return decode(image)[top:bottom, left:right]
    return _readable(image, lambda: _decode_box(image, width, box, shrink))


def stored_orientation(image: bytes) -> int:
    """How an encoded image has to be turned, 1..8; 1 where it does not say, or cannot be read."""
    try:
        return orientation.of(pillow.exif(image))
    except Exception:  # decoding says what is wrong
        return 1


def _orientation(image: bytes | np.ndarray) -> int:
    return stored_orientation(image) if isinstance(image, Upright) else 1


def _is_jpeg(image: bytes) -> bool:
    return image[:2] == b'\xff\xd8'


def _size(image: bytes) -> tuple[int, int]:
    if _is_jpeg(image):
        header = jpeg_header.read(image)
        return header.height, header.width
    return pillow.size(image)


def _decode(image: bytes, shrink: int, rows: int | None) -> np.ndarray:
    if not _is_jpeg(image):
        return pillow.decode(image)
    header = jpeg_header.read(image)
    with turns.take(header.held):
        return jpeg.decode(image, header, max(shrink, 1 + (header.height * header.width > MAX_WHOLE)), rows)


def _decode_box(image: bytes, width: int, box: tuple[int, int, int, int], shrink: int) -> np.ndarray:
    top, left, bottom, right = (round(edge / shrink) for edge in box)
    if _is_jpeg(image):
        header = jpeg_header.read(image)
        if header.held == 0:  # where scans are missing, libjpeg's versions smooth their blocks in different ways
            pixels = jpeg.decode_crop(image, shrink, top, left, bottom - top, right - left)
            if pixels is not None:
                return pixels
        with turns.take(header.held):
            pixels = jpeg.decode(image, header, shrink, box[2])
    else:
        pixels = pillow.decode(image)
    if pixels.shape[1] == width:  # decoded at full size
        top, left, bottom, right = box
    return pixels[top:bottom, left:right]


def _readable(image: bytes, read: Callable):
    """What `read` gives. Raises DecodeError, whatever it raises."""
    try:
        return read()
    except DecodeError:
        raise
    except UnidentifiedImageError as error:
        kind = 'a TIFF of a kind that is not read, such as of floats' if image[:4] in _TIFF else 'no known image format'
        raise DecodeError(f'{len(image)} bytes of {kind}') from error
    except (KeyError, IndexError) as error:  # what the decoders make of a header without its end
        raise DecodeError(f'{len(image)} bytes whose header is cut short or damaged') from error
    except Exception as error:  # decoders raise of every kind on hostile bytes: ValueError, OSError, SyntaxError, ...
        raise DecodeError(f'{type(error).__name__}: {error}') from error
