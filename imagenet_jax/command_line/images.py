"""Which images a command line names: files, folders, patterns that the shell left alone, a list on standard input."""

import glob
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from imagenet_jax.sources.listing import EXTENSIONS, is_image, is_litter

LIST = Path('-')


def named(arguments: Sequence[Path]) -> tuple[list[Path], list[str]]:
    """The images, in the order of the arguments and sorted within each, and why an argument names none.

    What is there by its very name is taken as it is. A folder is every image at any depth in it, links to folders not
    followed; a pattern what it matches, each once, `**` any number of folders; one that ends in a star takes images
    alone. `-` is a list on standard input, a path a line, or between NULs: files and folders, none of them a pattern.
    """
    found, wrong = [], []
    for argument in arguments:
        if argument == LIST:
            listed = [file for path in _listed(sys.stdin.buffer.read()) for file in _files(path)]
            found += listed
            wrong += [] if listed else ['standard input: names no image']
            continue
        pattern = str(argument)
        matched = glob.has_magic(pattern) and not os.path.lexists(pattern)
        files = _matches(pattern) if matched else _files(argument)
        found += files
        if not files:
            wrong.append(f'{argument}: matches no image' if matched else
                         f'{argument}: holds no image ({", ".join(EXTENSIONS)})')
    return found, wrong


def _files(image: Path) -> list[Path]:
    if not os.path.isdir(image):  # of any length
        return [image]
    return sorted(file for file in image.rglob('*') if is_image(file.name) and not file.is_dir()
                  and not any(map(is_litter, file.relative_to(image).parts)))


def _matches(pattern: str) -> list[Path]:
    found = map(Path, glob.iglob(pattern, recursive=True))
    files = sorted({file for path in found for file in _files(path)
                    if not pattern.endswith('*') or is_image(file.name)})
    # By the folders that links lead to: one that leads back to itself would match dozens of times.
    places = {os.path.join(os.path.realpath(file.parent), file.name): file for file in reversed(files)}
    return sorted(places.values())


def _listed(data: bytes) -> list[Path]:
    paths = data.split(b'\0') if b'\0' in data else [line.removesuffix(b'\r') for line in data.split(b'\n')]
    return [Path(os.fsdecode(path)) for path in paths if path]
