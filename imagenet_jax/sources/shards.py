"""Data sets of several files: which of them make a split, by their names, and whether all of them are there."""

import re
from collections.abc import Sequence
from pathlib import Path

from imagenet_jax.errors import UserError

_SAME = ('val', 'validation', 'valid')
_POINTER = b'version https://git-lfs'


def spellings(split: str) -> tuple[str, ...]:
    """The split's name, then the others that data sets have for the same split."""
    return (split, *(name for name in _SAME if name != split)) if split in _SAME else (split,)


def matching(folder: Path, pattern: str) -> list[Path]:
    """Files of a folder, sorted, whose whole name fits a regular expression."""
    return sorted(file for file in folder.glob('*') if re.fullmatch(pattern, file.name) and not file.is_dir())


def refuse_gaps(files: Sequence[Path], pattern: str, first: int = 1) -> None:
    """A file that is missing would be images that are missing, and a second copy images twice.

    Args:
      files: of one split.
      pattern: with two groups: the number of a file and of how many it is; a name that has neither counts alone.
      first: the highest number that the first file may have, where no name says of how many it is.

    Raises:
      UserError: files that no one split has together.
    """
    parts = [match.groups() if (match := re.fullmatch(pattern, file.name)) else (None, None) for file in files]
    counts = {int(count or 0) for _, count in parts}
    numbers = {int(number) for number, _ in parts if number}
    if len(counts) > 1 or (numbers and None in next(zip(*parts, strict=True))):
        raise UserError(f'{files[0]} and {len(files) - 1} more are of several splits, of {sorted(counts)} files: keep '
                        f'one of them there. The last is {files[-1]}')
    if len(numbers or {file.name for file in files}) < len(files):
        raise UserError(f'several files have the same number: {", ".join(map(str, files[:4]))}; keep one of each')
    count = counts.pop()
    expected = range(count) if count else range(min(first, *numbers), max(numbers) + 1) if numbers else ()
    if missing := sorted(set(expected) - numbers):
        raise UserError(f'of the {len(expected)} files of the split of {files[0]}, {len(missing)} are missing, by '
                        f'number: {", ".join(map(str, missing[:10]))}')


def pointer_hint(file: Path) -> str:
    """What to add to the message on a file that cannot be read, where it is one that Git left in the data's place."""
    try:
        with file.open('rb') as opened:
            start = opened.read(len(_POINTER))
    except OSError:
        return ''
    return '; it is a pointer of Git LFS, not the data: fetch that with `git lfs pull`' if start == _POINTER else ''
