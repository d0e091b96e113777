"""A split of the folder layout whose images lie together, not in class folders.

    root/val/ILSVRC2012_val_00000001.JPEG     Kaggle's ImageNet: LOC_val_solution.csv above it
    root/val/images/val_0.JPEG                Tiny ImageNet: val/val_annotations.txt

A table says their classes: see label_file.py. The classes are numbered by the class folders of a split beside it, such
as root/train; else by the names in the training images' own table, or in wnids.txt or LOC_synset_mapping.txt; else by
those in the table. Such names are numbered as class folders are, but for numbers that are no labels: these go by size.
"""

import os
from collections.abc import Sequence
from pathlib import Path

from imagenet_jax.class_names import are_numbers
from imagenet_jax.errors import UserError, few
from imagenet_jax.sources import label_file, word_list
from imagenet_jax.sources.listing import class_folders, is_image, numbered

_INSIDE = 'images'


def images(root: Path) -> list[str]:
    """Paths under a split's folder of its images, sorted; [] where they lie in class folders, or there are none."""
    here, folders = _images(root), class_folders(root)
    if here or _INSIDE in folders:
        folders = [name for name in folders if _holds_images(root / name)]  # not those of annotations
    if folders == [_INSIDE] and not here:
        return [os.path.join(_INSIDE, name) for name in _images(root / _INSIDE)]
    return [] if folders else here


def _images(folder: Path) -> list[str]:
    return sorted(entry.name for entry in os.scandir(folder) if is_image(entry.name))


def _holds_images(folder: Path) -> bool:
    return any(is_image(file) for _, _, files in os.walk(folder) for file in files)


def is_at(root: Path) -> bool:
    """Whether a split's folder has images without class folders, and a table of their classes."""
    return bool(images(root) and label_file.candidates(root))


def read(root: Path, split: str, files: Sequence[str], num_classes: int | None = None,
         ) -> tuple[tuple[str, ...], Sequence[str], list[int]]:
    """(class names, paths, labels) of a split.

    Args:
      root: the split's folder.
      split: its name; '' where it is the whole data set, which is not numbered by others.
      files: its `images`.
      num_classes: see `listing.numbered`.

    Raises:
      UserError: no table, or one that does not fit.
    """
    root = Path(os.path.abspath(root))
    table, classes = _classes(root, files)
    names, origin = (split and _names(root, num_classes)) or (_sorted(root, set(classes), num_classes), table)
    number = {name: label for label, name in enumerate(names)}
    strangers = [at for at, name in enumerate(classes) if name not in number]
    if strangers:
        first = strangers[0]
        hint = '; a class is given by its name, not by a number' if classes[first].isdecimal() else ''
        raise UserError(f'{table}: {len(strangers)} images are of classes that {origin} does not have, the first '
                        f'{files[first]} of {classes[first][:80]!r}; it has {few(names, 5)}{hint}')
    return names, files, [number[name] for name in classes]


def _classes(root: Path, files: Sequence[str]) -> tuple[Path, list[str]]:
    """The table, and the class of each image."""
    table, name = label_file.find(root), root.name
    if table is None:
        raise UserError(f'{root} holds {len(files)} images and no class folders, and nothing says their classes: '
                        f'looked there and in {root.parent} for {name}.csv, {name}_labels.csv, {name}_annotations.txt, '
                        f'labels.csv, above for LOC_{name}_solution.csv. Give rows of `image,class` as '
                        f'{root.parent / name}.csv, or sort the images into class folders; images of a test set '
                        'without classes are for the command predict')
    return table, label_file.read(table, root, files)


def _names(root: Path, num_classes: int | None) -> tuple[tuple[str, ...], Path] | None:
    """The classes as splits beside this one number them, and where that is said."""
    for split in [name for names in label_file.ALIASES for name in sorted(names)]:
        beside = root.parent / split
        if not beside.is_dir() or os.path.realpath(beside) == os.path.realpath(root):
            continue
        if not (files := images(beside)) and (folders := class_folders(beside)):
            return numbered(beside, folders, num_classes)[0], beside
        if files and split in label_file.ALIASES[0] and label_file.find(beside):
            return _sorted(beside, set(_classes(beside, files)[1]), num_classes), beside
    for file in (root.parent / 'wnids.txt', *(up / word_list.MAPPING for up in root.parents[:5])):
        if file.is_file():
            return _sorted(file, {line.split()[0] for line in label_file.lines(file)}, num_classes), file
    return None


def _sorted(where: Path, names: set[str], num_classes: int | None) -> tuple[str, ...]:
    numbers = are_numbers(names)
    names = sorted(names, key=lambda name: (int(name) if numbers else 0, name))
    return numbered(where, names, num_classes)[0]
