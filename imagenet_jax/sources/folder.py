"""One folder a class, as torchvision's ImageFolder and the usual unpacked ImageNet.

    root/train/n01440764/n01440764_10026.JPEG
    root/val/n01440764/ILSVRC2012_val_00000293.JPEG

The split is the folder under the root ('' where the root itself holds the classes).
"""

import logging
import os
from pathlib import Path

import numpy as np

from imagenet_jax.class_names import are_numbers
from imagenet_jax.errors import UserError
from imagenet_jax.sources.base import Files

log = logging.getLogger(__name__)

# Of all formats that images/decode.py reads.
EXTENSIONS = ('.jpeg', '.jpg', '.jpe', '.jfif', '.mpo', '.png', '.apng', '.gif', '.bmp', '.dib', '.ppm', '.pgm', '.pbm',
              '.pnm', '.pfm', '.tif', '.tiff', '.webp', '.jp2', '.j2k', '.j2c', '.jpc', '.jpf', '.jpx', '.avif',
              '.avifs')


class Folder(Files):
    """Class folders sorted by name are labels 0, 1, ...; images at any depth inside them, sorted by path.

    Folders that all have whole numbers below `num_classes` for names, as ImageNet-V2's, are labels by number.

    Args:
      path: the data set's root.
      split: the folder under it.
      num_classes: None where as many as there are folders.
    """

    def __init__(self, path: str, split: str, num_classes: int | None = None):
        root = Path(path).expanduser() / split
        if not root.is_dir():
            there = sorted(p.name for p in root.parent.glob('*') if p.is_dir())[:10]
            raise UserError(f'no folder {root}; expected <root>/<split>/<class>/<image>. '
                            f'Folders in {root.parent}: {", ".join(there) or "none"}')
        folders = _folders(root)
        if not folders:
            raise UserError(f'{root} holds no class folders; expected <root>/<split>/<class>/<image>')
        files, labels, ignored = [], [], 0
        self.class_names, numbers = _numbered(root, folders, num_classes or len(folders))
        for label, name in zip(numbers, folders, strict=True):
            found, others = _images(root, name)
            if not found:
                raise UserError(f'class folder {root / name} holds no image ({", ".join(EXTENSIONS)})')
            files += found
            labels += [label] * len(found)
            ignored += others
        if ignored:
            log.warning('%s: %d files that are not images by their ending are left out', root, ignored)
        super().__init__(root, files, np.array(labels, np.int32))

    @classmethod
    def is_at(cls, path, split):
        root = Path(path).expanduser() / split
        return bool(path) and root.is_dir() and any(_images(root, name)[0] for name in _folders(root)[:3])


def _folders(root: Path) -> list[str]:
    # A link is asked by path: DirEntry.is_dir raises on one that points to itself.
    return sorted(e.name for e in os.scandir(root) if not e.name.startswith('.')
                  and (os.path.isdir(e.path) if e.is_symlink() else e.is_dir()))


def _numbered(root: Path, folders: list[str], num_classes: int) -> tuple[tuple[str, ...], list[int]]:
    """(class names in label order, each folder's label); a number without a folder is a class of its own."""
    if are_numbers(folders):
        numbers = list(map(int, folders))
        if max(numbers) < num_classes and len(set(numbers)) == len(numbers):
            found = dict(zip(numbers, folders, strict=True))
            return tuple(found.get(number, str(number)) for number in range(max(numbers) + 1)), numbers
        if numbers != sorted(numbers):
            log.warning('%s: the class folders are numbers, but not all of them below %d: their order as text, %s, '
                        'decides what label each is', root, num_classes, ', '.join(folders[:3]))
    return tuple(folders), list(range(len(folders)))


def _images(root: Path, name: str) -> tuple[list[str], int]:
    """Paths under root of the images below root/name, sorted, and how many other files lie there.

    A link to a folder is followed; not to one that holds the class itself, nor to one seen already: loops end.
    """
    found, others = [], 0
    here = os.path.realpath(root / name)
    seen = {here}

    def is_new(path):
        real = os.path.realpath(path)
        if real in seen or os.path.commonpath((here, real)) == real:
            return False
        seen.add(real)
        return True

    for folder, inside, files in os.walk(root / name, followlinks=True):
        inside[:] = [f for f in sorted(inside) if not f.startswith('.')  # thumbnails, notebook checkpoints
                     and is_new(os.path.join(folder, f))]
        for file in files:
            if file.lower().endswith(EXTENSIONS) and not file.startswith('.'):
                found.append(os.path.relpath(os.path.join(folder, file), root))
            else:
                others += 1
    return sorted(found), others
