"""What a classifier says of images, one after the other, ready to be shown."""

import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from imagenet_jax.class_names import readable
from imagenet_jax.use.classifier import Classifier
from imagenet_jax.use.explain import GradCAM


class Prediction(NamedTuple):
    """Of one image.

    Attributes:
      image: the file.
      classes: those to name, likeliest first: their 'class', 'index' and 'probability', and of a WordNet id the
        readable 'name'.
      reason: why there is none; '' where there is.
      picture: what the model sees, uint8 (size, size, 3), where it was to be explained.
      explained: numbers of classes, each with its map (see `GradCAM`).
      overlays: of each of these the file that it was drawn to, where it was.
    """
    image: Path
    classes: Sequence[dict] = ()
    reason: str = ''
    picture: np.ndarray | None = None
    explained: Sequence[tuple[int, np.ndarray]] = ()
    overlays: Sequence[Path] = ()


def predictions(classifier: Classifier, files: Sequence[Path], top: int, explain: GradCAM | None = None,
                asked: Sequence[int] = ()) -> Iterator[Prediction]:
    """One a file, in their order, with no more than a batch of them in memory.

    Args:
      classifier, files: as they are called.
      top: classes an image; of a task with several classes an image, all that are likelier than not.
      explain: adds pictures and maps.
      asked: numbers of the classes that are explained; by default each image's likeliest, or all those.
    """
    rows = zip(files, classifier.answers(files), strict=True)
    while chunk := list(itertools.islice(rows, explain.batch_size if explain else 1)):
        said = [Prediction(file, reason=row) if isinstance(row, str) else Prediction(file, named(classifier, row, top))
                for file, row in chunk]
        if explain:
            good = [at for at, answer in enumerate(said) if not answer.reason]
            numbers = [asked or classifier.task.likely(chunk[at][1], 1).tolist() for at in good]
            maps = explain.each(zip([said[at].image for at in good], numbers, strict=True))
            for at, own, found in zip(good, numbers, maps, strict=True):
                said[at] = (Prediction(said[at].image, reason=found) if isinstance(found, str) else said[at]._replace(
                    picture=found[0], explained=list(zip(own, found[1], strict=True))))
        yield from said


def named(classifier: Classifier, probabilities: np.ndarray, top: int) -> list[dict]:
    """Of one image's (K,) the classes to show, likeliest first; those without a name have their number."""
    found = [{'class': class_name(classifier, i), 'index': int(i), 'probability': float(probabilities[i])}
             for i in classifier.task.likely(probabilities, top)]
    for one in found:
        if name := readable(one['class'], classifier.class_words):
            one['name'] = name
    return found


def class_name(classifier: Classifier, number: int) -> str:
    """The name of a class, or its number where it has none."""
    names = classifier.class_names
    return names[number] if number < len(names) else str(number)
