"""Pictures of an evaluation: a grid of images, a confusion matrix, a reliability diagram."""

import math
import warnings
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

from imagenet_jax.metrics.calibration import BINS, Calibration
from imagenet_jax.preview import cell, font, write

# In pixels: around and between images, a line of text, and the side that small images are enlarged to.
_GAP, _LINE, _SMALLEST = 8, 15, 96
# Of a confusion matrix: classes that have room for a number in each cell, those that have room for their names, and
# those that a picture has a row of pixels for.
_NUMBERED, _NAMED, _DISTINCT = 20, 40, 4000


def image_grid(images: np.ndarray, titles: Sequence[str], columns: int = 0) -> np.ndarray:
    """One picture, gaps between the images; of so many columns or, for 0, as near to square as their number allows.

    Args:
      images: uint8 (N, H, W, 3), at least one; of several views, (N, views, H, W, 3), the first. Small ones are
        enlarged.
      titles: of each, what is written under it, all of as many lines.

    Returns:
      uint8 (height, width, 3).
    """
    images = images[:, 0] if images.ndim == 5 else images
    side = images.shape[1] * max(1, _SMALLEST // images.shape[1])
    lines = 1 + titles[0].count('\n')
    columns = columns or math.ceil(math.sqrt(len(images)))
    across, down = side + _GAP, side + lines * _LINE + _GAP
    picture = Image.new('RGB', (columns * across + _GAP, -(-len(images) // columns) * down + _GAP), 'white')
    draw = ImageDraw.Draw(picture)
    for number, (image, title) in enumerate(zip(images, titles, strict=True)):
        x, y = _GAP + number % columns * across, _GAP + number // columns * down
        picture.paste(cell(image, side), (x, y))
        for row, line in enumerate(title.split('\n')):
            write(draw, (x, y + side + row * _LINE), line, font(11), 'black', side)
    return np.asarray(picture)


def confusion_image(matrix: np.ndarray, class_names: Sequence[str]) -> np.ndarray:
    """Confusion matrix (K, K), rows the label, as a picture; each row a fraction of its class.

    Few classes have their names, and the number of images in each cell. Of many a cell is a pixel or more, and small
    fractions are made to show: colours go by the square root.
    """
    from matplotlib.colors import PowerNorm
    count = len(matrix)
    many = count > _NAMED
    larger = max(1.0, min(count, _DISTINCT) / 500)  # of 800 x 700 pixels, the axes take more than 500
    figure, draw = _figure(8 * larger, 7 * larger)
    axes = figure.add_subplot()
    parts = matrix / np.maximum(matrix.sum(1, keepdims=True), 1)
    shown = axes.imshow(parts, norm=PowerNorm(0.5 if many else 1, 0, 1), cmap='viridis',
                        interpolation='nearest' if count <= _DISTINCT else 'antialiased')
    figure.colorbar(shown, label='fraction of the class')
    axes.set(xlabel='predicted', ylabel='label')
    if class_names and not many:
        names = [_tick(name) for name in class_names]
        axes.set_xticks(range(count), names, rotation=90, parse_math=False)
        axes.set_yticks(range(count), names, parse_math=False)
    if count <= _NUMBERED:
        for (row, column), images in np.ndenumerate(matrix):
            axes.text(column, row, f'{images:g}', ha='center', va='center', fontsize=8 if count <= 10 else 6,
                      color='black' if parts[row, column] > 0.6 else 'white')
    return draw()


def reliability_image(calibration: Calibration) -> np.ndarray:
    """Reliability diagram (arXiv 1706.04599): of each bin of confidence how many images were right, against how sure
    the model was of them; below how many there are. uint8 (height, width, 3)."""
    figure, draw = _figure(6, 7)
    above, below = figure.subplots(2, sharex=True, height_ratios=(3, 1))
    images = np.maximum(calibration.images, 1)
    right, sure = calibration.right / images, calibration.confidence / images
    there = calibration.images > 0
    middle, width = (np.arange(BINS) + 0.5) / BINS, 1 / BINS
    above.bar(middle, right, width, color='tab:blue', edgecolor='white', label='accuracy')
    above.plot(sure[there], right[there], 'o', color='tab:red', markersize=4, label='at its mean confidence')
    above.plot((0, 1), (0, 1), '--', color='grey', label='as sure as right')
    above.set(xlim=(0, 1), ylim=(0, 1), ylabel='accuracy', title=f'expected calibration error {calibration.error:.4f}')
    above.legend(loc='upper left')
    below.bar(middle, calibration.images / calibration.images.sum(), width, color='grey', edgecolor='white')
    below.set(xlabel='confidence', ylabel='share of images')
    return draw()


def _figure(width: float, height: float):
    """matplotlib's, in hundreds of pixels, and what answers its pixels, uint8 (height, width, 3)."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    figure = Figure(figsize=(width, height), dpi=100, layout='constrained')
    canvas = FigureCanvasAgg(figure)

    def draw():
        with warnings.catch_warnings():  # a script that the font lacks is boxes
            warnings.filterwarnings('ignore', 'Glyph .* missing')
            canvas.draw()
        return np.asarray(canvas.buffer_rgba())[..., :3].copy()
    return figure, draw


def _tick(name: str) -> str:
    """Names need not be text, nor short."""
    name = name.encode('utf-8', 'replace').decode().replace('\n', ' ')
    return name if len(name) <= 30 else f'{name[:29]}…'
