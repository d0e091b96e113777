"""One folder a class, as torchvision's ImageFolder and the usual unpacked ImageNet.

    root/train/n01440764/n01440764_10026.JPEG
    root/val/n01440764/ILSVRC2012_val_00000293.JPEG

The split is the folder under the root ('' where the root itself holds the classes).
"""

import logging
import os
from pathlib import Path

import numpy as np

from imagenet_jax.errors import UserError
from imagenet_jax.sources.base import Files

log = logging.getLogger(__name__)

# Of all formats that images/decode.py reads.
EXTENSIONS = ('.jpeg', '.jpg', '.jpe', '.jfif', '.jif', '.jfi', '.pjpeg', '.pjp', '.mpo', '.png', '.apng', '.gif',
              '.bmp', '.dib', '.ppm', '.pgm', '.pbm', '.pnm', '.pfm', '.tif', '.tiff', '.webp', '.jp2', '.j2k', '.j2c',
              '.jpc', '.jpf', '.jpx', '.avif', '.avifs')


class Folder(Files):
    """Class folders sorted by name are labels 0, 1, ...; images at any depth inside them, sorted by path."""

    def __init__(self, path: str, split: str):
        root = Path(path).expanduser() / split
        if not root.is_dir():
            there = sorted(p.name for p in root.parent.glob('*') if p.is_dir())[:10]
            raise UserError(f'no folder {root}; expected <root>/<split>/<class>/<image>. '
                            f'Folders in {root.parent}: {", ".join(there) or "none"}')
        self.class_names = tuple(_folders(root))
        if not self.class_names:
            raise UserError(f'{root} holds no class folders; expected <root>/<split>/<class>/<image>')
        files, labels, ignored = [], [], 0
        for label, name in enumerate(self.class_names):
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
