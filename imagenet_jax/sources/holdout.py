"""A fraction of a split, held out to evaluate on: by a hash of each image's key and nothing else.

Images that come or go move no other from one part to the other; nor does their order, the machine or the number of
hosts.
"""

import hashlib
import logging
import os
import unicodedata

import numpy as np

from imagenet_jax.errors import UserError
from imagenet_jax.sources.base import Source

log = logging.getLogger(__name__)


class Part(Source):
    """Some images of a source, in its order, with its classes.

    Args:
      whole: the source.
      indices: int (N,), ascending.
    """

    def __init__(self, whole: Source, indices: np.ndarray):
        self._whole, self._indices = whole, indices.astype(np.int32)
        self.labels, self.class_names = whole.labels[indices], whole.class_names
        self.class_words = dict(whole.class_words)  # the view of none does not pickle

    def image(self, index):
        return self._whole.image(int(self._indices[index]))

    def key(self, index):
        return self._whole.key(int(self._indices[index]))


def check_fraction(held: float) -> None:
    """Raises UserError where so much cannot be held out."""
    if not 0 <= held < 1:
        raise UserError(f'config.data.holdout={held} must be a fraction from 0 to below 1')


def hold_out(whole: Source, fraction: float, held: bool) -> Part:
    """The part that is held out, or the rest.

    Raises:
      UserError: one of the two would be empty.
    """
    is_held = np.array([_place(whole.key(index)) < fraction for index in range(len(whole))])
    if is_held.all() or not is_held.any():
        raise UserError(f'config.data.holdout={fraction} holds out {is_held.sum()} of {len(whole)} images, whose keys '
                        'decide; take another fraction')
    if held:
        log.info('%d of %d images are held out to evaluate on (config.data.holdout=%g)', is_held.sum(), len(whole),
                 fraction)
    return Part(whole, np.flatnonzero(is_held == held))


def _place(key: str) -> float:
    """In [0, 1), evenly. Composed, since some file systems give names back decomposed."""
    data = os.fsencode(unicodedata.normalize('NFC', key))
    return int.from_bytes(hashlib.blake2b(data, digest_size=6).digest(), 'big') / 2**48
