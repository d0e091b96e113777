"""One image: encoded bytes -> uint8 RGB pixels, whole or a crop of them."""

import io

import numpy as np
import simplejpeg
from PIL import Image, UnidentifiedImageError, features

from imagenet_jax.images import jpeg

# A header may claim any size, and memory is taken before the first pixel is read. This is Pillow's own limit.
MAX_PIXELS = 89_478_485

# What Pillow may read. Not all it could: it hands EPS to another program. AVIF it has from 11.3 on, mostly.
FORMATS = ('JPEG', 'PNG', 'GIF', 'BMP', 'DIB', 'PPM', 'TIFF', 'WEBP', 'JPEG2000',
           *(('AVIF',) if features.check('avif') else ()))
# Chunks of a PNG that change no pixel here. Pillow reads them all the same, and refuses an image for a long one.
_PNG_NOTES = (b'tEXt', b'zTXt', b'iTXt', b'iCCP', b'eXIf')


class DecodeError(Exception):
    """The image cannot be read; the message says why."""


def decode(image: bytes | np.ndarray, shrink: int = 1, rows: int | None = None) -> np.ndarray:
    """Decodes one image in any of FORMATS; JPEG goes the fast way.

    Args:
      image: encoded bytes, or pixels (uint8, HWC with 1 or 3 channels) that pass through.
      shrink: 1, 2, 4 or 8: a JPEG may be decoded at 1/shrink of its size, at no cost.
      rows: how many from the top are needed, counted at full size: a JPEG's others may be left out. Default: all.

    Returns:
      uint8 RGB pixels of shape (height, width, 3). 16-bit grey keeps its upper byte, alpha is dropped, palettes and
      CMYK are converted, EXIF rotation and a PNG's colour profile are ignored.

    Raises:
      DecodeError: truncated, unrecognised, more than MAX_PIXELS pixels, or pixels that no scale is known of: floats,
        signed ones and those of 32 bits.
    """
    if isinstance(image, np.ndarray):
        return np.repeat(image, 3, axis=2) if image.shape[2] == 1 else image
    try:
        pixels = _decode_jpeg(image, shrink, rows) if image[:2] == b'\xff\xd8' else None
        return _decode_with_pillow(image) if pixels is None else pixels
    except DecodeError:
        raise
    except UnidentifiedImageError as error:
        raise DecodeError(f'{len(image)} bytes of no known image format') from error
    except (KeyError, IndexError) as error:  # what the decoders make of a header without its end
        raise DecodeError(f'{len(image)} bytes whose header is cut short or damaged') from error
    except Exception as error:  # decoders raise of every kind on hostile bytes: ValueError, OSError, SyntaxError, ...
        raise DecodeError(f'{type(error).__name__}: {error}') from error


def image_size(image: bytes | np.ndarray) -> tuple[int, int]:
    """(height, width) from the header alone. Raises DecodeError, of more than MAX_PIXELS pixels too."""
    height, width = image.shape[:2] if isinstance(image, np.ndarray) else _claimed_size(image)
    _refuse_bomb(height, width)
    return height, width


def decode_box(image: bytes | np.ndarray, width: int, box: tuple[int, int, int, int], shrink: int = 1) -> np.ndarray:
    """A crop of an image: of a JPEG no more is decoded than the crop needs.

    Args:
      image, shrink: as for `decode`, which also says what is raised.
      width: of the image.
      box: (top, left, bottom, right) within it, at full size; a JPEG's crop has 1/shrink of that.
    """
    top, left, bottom, right = (round(edge / shrink) for edge in box)
    if isinstance(image, bytes) and image[:2] == b'\xff\xd8':
        pixels = jpeg.decode_crop(image, shrink, top, left, bottom - top, right - left)
        if pixels is not None:
            return pixels
    pixels = decode(image, shrink, box[2])
    if pixels.shape[1] == width:  # decoded in full
        top, left, bottom, right = box
    return pixels[top:bottom, left:right]


def _claimed_size(image: bytes) -> tuple[int, int]:
    try:
        if image[:2] == b'\xff\xd8':
            return simplejpeg.decode_jpeg_header(image, strict=False)[:2]
        with with_pillow(image) as opened:
            return opened.height, opened.width
    except Exception as error:
        raise DecodeError(f'{type(error).__name__}: {error}') from error


def _refuse_bomb(height, width):
    if height * width > MAX_PIXELS:
        raise DecodeError(f'claims {width} x {height} pixels, more than the limit of {MAX_PIXELS}')


def _decode_jpeg(image: bytes, shrink: int, rows: int | None) -> np.ndarray | None:
    """None where Pillow has to decode: CMYK, and stray bytes between markers."""
    height, width, colorspace, _ = simplejpeg.decode_jpeg_header(image, strict=False)
    _refuse_bomb(height, width)
    if colorspace in ('CMYK', 'YCCK'):
        return None
    # Decoding is most of an image's cost, and as a stream cannot be entered in the middle, but it can be left early.
    # Some rows more, since chroma is interpolated between neighbours.
    if rows is not None and rows + 4 * shrink < height and (cut := _claim_rows(image, rows + 4 * shrink)):
        image, height = cut, rows + 4 * shrink
    pixels = np.empty((-(-height // shrink), -(-width // shrink), 3), np.uint8)
    try:
        return simplejpeg.decode_jpeg(image, 'RGB', min_height=pixels.shape[0], min_width=pixels.shape[1],
                                      min_factor=shrink, buffer=pixels)
    except ValueError as error:
        # Strict decoding, which alone notices a missing end, takes every warning for an error, and stops there. Stray
        # bytes ahead of the end come after the last pixel; elsewhere they cost none, but it has yet to be decoded.
        if 'extraneous bytes before marker 0xd9' in str(error):
            return pixels
        if 'extraneous bytes' in str(error):
            return None
        raise


def _claim_rows(image: bytes, rows: int) -> bytearray | None:
    """The same JPEG with only so many rows by its header; None unless it is sequential, without restart markers."""
    at, frame = 2, 0
    while image[at] == 0xff and image[at + 1] != 0xda:  # up to the start of the scan
        marker = image[at + 1]
        if marker == 0xff:  # filling, of which any amount may stand before a marker
            at += 1
            continue
        if marker in (0xc0, 0xc1):
            frame = at
        elif (0xc0 <= marker <= 0xcf and marker != 0xc4) or marker == 0xdd:
            return None
        at += 2 + int.from_bytes(image[at + 2:at + 4])
    if not frame:
        return None
    cut = bytearray(image)
    cut[frame + 5:frame + 7] = rows.to_bytes(2)
    return cut


def _decode_with_pillow(image: bytes) -> np.ndarray:
    with with_pillow(image) as opened:
        _refuse_bomb(opened.height, opened.width)
        if opened.mode == 'F' or (opened.mode == 'I' and opened.format not in ('PNG', 'PPM')):
            kind = 'floats' if opened.mode == 'F' else 'signed, or of 32 bits'
            raise DecodeError(f'its pixels are {kind}, which no scale is known of: convert them to 8 or 16 bits')
        if opened.mode.startswith('I'):  # 16-bit grey, which Pillow's own conversion would clip to white
            grey = (np.asarray(opened).astype(np.int64) >> 8).clip(0, 255).astype(np.uint8)
            return np.repeat(grey[..., None], 3, axis=2)
        return np.asarray(opened.convert('RGB'))


def with_pillow(image: bytes) -> Image.Image:
    """Opened, in any of FORMATS; whatever Pillow raises."""
    return Image.open(io.BytesIO(_without_notes(image)), formats=FORMATS)


def _without_notes(image: bytes) -> bytes:
    """A PNG without the chunks of _PNG_NOTES; any other bytes as they are."""
    if image[:8] != b'\x89PNG\r\n\x1a\n':
        return image
    kept, at = [image[:8]], 8
    while at < len(image):
        end = at + 12 + int.from_bytes(image[at:at + 4])
        if image[at + 4:at + 8] not in _PNG_NOTES:
            kept.append(image[at:end])
        at = end
    return b''.join(kept)
