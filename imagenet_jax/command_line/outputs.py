"""Files that a command is to write, checked before its long work."""

from collections.abc import Iterable
from pathlib import Path

from imagenet_jax.errors import UserError, writing


def check(asked: Iterable[tuple[str, Path | None, tuple[str, ...]]]) -> None:
    """Of options, the file that each names (None where not given) and how that may end.

    Raises:
      UserError: another ending, one file named twice, or one that cannot be written.
    """
    seen: dict[Path, str] = {}
    for option, path, endings in asked:
        if path is None:
            continue
        if path.suffix.lower() not in endings:
            raise UserError(f'{option} {path}: name a file that ends in {" or ".join(endings)}')
        if other := seen.get(path.absolute()):
            raise UserError(f'{other} and {option} name one file, {path}')
        seen[path.absolute()] = option
        with writing(path):
            if path.is_dir():
                raise IsADirectoryError('a folder has that name')
            partial = path.with_name(f'{path.name}.tmp')  # as errors.replacing will
            partial.touch()
            partial.unlink()
