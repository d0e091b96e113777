"""A picture of a batch: each image as it is stored beside what the pipeline made of it."""

import dataclasses
import math
from pathlib import Path

import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFont

# Sides of a cell in pixels: small images are enlarged to the first, large ones shrunk to the second.
_SMALLEST, _LARGEST = 128, 224
_GAP, _LINE = 10, 17
_PAPER, _INK, _PALE, _FRAME = (255, 255, 255), (20, 20, 20), (115, 115, 115), (235, 235, 235)


@dataclasses.dataclass(frozen=True)
class Pair:
    """One image: `stored` and `seen`, both uint8 (height, width, 3), its class, and a note under it."""
    stored: np.ndarray
    seen: np.ndarray
    title: str
    note: str


def sheet(pairs: list[Pair], heading: str) -> Image.Image:
    """All pairs in rows, the stored image on the left, under a heading."""
    side = min(_LARGEST, max(_SMALLEST, pairs[0].seen.shape[0]))
    width, height = 2 * side + _GAP // 2, side + 2 * _LINE + 4
    columns = min(len(pairs), max(1, round(math.sqrt(len(pairs) * height / width * 4 / 3))))
    rows = -(-len(pairs) // columns)
    across, down = width + 2 * _GAP, height + 2 * _GAP
    top = 2 * _LINE + 2 * _GAP
    picture = Image.new('RGB', (columns * across, top + rows * down), _PAPER)
    draw = ImageDraw.Draw(picture)
    write(draw, (_GAP, _GAP), heading, font(13, bold=True), _INK, columns * across - 2 * _GAP)
    write(draw, (_GAP, _GAP + _LINE), 'left as stored, right as the model sees it', font(11), _PALE, width)
    for number, pair in enumerate(pairs):
        x, y = _GAP + number % columns * across, top + number // columns * down
        picture.paste(cell(pair.stored, side), (x, y))
        picture.paste(cell(pair.seen, side), (x + side + _GAP // 2, y))
        write(draw, (x, y + side + 4), pair.title, font(13), _INK, width)
        write(draw, (x, y + side + 4 + _LINE), pair.note, font(11), _PALE, width)
    return picture


def cell(pixels: np.ndarray, side: int) -> Image.Image:
    """The image in the middle of a square, whole; enlarged without smoothing, so that its pixels show."""
    height, width = pixels.shape[:2]
    scale = side / max(height, width)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    resized = Image.fromarray(pixels).resize(
        size, Image.Resampling.NEAREST if scale > 1 else Image.Resampling.LANCZOS)
    cell = Image.new('RGB', (side, side), _FRAME)
    cell.paste(resized, ((side - size[0]) // 2, (side - size[1]) // 2))
    return cell


def font(size: int, bold: bool = False) -> ImageFont.FreeTypeFont:
    """matplotlib's own: Latin, Greek and Cyrillic on every machine."""
    name = 'DejaVuSans-Bold.ttf' if bold else 'DejaVuSans.ttf'
    return ImageFont.truetype(str(Path(matplotlib.get_data_path(), 'fonts', 'ttf', name)), size)


def write(draw, place: tuple[int, int], text: str, font: ImageFont.FreeTypeFont, color, width: int) -> None:
    """One line of text, its middle left out where it would not fit: keys differ at their ends."""
    text = text.encode('utf-8', 'replace').decode()  # names of files need not be text
    shown, kept = text, len(text)
    while kept and font.getlength(shown) > width:
        kept -= 1
        shown = f'{text[:kept // 2]}…{text[len(text) - (kept + 1) // 2:]}'
    draw.text(place, shown, color, font)
