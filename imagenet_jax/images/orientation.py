"""How a camera was held, by EXIF's tag: numbers 1 (upright) to 8 (JEITA CP-3451, Orientation)."""

import numpy as np
from PIL import ExifTags, Image

_TAG = ExifTags.Base.Orientation
# To the upright image: whether rows become columns, and whether then the rows, and the columns, are mirrored.
_TURNS = {1: (False, False, False), 2: (False, False, True), 3: (False, True, True), 4: (False, True, False),
          5: (True, False, False), 6: (True, False, True), 7: (True, True, True), 8: (True, True, False)}


def of(exif: Image.Exif) -> int:
    """An image's; 1 where it has none."""
    number = exif.get(_TAG, 1)
    return number if number in _TURNS else 1


def exif(number: int) -> bytes:
    """A JPEG's segment that says so."""
    tags = Image.Exif()
    tags[_TAG] = number
    content = tags.tobytes()
    return b'\xff\xe1' + (len(content) + 2).to_bytes(2) + content


def upright(pixels: np.ndarray, number: int) -> np.ndarray:
    """uint8 (height, width, 3), turned from how it is stored."""
    swap, rows, columns = _TURNS[number]
    pixels = pixels.swapaxes(0, 1) if swap else pixels
    return np.ascontiguousarray(_mirrored(pixels, rows, columns))


def stored(pixels: np.ndarray, number: int) -> np.ndarray:
    """The reverse of `upright`."""
    swap, rows, columns = _TURNS[number]
    pixels = _mirrored(pixels, rows, columns)
    return np.ascontiguousarray(pixels.swapaxes(0, 1) if swap else pixels)


def size(height: int, width: int, number: int) -> tuple[int, int]:
    """(height, width) of the upright image, from those as stored, or the other way round."""
    return (width, height) if _TURNS[number][0] else (height, width)


def stored_box(box: tuple[int, int, int, int], height: int, width: int, number: int) -> tuple[int, int, int, int]:
    """(top, left, bottom, right) as stored, of a box in the upright image of that size."""
    (top, left, bottom, right), (swap, rows, columns) = box, _TURNS[number]
    if rows:
        top, bottom = height - bottom, height - top
    if columns:
        left, right = width - right, width - left
    return (left, top, right, bottom) if swap else (top, left, bottom, right)


def _mirrored(pixels, rows: bool, columns: bool):
    return pixels[::-1 if rows else 1, ::-1 if columns else 1]
