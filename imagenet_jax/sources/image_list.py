"""A text file that lists images and their labels, as mini-ImageNet's and ILSVRC2012's come.

    root/train.txt                 train/n01440764/n01440764_10026.JPEG 0
    root/val.txt                   val/ILSVRC2012_val_00000001.JPEG 65
    root/labels_to_content.txt     optional: class names
    root/train/..., root/val/...   the images, here or below `images`

A line is a path, blanks, and the label; empty lines and those that begin with # are passed over. Class names are one a
line in label order, or `0 goldfish`, `0: goldfish`, `0,goldfish`, or a Python dict {0: 'goldfish', ...}.
"""

import ast
import re
from pathlib import Path

import numpy as np

from imagenet_jax.errors import UserError
from imagenet_jax.sources.base import Files

_NAMES = 'labels_to_content.txt'
_LONGEST_PATH = 4096


class ImageList(Files):
    """Images in the list's order.

    Args:
      path: the folder of the list.
      split: the list's name without .txt.
      images: the folder that the paths in the list start from: absolute, or relative to `path`. Symbolic links in it
        are followed, but a path in the list may not lead out of it by itself.
    """
    refers = True

    def __init__(self, path: str, split: str, images: str = ''):
        list_file = _file(path, split)
        if not list_file.is_file():
            there = sorted(p.name for p in list_file.parent.glob('*.txt'))[:10]
            raise UserError(f'no file {list_file}; expected <root>/<split>.txt with lines of `path label`. '
                            f'Text files in {list_file.parent}: {", ".join(there) or "none"}')
        root = Path(path).expanduser() / Path(images).expanduser()
        if not root.is_dir():
            raise UserError(f'no folder {root}, from which the paths in {list_file} start: set data.images')
        files, labels = [], []
        for number, line in enumerate(_lines(list_file), 1):
            if line and not line.startswith('#'):
                file, label = _entry(f'{list_file}:{number}', line)
                files.append(file)
                labels.append(label)
        super().__init__(root, files, np.array(labels, np.int32))
        names = Path(path).expanduser() / _NAMES
        self.class_names = read_class_names(names) if names.exists() else ()

    @classmethod
    def is_at(cls, path, split):
        return bool(path) and _file(path, split).is_file()


def _file(path: str, split: str) -> Path:
    return Path(path).expanduser() / f'{split}.txt'


def _lines(file: Path) -> list[str]:
    try:
        # A path may be any bytes; what is not UTF-8 goes to the file system as it came.
        with open(file, encoding='utf-8-sig', errors='surrogateescape') as lines:
            return [line.strip() for line in lines]
    except OSError as error:
        raise UserError(f'{file} cannot be read: {error}') from error


def _entry(place: str, line: str) -> tuple[str, int]:
    """Path and label of one line."""
    file, _, label = line.replace('\t', ' ').rpartition(' ')
    if not re.fullmatch('-?[0-9]{1,10}', label) or not -2**31 <= int(label) < 2**31:
        raise UserError(f'{place}: {line[-80:]!r} does not end in a label, a whole number after a blank; '
                        'a table with commas or names of classes is for data.format=folder, as a .csv')
    file = line[:len(file)].strip()
    if not file:
        raise UserError(f'{place}: {line!r} has a label and no path')
    if file.startswith('/') or '..' in file.split('/'):
        raise UserError(f'{place}: {file[:80]!r} leads out of the folder of images; paths are relative to data.images '
                        'and without ..')
    if '\0' in file or len(file) > _LONGEST_PATH:
        raise UserError(f'{place}: {file[:80]!r}... is no path of a file')
    return file, int(label)


def read_class_names(file: Path) -> tuple[str, ...]:
    """A file of class names, in any of the forms above. Raises UserError."""
    lines = [line for line in _lines(file) if line]
    if any(re.search('[\ud800-\udfff]', line) for line in lines):
        raise UserError(f'{file} is not UTF-8')
    if lines and lines[0].startswith('{'):
        pairs = _dict(file, ' '.join(lines))
    elif lines and _numbered(lines[0]):
        pairs = [_numbered(line) for line in lines]
        if None in pairs:
            raise UserError(f'{file}: {lines[pairs.index(None)]!r} does not begin with a label, as the first line does')
    else:
        return tuple(lines)
    names = dict(pairs)
    wrong = sorted(set(range(len(pairs))) ^ set(names))
    if wrong or len(names) < len(pairs):
        raise UserError(f'{file} must name each label from 0 to {len(pairs) - 1} once; look at label {wrong[0]}')
    return tuple(names[label] for label in range(len(names)))


def _numbered(line: str) -> tuple[int, str] | None:
    match = re.fullmatch(r'([0-9]{1,9})(?:\s*[:,]\s*|\s+)(.+)', line)
    return match and (int(match[1]), match[2])


def _dict(file: Path, text: str) -> list[tuple[int, str]]:
    """The pairs of a dict's text; a repeated label stays repeated."""
    try:
        tree = ast.parse(text, mode='eval').body
        pairs = [(ast.literal_eval(k), ast.literal_eval(v)) for k, v in zip(tree.keys, tree.values, strict=True)]
    except (ValueError, SyntaxError, TypeError, AttributeError, MemoryError, RecursionError) as error:
        raise UserError(f'{file} is not the text of a dict: {error}') from error
    if not all(type(label) is int and isinstance(name, str) for label, name in pairs):
        raise UserError(f'{file} must be a dict of labels, whole numbers, to names')
    return pairs
