"""Which of a model's outputs is which of ImageNet's 1000 classes."""

from collections.abc import Sequence

import numpy as np

from imagenet_jax import class_names
from imagenet_jax.errors import UserError


def numbers(names: Sequence[str], num_classes: int) -> np.ndarray:
    """Of each of a model's outputs its number in ImageNet's order, by name; int (num_classes,).

    Args:
      names: of the outputs, in any form of ImageNet's names or numbers; () where unknown, and then 1000 outputs are in
        ImageNet's order, as of every published model.
      num_classes: how many outputs there are; those without a name are -1.

    Raises:
      UserError: names that are none of ImageNet's, or no names and another number of outputs.
    """
    ids = tuple(class_names.imagenet())
    if not names and num_classes != len(ids):
        raise UserError(f'this is for models of ImageNet\'s classes, and the model has {num_classes} outputs without '
                        f'names, not {len(ids)}')
    try:
        found = class_names.match(names, ids) if names else range(len(ids))
    except UserError as error:
        raise UserError("this is for models of ImageNet's classes, and the model's are others: "
                        f'{class_names.first(names)}') from error
    return np.array([*found, *[-1] * (num_classes - len(found))])


def outputs(names: Sequence[str], num_classes: int, wanted: Sequence[int]) -> tuple[int, ...]:
    """The model's outputs for classes by their numbers in ImageNet's order. Raises UserError where it lacks one."""
    places = {int(number): place for place, number in enumerate(numbers(names, num_classes))}
    ids = tuple(class_names.imagenet())
    if lacking := [ids[number] for number in wanted if number not in places]:
        raise UserError(f'the model has no output for {len(lacking)} of the {len(wanted)} classes, the first: '
                        f'{class_names.first(list(map(class_names.shown, lacking)))}')
    return tuple(places[number] for number in wanted)
