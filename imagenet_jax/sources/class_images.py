"""The images of many class folders, listed by several threads, and where they are many kept until a folder changes."""

import logging
import os
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import NoReturn

import numpy as np
from tqdm import tqdm

from imagenet_jax.sources import kept
from imagenet_jax.sources.listing import EXTENSIONS, is_image, is_litter

log = logging.getLogger(__name__)

# A disk over a network answers so many at once; one in this machine is as fast with one.
_THREADS = 16
# Fewer images are listed in a second.
_MANY = 100_000
# Within so many nanoseconds a second change of a folder may leave the time that the first one set.
_CLOCK_NS = 2 * 10**9


def images(root: Path, names: Sequence[str]) -> tuple[np.ndarray, np.ndarray, int]:
    """Of all class folders root/name.

    Returns:
      Paths below root of their images (bytes, (N,)), class by class and sorted in each; which of the names each belongs
      to (int32 (N,)); and how many files there are no images.

    Raises:
      OSError: a folder cannot be read.
    """
    of = ('images of classes', os.path.realpath(root), tuple(names), EXTENSIONS)
    rows, began = kept.load(of), time.time_ns()
    pool = ThreadPoolExecutor(_THREADS)
    try:
        if rows is not None and _is_current(root, rows, pool):
            log.info('%s: no folder has changed since its images were listed in %s', root, kept.file(of))
        else:
            rows = _rows(tqdm(pool.map(partial(of_class, root), names), f'listing {root}', len(names), unit=' folders',
                              disable=None, delay=1, dynamic_ncols=True))
            times = rows['changed'][rows['others'] >= 0]
            # A folder that changes meanwhile, or so lately that the next change might not show, is not relied on.
            if len(rows) >= _MANY and times.min() > 0 and times.max() < began - _CLOCK_NS:
                kept.save(of, rows)
    finally:
        pool.shutdown(cancel_futures=True)
    found = rows[rows['others'] < 0]
    return found['path'], found['number'], int(rows['others'][rows['others'] > 0].sum())


def of_class(root: Path, name: str) -> tuple[list[str], list[tuple[str, int, int]]]:
    """Of one class folder: sorted paths below root of its images; (path, time of the last change in ns, number of files
    that are no images) of each folder.

    A link to a folder is followed; not to one that holds the class itself, nor to one seen already: loops end.
    """
    found, folders = [], []
    here = os.path.realpath(root / name)
    seen = {here}

    def is_new(path):
        real = os.path.realpath(path)
        if real in seen or os.path.commonpath((here, real)) == real:
            return False
        seen.add(real)
        return True

    for folder, inside, files in os.walk(root / name, onerror=_raise, followlinks=True):
        inside[:] = [f for f in sorted(inside) if not is_litter(f)  # thumbnails, notebook checkpoints
                     and is_new(os.path.join(folder, f))]
        below = os.path.relpath(folder, root)
        mine = [f'{below}/{file}' for file in files if is_image(file)]
        folders.append((below, os.stat(folder).st_ctime_ns, len(files) - len(mine)))
        found += mine
    return sorted(found), folders


def _raise(error: OSError) -> NoReturn:
    """A folder that cannot be read is not an empty one."""
    raise error


def _rows(classes) -> np.ndarray:
    """Of what `of_class` gives of each, as it is kept: a row an image, whose `others` is -1, and a row a folder."""
    parts = []
    for number, (found, folders) in enumerate(classes):
        paths = [os.fsencode(path) for path in (*found, *(path for path, _, _ in folders))]
        rows = np.zeros(len(paths), [('path', f'S{max(map(len, paths))}'), ('number', 'i4'), ('changed', 'i8'),
                                     ('others', 'i4')])
        rows['path'], rows['number'], rows['others'][:len(found)] = paths, number, -1
        rows['changed'][len(found):] = [changed for _, changed, _ in folders]
        rows['others'][len(found):] = [others for _, _, others in folders]
        parts.append(rows)
    return np.concatenate(parts)


def _is_current(root: Path, rows: np.ndarray, pool: ThreadPoolExecutor) -> bool:
    """Whether no folder has changed: what came, went or was renamed there, links too, would have changed its time."""
    def is_as_before(folder):
        try:
            return os.stat(os.path.join(root, os.fsdecode(folder['path']))).st_ctime_ns == folder['changed']
        except OSError:
            return False
    return all(pool.map(is_as_before, rows[rows['others'] >= 0]))
