"""What takes long to read from a data set, kept in the user's cache until its files change."""

import hashlib
import logging
import os
from collections.abc import Callable

import numpy as np

log = logging.getLogger(__name__)


def array(of: object, read: Callable[[], np.ndarray]) -> np.ndarray:
    """What `read` answers, kept from the last time where that was for the same `of`: an object by its repr."""
    from imagenet_jax.runtime import cache_folder  # and with it JAX, which other sources do without
    kept = cache_folder() / 'labels' / f'{hashlib.sha256(repr(of).encode(errors="replace")).hexdigest()[:32]}.npy'
    try:
        return np.load(kept)
    except (OSError, ValueError, EOFError):  # none yet, or torn
        values = read()
    try:
        kept.parent.mkdir(parents=True, exist_ok=True)
        partial = kept.with_suffix(f'.{os.getpid()}.npy')
        np.save(partial, values)
        os.replace(partial, kept)
    except OSError as error:
        log.warning('labels are not kept for the next time: %s', error)
    return values


def stamp(file: str | os.PathLike) -> tuple[int, int] | None:
    """Size and time of change, which differ where a file was replaced."""
    try:
        stat = os.stat(file)
    except OSError:  # reading will say it better
        return None
    return stat.st_size, stat.st_mtime_ns
