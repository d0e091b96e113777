"""Files that a command is to write, checked before its long work."""

import tempfile
from collections.abc import Iterable
from pathlib import Path

from imagenet_jax.errors import UserError, writing
from imagenet_jax.sources.listing import is_image


def check(asked: Iterable[tuple[str, Path | None, tuple[str, ...]]]) -> None:
    """Of options, the file that each names (None where not given) and how that may end: () as it likes, but not as an
    image does, which an argument out of place may be.

    Raises:
      UserError: another ending, one file named twice, or one that cannot be written.
    """
    seen: dict[Path, str] = {}
    for option, path, endings in asked:
        if path is None:
            continue
        if not endings and is_image(path.name):
            raise UserError(f'{option} {path} would write over an image: {option} is followed by the file to write')
        if endings and path.suffix.lower() not in endings:
            raise UserError(f'{option} {path}: name a file that ends in {" or ".join(endings)}')
        if other := seen.get(path.resolve()):
            raise UserError(f'{other} and {option} name one file, {path}')
        seen[path.resolve()] = option
        with writing(path):
            if path.is_dir():
                raise IsADirectoryError('a folder has that name')
            if path.is_file() or not path.exists():
                with tempfile.NamedTemporaryFile(dir=path.resolve().parent):  # as errors.replacing will
                    pass
