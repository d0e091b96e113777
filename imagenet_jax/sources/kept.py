"""What takes long to read from a data set, kept in the user's cache until its files change."""

import hashlib
import logging
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np

from imagenet_jax.errors import UserError, replacing

log = logging.getLogger(__name__)


def array(of: object, read: Callable[[], np.ndarray]) -> np.ndarray:
    """What `read` answers, kept from the last time where that was for the same `of`: an object by its repr."""
    values = load(of)
    if values is None:
        values = read()
        save(of, values)
    return values


def file(of: object) -> Path:
    """Where it is kept."""
    from imagenet_jax.runtime import cache_folder  # and with it JAX, which other sources do without
    return cache_folder() / 'labels' / f'{hashlib.sha256(repr(of).encode(errors="replace")).hexdigest()[:32]}.npy'


def load(of: object) -> np.ndarray | None:
    """What is kept; None where nothing is."""
    try:
        with file(of).open('rb') as opened:
            return np.lib.format.read_array(opened)
    except Exception:  # none yet, or damaged, which is told in several ways
        return None


def save(of: object, values: np.ndarray) -> None:
    """Keeps it in the place of what was kept before; where that fails, says so."""
    kept = file(of)
    try:
        with replacing(kept) as partial, partial.open('wb') as opened:
            np.save(opened, values)
    except UserError as error:
        log.warning('labels are not kept for the next time: %s', error)


def stamp(path: str | os.PathLike) -> tuple[int, int] | None:
    """Size and time of change, which differ where a file was replaced."""
    try:
        stat = os.stat(path)
    except OSError:  # reading will say it better
        return None
    return stat.st_size, stat.st_mtime_ns
