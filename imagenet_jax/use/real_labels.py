"""ReaL labels of ImageNet's validation images (arXiv 2006.07159): all the classes that people see in each."""

import json
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from imagenet_jax.errors import UserError
from imagenet_jax.metrics.evaluation_result import Result
from imagenet_jax.sources import Source
from imagenet_jax.use import imagenet

_NAME = re.compile(r'ILSVRC2012_val_(\d{8})')


class RealLabels:
    """The labels of a split's images, found by the number in their names; the split may be a part of the 50,000.

    Args:
      path: real.json: a list of class numbers for each of the images ILSVRC2012_val_00000001 and on.
      source: the split.
      class_names, num_classes: the model's.

    Raises:
      UserError: the file is another or cannot be read, the images have no such names, or the model is not of
        ImageNet's classes.
    """

    def __init__(self, path: Path, source: Source, class_names: Sequence[str], num_classes: int):
        labels = _read(path)
        self._numbers = imagenet.numbers(class_names, num_classes)
        self._labels = [labels[number - 1] for number in _image_numbers(source, len(labels))]
        if not any(self._labels):
            raise UserError(f'{path} has no label for any of the {len(source)} images')

    def scalars(self, result: Result) -> dict[str, float]:
        """real_top1, the fraction of images whose predicted class is one of theirs, and how many images that is of,
        real_images: those with a label. One without an answer counts as wrong."""
        rows = result.images
        said = {int(index): self._numbers[best] if best >= 0 else -1
                for index, best in zip(rows['index'], rows['classes'][:, 0], strict=True) if index >= 0}
        right = [said[index] in own for index, own in enumerate(self._labels) if own]
        return {'real_top1': float(np.mean(right)), 'real_images': len(right)}


def _read(path: Path) -> list[frozenset[int]]:
    try:
        read = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f'{path} cannot be read as ReaL labels: {error}') from error
    right = isinstance(read, list) and all(
        isinstance(own, list) and all(type(number) is int and 0 <= number < 1000 for number in own) for own in read)
    if not right or not read:
        raise UserError(f'{path} holds no ReaL labels: expected a list of lists of class numbers in 0..999, one for '
                        'each of the images ILSVRC2012_val_00000001 and on')
    return list(map(frozenset, read))


def _image_numbers(source: Source, most: int) -> list[int]:
    """From 1 on, by the images' names."""
    found = []
    for index in range(len(source)):
        name = _NAME.search(source.key(index))
        if not name or not 1 <= int(name[1]) <= most:
            raise UserError(f'ReaL labels go by the names of ImageNet\'s validation images, ILSVRC2012_val_00000001 to '
                            f'{most:08d}, and {source.key(index)!r} is none of these')
        found.append(int(name[1]))
    return found
