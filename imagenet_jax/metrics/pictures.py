"""What TensorBoard shows as pictures: a grid of images, a confusion matrix."""

import math
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

from imagenet_jax.preview import cell, font, write

# In pixels: around and between images, a line of text, and the side that small images are enlarged to.
_GAP, _LINE, _SMALLEST = 8, 15, 96


def image_grid(images: np.ndarray, titles: Sequence[str]) -> np.ndarray:
    """One picture, as near to square as the number of images allows, gaps between them.

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
    columns = math.ceil(math.sqrt(len(images)))
    across, down = side + _GAP, side + lines * _LINE + _GAP
    picture = Image.new('RGB', (columns * across + _GAP, -(-len(images) // columns) * down + _GAP), 'white')
    draw = ImageDraw.Draw(picture)
    for number, (image, title) in enumerate(zip(images, titles, strict=True)):
        x, y = _GAP + number % columns * across, _GAP + number // columns * down
        picture.paste(cell(image, side), (x, y))
        for row, line in enumerate(title.split('\n')):
            write(draw, (x, y + side + row * _LINE), line, font(11), 'black', side)
    return np.asarray(picture)


def confusion_image(matrix: np.ndarray, class_names: tuple[str, ...]) -> np.ndarray:
    """Confusion matrix (K, K), rows the label, as a picture; each row a fraction of its class, names where they fit."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    figure = Figure(figsize=(8, 7), dpi=100, layout='constrained')
    canvas = FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    shown = axes.imshow(matrix / np.maximum(matrix.sum(1, keepdims=True), 1), vmin=0, vmax=1, cmap='viridis',
                        interpolation='nearest')
    figure.colorbar(shown, label='fraction of the class')
    axes.set(xlabel='predicted', ylabel='label')
    if class_names and len(class_names) <= 40:
        axes.set_xticks(range(len(class_names)), class_names, rotation=90)
        axes.set_yticks(range(len(class_names)), class_names)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()
