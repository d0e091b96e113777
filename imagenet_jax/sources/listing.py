"""What in a folder of images counts: class folders and images, not what systems leave behind."""

import logging
import os
from collections.abc import Sequence
from pathlib import Path

from imagenet_jax.class_names import are_numbers
from imagenet_jax.errors import few

log = logging.getLogger(__name__)

# Of all formats that images/decode.py reads.
EXTENSIONS = ('.jpeg', '.jpg', '.jpe', '.jfif', '.jif', '.jfi', '.pjpeg', '.pjp', '.mpo', '.png', '.apng', '.gif',
              '.bmp', '.dib', '.ppm', '.pgm', '.pbm', '.pnm', '.pfm', '.tif', '.tiff', '.webp', '.jp2', '.j2k', '.j2c',
              '.jpc', '.jpf', '.jpx', '.avif', '.avifs')
# Beside names that begin with a dot: copies of resources, thumbnails, what a check of the disk found, what was deleted.
_LITTER = {'__MACOSX', '@eaDir', 'lost+found', '$RECYCLE.BIN', 'System Volume Information'}
_ARCHIVES = ('.zip', '.tar', '.gz', '.tgz', '.bz2', '.xz', '.zst', '.7z', '.rar')


def is_litter(name: str) -> bool:
    """Whether a folder of this name is no part of the data."""
    return name.startswith('.') or name in _LITTER


def is_image(name: str) -> bool:
    """Whether a file is an image by its name."""
    return name.lower().endswith(EXTENSIONS) and not name.startswith('.')


def class_folders(root: Path) -> list[str]:
    """Names of the folders in `root`, sorted; a link to a folder that holds `root` is a loop and none of them."""
    here = os.path.realpath(root)

    def is_folder(entry):
        if not entry.is_symlink():
            return entry.is_dir()
        # By path: DirEntry.is_dir raises on a link that points to itself.
        real = os.path.realpath(entry.path)
        return os.path.isdir(entry.path) and os.path.commonpath((here, real)) != real

    return sorted(entry.name for entry in os.scandir(root) if not is_litter(entry.name) and is_folder(entry))


def archives(folder: Path) -> str:
    """For messages: which files in `folder` have to be unpacked first; '' where there are none."""
    names = sorted(e.name for e in (os.scandir(folder) if folder.is_dir() else ())
                   if e.name.lower().endswith(_ARCHIVES) and not is_litter(e.name))
    return f'. Is it still packed in {few(names, 3)}? Unpack it' if names else ''


def numbered(root: Path, folders: Sequence[str], num_classes: int | None) -> tuple[tuple[str, ...], list[int]]:
    """(class names in label order, each folder's label) of sorted class folders.

    Whole numbers below `num_classes`, or below their count where that is None, are labels; one without a folder is a
    class of its own. Other names are numbered in their order.
    """
    num_classes = num_classes or len(folders)
    if are_numbers(folders):
        numbers = list(map(int, folders))
        if max(numbers) < num_classes and len(set(numbers)) == len(numbers):
            found = dict(zip(numbers, folders, strict=True))
            return tuple(found.get(number, str(number)) for number in range(max(numbers) + 1)), numbers
        if numbers != sorted(numbers):
            log.warning('%s: the class folders are numbers, but not all of them below %d: their order as text, %s, '
                        'decides what label each is', root, num_classes, ', '.join(folders[:3]))
    return tuple(folders), list(range(len(folders)))
