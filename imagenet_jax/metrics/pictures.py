"""What TensorBoard shows as pictures: a grid of images, a confusion matrix."""

import math

import numpy as np


def image_grid(images: np.ndarray) -> np.ndarray:
    """uint8 (N, H, W, 3) -> one picture, as near to square as N allows, small images enlarged.

    Of several views, (N, views, H, W, 3), the first.
    """
    images = images[:, 0] if images.ndim == 5 else images
    zoom = max(1, 64 // images.shape[1])
    images = images.repeat(zoom, axis=1).repeat(zoom, axis=2)
    columns = math.ceil(math.sqrt(len(images)))
    rows = -(-len(images) // columns)
    n, height, width, c = images.shape
    blank = np.zeros((rows * columns - n, height, width, c), images.dtype)
    cells = np.concatenate([images, blank]).reshape(rows, columns, height, width, c)
    return cells.transpose(0, 2, 1, 3, 4).reshape(rows * height, columns * width, c)


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
