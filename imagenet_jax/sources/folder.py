"""One folder a class, as torchvision's ImageFolder and the usual unpacked ImageNet.

    root/train/n01440764/n01440764_10026.JPEG
    root/val/n01440764/ILSVRC2012_val_00000293.JPEG

The split is the folder under the root ('' where the root itself holds the classes). Kaggle's root may be the folder of
its archive, or ILSVRC or ILSVRC/Data/CLS-LOC in it. A split that holds its images themselves, or in one folder
`images`, has their classes in a table: see unsorted.py.
"""

import logging
import os
from pathlib import Path
from typing import NoReturn

import numpy as np

from imagenet_jax.errors import UserError, few
from imagenet_jax.sources import class_images, unsorted, word_list
from imagenet_jax.sources.base import Files
from imagenet_jax.sources.label_file import ALIASES
from imagenet_jax.sources.listing import EXTENSIONS, archives, class_folders, is_image, is_litter, numbered

log = logging.getLogger(__name__)

_KAGGLE = ('', 'ILSVRC/Data/CLS-LOC', 'Data/CLS-LOC')


class Folder(Files):
    """Class folders sorted by name are labels 0, 1, ...; images at any depth inside them, sorted by path.

    Folders that all have whole numbers below `num_classes` for names, as ImageNet-V2's, are labels by number.

    Args:
      path: the data set's root.
      split: the folder under it.
      num_classes: None where as many as there are folders.
    """

    def __init__(self, path: str, split: str, num_classes: int | None = None):
        root = _root(Path(path).expanduser(), split)
        if root is None:
            _refuse_missing(Path(path).expanduser(), split)
        flat = unsorted.images(root)
        self.class_names, files, labels = (
            unsorted.read(root, split, flat, num_classes) if flat else _by_folder(root, num_classes))
        self.class_words = word_list.read(root, self.class_names)
        super().__init__(root, files, np.array(labels, np.int32))

    @classmethod
    def is_at(cls, path, split):
        root = _root(Path(path).expanduser(), split) if path else None
        if root is None:
            return False
        return unsorted.is_at(root) or any(class_images.of_class(root, name)[0] for name in class_folders(root)[:3])


def _root(base: Path, split: str) -> Path | None:
    return next((base / inside / split for inside in _KAGGLE if (base / inside / split).is_dir()), None)


def _by_folder(root: Path, num_classes: int | None) -> tuple[tuple[str, ...], np.ndarray, np.ndarray]:
    """Class names, paths (bytes) and labels."""
    names = class_folders(root)
    _refuse_no_classes(root, names)
    class_names, numbers = numbered(root, names, num_classes)
    files, places, ignored = class_images.images(root, names)
    counts = np.bincount(places, minlength=len(names))
    if not counts.all():
        empty = root / names[int(counts.argmin())]
        raise UserError(f'class folder {empty} holds no image ({", ".join(EXTENSIONS)}), and is left out of every '
                        f'split or of none{archives(empty)}')
    if ignored:
        log.warning('%s: %d files that are not images by their ending are left out', root, ignored)
    # A class that is gone gives all after it another label.
    if broken := [e.name for e in os.scandir(root) if e.is_symlink() and not os.path.exists(e.path)
                  and not is_image(e.name) and not is_litter(e.name)]:
        log.warning('%s: links to what is not there are no classes, and left out: %s', root, few(sorted(broken)))
    if stray := [e.name for e in os.scandir(root) if is_image(e.name)]:
        log.warning('%s: %d images that are in no class folder are left out, the first %s', root, len(stray),
                    min(stray))
    if len(names) == 1 and min(f.count(b'/') for f in files) > 1 and len({f.split(b'/')[1] for f in files}) > 1:
        raise UserError(f'{root} holds one class folder, {names[0]}, and that only folders: '
                        f'{few(class_folders(root / names[0]))}; if they are the classes, move them up to {root}')
    return class_names, files, np.array(numbers)[places]


def _refuse_no_classes(root: Path, names: list[str]) -> None:
    if not names:
        raise UserError(f'{root} holds no class folders; expected <root>/<split>/<class>/<image>{archives(root)}')
    if set(names) <= set().union(*ALIASES):
        raise UserError(f'{root} holds splits, not classes: {", ".join(names)}; set config.data.path={root} and '
                        'config.data.train_split and eval_split to two of them')
    same = {}
    for name in names:
        real = os.path.realpath(root / name)
        if real in same:
            raise UserError(f'class folders {same[real]} and {name} of {root} are one folder, {real}')
        same[real] = name


def _refuse_missing(base: Path, split: str) -> NoReturn:
    """Says what there is in the place of a split's folder."""
    folders = class_folders(base) if base.is_dir() else []
    message = (f'no folder {base / split}; expected <root>/<split>/<class>/<image>. '
               f'Folders in {base}: {few(folders)}{archives(base)}')
    if not base.is_dir():
        raise UserError(message + (f'. {base} is a file: unpack it' if base.exists() else ''))
    others = [name for names in ALIASES if split in names for name in sorted(names) if name != split]
    if found := [name for name in others if _root(base, name)]:
        raise UserError(f'{message}. Is it split {found[0]!r}? Set config.data.train_split or eval_split, or --split')
    if found := [name for name in folders if _root(base / name, split)]:
        raise UserError(f'{message}. There is one in {base / found[0]}: set config.data.path')
    no_splits = not set(folders) & set().union(*ALIASES) and Folder.is_at(str(base), '')
    if no_splits or (split in ALIASES[1] and _root(base, 'train')):
        message += (f'. {"They seem to be classes, without splits" if no_splits else "There is split train"}: '
                    "config.data.holdout=0.1 (--option holdout=0.1) holds out a tenth of its images as split 'val'")
    raise UserError(message)
