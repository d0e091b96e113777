"""Which classes a model takes for which others: the matrix as a file, the worst pairs with images of them."""

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from imagenet_jax.class_names import readable
from imagenet_jax.errors import replacing
from imagenet_jax.evaluation import Evaluator
from imagenet_jax.metrics.evaluation_result import Result
from imagenet_jax.metrics.per_class import most_confused
from imagenet_jax.metrics.pictures import confusion_image, image_grid

# Pairs that are told of, and images that are shown of each.
PAIRS, EXAMPLES = 10, 8


class Pair(NamedTuple):
    """Classes, `images` of one taken for the other, of the `of` that there are."""
    label: int
    predicted: int
    images: int
    of: int


def pairs(result: Result) -> list[Pair]:
    """The most confused of an evaluation, at most `PAIRS`; none where images may have several classes."""
    if result.confusion is None:
        return []
    return [Pair(label, predicted, images, int(result.confusion[label].sum()))
            for label, predicted, images in most_confused(result.confusion, PAIRS)]


def write(path: Path, matrix: np.ndarray, names: Sequence[str]) -> None:
    """Writes a confusion matrix whole or not at all: .csv, names as header and in the first column, or a picture."""
    with replacing(path) as partial:
        if path.suffix.lower() == '.csv':
            with partial.open('w', newline='', encoding='utf-8', errors='backslashreplace') as file:
                rows = csv.writer(file)
                rows.writerow(['label', *names])
                rows.writerows([name, *row] for name, row in zip(names, matrix.tolist(), strict=True))
        else:
            write_picture(partial, confusion_image(matrix, names))


def write_picture(path: Path, pixels: np.ndarray) -> None:
    """As PNG, whatever the file is called."""
    Image.fromarray(pixels).save(path, 'PNG')


def examples(evaluator: Evaluator, result: Result, names: Sequence[str]) -> np.ndarray | None:
    """A picture of `pairs`, each a row of the images that the model was surest of; None where there are no pairs.

    Args:
      evaluator: that gave the result, its `mistakes` being `EXAMPLES`.
      result: of one pass.
      names: one a class.

    Returns:
      uint8 (height, width, 3).
    """
    names = [readable(name, evaluator.source.class_words) or name for name in names]
    labels, predicted = evaluator.source.labels[result.images['index']], result.images['classes'][:, 0]
    shown = [(pair, evaluator.worst(result, (labels == pair.label) & (predicted == pair.predicted)))
             for pair in pairs(result)]
    columns = max((len(found) for _, found in shown), default=0)
    images, titles = [], []
    for pair, found in shown:
        title = f'{names[pair.label]}\n→ {names[pair.predicted]}\n{pair.images} of {pair.of}'
        images += [each.image for each in found]
        titles += [f'{title}\n{each.confidence:.1%} sure' for each in found]
        missing = columns - len(found)
        images += [np.full_like(found[0].image, 255)] * missing
        titles += ['\n\n\n'] * missing
    return image_grid(np.stack(images), titles, columns) if images else None
