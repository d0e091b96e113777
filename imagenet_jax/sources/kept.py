"""What takes long to read from a data set, kept in the user's cache until its files change."""

import hashlib
import logging
import os
import zlib
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
    """What is kept; None where nothing is, or not as it was saved."""
    try:
        with file(of).open('rb') as kept:
            values = np.load(kept)
            return values if kept.read() == _checksum(values) else None
    except Exception:  # none yet, or torn: of what is no array numpy raises many kinds
        return None


def save(of: object, values: np.ndarray) -> None:
    """Keeps it in the place of what was kept before; where that fails, says so."""
    try:
        with replacing(file(of)) as partial, partial.open('wb') as whole:
            np.save(whole, values)
            whole.write(_checksum(values))
    except UserError as error:
        log.warning('labels are not kept for the next time: %s', error)


def _checksum(values: np.ndarray) -> bytes:
    """Of what a flipped bit would change in silence: labels."""
    return b'%08x' % zlib.crc32(np.ascontiguousarray(values).view(np.uint8))


def stamp(path: str | os.PathLike) -> tuple[int, int] | None:
    """Size and time of change, which differ where a file was replaced."""
    try:
        stat = os.stat(path)
    except OSError:  # reading will say it better
        return None
    return stat.st_size, stat.st_mtime_ns
