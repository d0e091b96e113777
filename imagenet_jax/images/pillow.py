"""All that Pillow decodes: every format but plain JPEG. It notices most damage; the rest is looked for here."""

import io
import zlib
from collections.abc import Iterator, Mapping

import numpy as np
from PIL import Image, features
from PIL.ExifTags import Base

from imagenet_jax.images import orientation
from imagenet_jax.images.limits import DecodeError, refuse_bomb, turns

# What it may read. Not all it could: it hands EPS to another program. AVIF it has from 11.3 on, mostly.
FORMATS = ('JPEG', 'PNG', 'GIF', 'BMP', 'DIB', 'PPM', 'TIFF', 'WEBP', 'JPEG2000',
           *(('AVIF',) if features.check('avif') else ()))
_PNG = b'\x89PNG\r\n\x1a\n'
# Chunks of a PNG that change no pixel here. Pillow reads them all the same, and refuses an image for a long one.
_PNG_NOTES = (b'tEXt', b'zTXt', b'iTXt', b'iCCP')
# Tags of TIFF: where strips and tiles lie, and how long they are.
_PLACES = (Base.StripOffsets, Base.StripByteCounts), (Base.TileOffsets, Base.TileByteCounts)
# Bytes of zeros that no compression ends in, but WebP's lossy one, of a blank part: up to a twentieth of the file.
_ZEROS = 16


def opened(image: bytes) -> Image.Image:
    """Its header read, in any of FORMATS; whatever Pillow raises."""
    if image[:8] == _PNG:
        image = _PNG + b''.join(chunk for kind, chunk in _chunks(image) if kind not in _PNG_NOTES)
    return Image.open(io.BytesIO(image), formats=FORMATS)


def size(image: bytes) -> tuple[int, int]:
    """(height, width) as stored, by the header. Raises DecodeError, of more than MAX_WHOLE pixels too."""
    with opened(image) as picture:
        return _size(picture)


def decode(image: bytes) -> np.ndarray:
    """uint8 RGB as stored.

    Raises:
      DecodeError: more than MAX_WHOLE pixels, pixels of no known scale, or damage that Pillow passes over.
    """
    with opened(image) as picture:
        height, width = _size(picture)
        if picture.format == 'PNG':
            _check_png(image)
        if picture.format == 'TIFF':
            _check_tiff(picture.tag_v2, image)
        if picture.format in ('WEBP', 'AVIF') and _zeros(image) > max(_ZEROS, len(image) // 10 * (b'VP8 ' in image)):
            raise DecodeError('its end is missing: zeros stand there')
        turned = orientation.of(picture.getexif()) if picture.format == 'TIFF' else 1
        with turns.take(height * width):
            pixels = rgb(picture)
            pixels = pixels if turned == 1 else orientation.stored(pixels, turned)  # Pillow turns a TIFF by itself
        if picture.format in ('TIFF', 'BMP', 'DIB', 'PPM') and _zeros(image) >= _ZEROS:
            _check_raw(pixels[::-1] if picture.format in ('BMP', 'DIB') else pixels)
        return pixels


def exif(image: bytes) -> Image.Exif:
    """An encoded image's; whatever Pillow raises. To look behind the pixels of a PNG it would decode them all."""
    if image[:8] == _PNG:
        found = Image.Exif()
        found.load(next((chunk[8:-4] for kind, chunk in _chunks(image) if kind == b'eXIf'), b''))
        return found
    with opened(image) as picture:
        return picture.getexif()


def decode_jpeg(image: bytes) -> np.ndarray:
    """uint8 RGB of a JPEG; it is for the caller to look at its header, and for damage."""
    with opened(image) as picture:
        return rgb(picture)


def _size(picture: Image.Image) -> tuple[int, int]:
    width, height = picture.size
    if picture.format == 'TIFF':  # Pillow's may be turned
        width, height = picture.tag_v2[Base.ImageWidth], picture.tag_v2[Base.ImageLength]
        refuse_bomb(*(picture.tag_v2.get(side, 1) for side in (Base.TileLength, Base.TileWidth)))
    refuse_bomb(height, width)
    return height, width


def rgb(picture: Image.Image) -> np.ndarray:
    """uint8 (height, width, 3). Raises DecodeError where no scale of its pixels is known, and whatever Pillow does."""
    if picture.mode == 'F' or (picture.mode == 'I' and picture.format not in ('PNG', 'PPM')):
        raise _no_scale('floats' if picture.mode == 'F' else 'signed, or of 32 bits')
    if picture.mode.startswith('I'):  # 16-bit grey, which Pillow's own conversion would clip to white
        grey = np.asarray(picture).astype(np.int64)
        bits, white_is_zero = 16, False
        if picture.format == 'TIFF':
            bits = picture.tag_v2[Base.BitsPerSample][0]
            white_is_zero = picture.tag_v2.get(Base.PhotometricInterpretation) == 0
        grey = (grey >> bits - 8).clip(0, 255).astype(np.uint8)
        return np.repeat((255 - grey if white_is_zero else grey)[..., None], 3, axis=2)
    return np.asarray(picture.convert('RGB'))


def _no_scale(kind: str) -> DecodeError:
    return DecodeError(f'its pixels are {kind}, which no scale is known of: convert them to 8 or 16 bits')


def _chunks(image: bytes) -> Iterator[tuple[bytes, bytes]]:
    """(kind, all bytes) of each chunk of a PNG, to its end; the last may be cut."""
    at, kind = len(_PNG), b''
    while at < len(image) and kind != b'IEND':
        end = at + 12 + int.from_bytes(image[at:at + 4])
        kind = image[at + 4:at + 8]
        yield kind, image[at:end]
        at = end


def _check_png(image: bytes) -> None:
    """Raises DecodeError where a chunk is damaged that pixels depend on, or the last is missing."""
    kind = b''
    for kind, chunk in _chunks(image):
        if kind[:1].isupper() and zlib.crc32(chunk[4:-4]) != int.from_bytes(chunk[-4:]):
            raise DecodeError(f'its chunk {kind.decode("latin-1")} is damaged: the checksum is another')
    if kind != b'IEND':
        raise DecodeError('its end is missing, or a chunk is damaged')


def _check_tiff(tags: Mapping, image: bytes) -> None:
    """Raises DecodeError of signed pixels, and where zeros stand at the end of a compressed strip or tile."""
    numbers = tags.get(Base.SampleFormat, (1,))
    if 2 in (numbers if isinstance(numbers, tuple) else (numbers,)):
        raise _no_scale('signed, or of 32 bits')
    if tags.get(Base.Compression, 1) == 1:
        return
    for starts, lengths in _PLACES:
        for start, length in zip(tags.get(starts, ()), tags.get(lengths, ()), strict=False):
            if length >= _ZEROS and not any(image[start + length - _ZEROS:start + length]):
                raise DecodeError('the end of its data is missing: zeros stand there')


def _zeros(image: bytes) -> int:
    """How many there are at the end."""
    return len(image) - len(image.rstrip(b'\0'))


def _check_raw(pixels: np.ndarray) -> None:
    """Raises DecodeError where pixels in a file's order, its last bytes zeros, stop as a copy that was cut does: amid a
    row, and the row before goes on."""
    blank = (pixels == pixels[-1, -1]).all(axis=2)
    last = np.flatnonzero(~blank.all(axis=1))[-1:]
    if not len(last) or not 0 < (row := last[0]) < len(pixels) - 1:
        return
    column = np.flatnonzero(~blank[row])[-1] + 1
    if column < blank.shape[1] and blank[row - 1, column:].mean() < 0.5:
        raise DecodeError(f'its end is missing: zeros stand there from row {row}, column {column} on')
