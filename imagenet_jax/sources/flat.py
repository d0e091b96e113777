"""All images of a split in one folder, the class in the file's name.

    root/train_flatten/n01440764_10026.JPEG
    root/val_flatten/n01440764_ILSVRC2012_val_00000293.JPEG
    root/synsets.txt

A line of synsets.txt begins with a wnid, as `n01440764 tench, Tinca tinca`; its number, from 0, is the label.
"""

import logging
import os
from pathlib import Path

import numpy as np

from imagenet_jax.errors import UserError
from imagenet_jax.sources.base import Files
from imagenet_jax.sources.listing import is_image

log = logging.getLogger(__name__)


class Flat(Files):
    """Images sorted by name; the wnid, and so the class name, is what comes before the first `_`."""

    def __init__(self, path: str, split: str):
        root = _folder(path, split)
        if not root.is_dir():
            there = sorted(p.name for p in root.parent.glob('*_flatten'))[:10]
            raise UserError(f'no folder {root}; expected <root>/<split>_flatten/<wnid>_<name>. '
                            f'Such folders in {root.parent}: {", ".join(there) or "none"}')
        self.class_names = _wnids(root.parent / 'synsets.txt')
        names = sorted(e.name for e in os.scandir(root) if not e.name.startswith('.'))
        files = [name for name in names if is_image(name)]
        if len(files) < len(names):
            log.warning('%s: %d files or folders that are not images by their ending are left out', root,
                        len(names) - len(files))
        number = {wnid: label for label, wnid in enumerate(self.class_names)}
        labels = [number.get(file.partition('_')[0], -1) if '_' in file else -1 for file in files]
        if -1 in labels:
            raise UserError(f'{labels.count(-1)} images of {root}, the first {files[labels.index(-1)]}, do not begin '
                            f'with a wnid of {root.parent / "synsets.txt"} and _')
        super().__init__(root, files, np.array(labels, np.int32))

    @classmethod
    def is_at(cls, path, split):
        return bool(path) and _folder(path, split).is_dir()


def _folder(path: str, split: str) -> Path:
    return Path(path).expanduser() / f'{split}_flatten'


def _wnids(file: Path) -> tuple[str, ...]:
    try:
        lines = file.read_text('utf-8-sig').rstrip().split('\n')
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f'{file}, which numbers the classes, one wnid a line, cannot be read: {error}') from error
    first = {}
    for number, line in enumerate(lines, 1):
        wnid = (line.split() or [''])[0]
        if not wnid:
            raise UserError(f'{file}:{number} names no wnid; each line is one class')
        if wnid in first:
            raise UserError(f'{file}:{number} repeats {wnid} of line {first[wnid]}')
        first[wnid] = number
    return tuple(first)
