"""The order of an epoch's samples: each once, by the seed and the number of the epoch, in memory that does not grow."""

import functools
import math
from collections.abc import Callable

import numpy as np

# So many samples at most have their order in a table: made in a millisecond, as likely any order as any other, and that
# of earlier versions, whose runs go on.
TABLE = 1 << 16
# Four of random functions are a permutation that no few questions tell from a random one (Luby and Rackoff,
# doi:10.1137/0217022); ours are not quite random.
_ROUNDS = 6
# Odd factors of splitmix64 (doi:10.1145/2660193.2660195).
_STEP, _MIX, _MASK = 0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, (1 << 64) - 1


@functools.lru_cache(2)  # a batch may hold the end of one epoch and the start of the next
def order(length: int, seed: int, epoch: int) -> Callable[[int], int]:
    """Place in the epoch -> index of the sample, a permutation of 0..length-1; a place may be asked for alone."""
    if length <= TABLE:
        return np.random.default_rng((seed, epoch)).permutation(length).item
    return _Cipher(length, seed, epoch)


class _Cipher:
    """A generalised Feistel network: the samples are cells of a grid, nearly square, whose rows and columns are shifted
    in turn, and from a cell past the last it goes on until it is at a sample (doi:10.1007/3-540-45760-7_9).

    `grain.experimental.index_shuffle` of grain 0.2.18 gives one of 2**16 + 1 samples twice and leaves out another, and
    so of 2**18 + 1 and 2**20 + 1; it takes two to five times as long, and 8 ms where samples are two.
    """

    def __init__(self, length: int, seed: int, epoch: int):
        self._length, self._columns = length, math.isqrt(length - 1) + 1
        self._rows = -(-length // self._columns)
        keys = np.random.SeedSequence((seed, epoch)).generate_state(_ROUNDS, np.uint64).tolist()
        self._keys = list(zip(keys[::2], keys[1::2], strict=True))

    def __call__(self, place: int) -> int:
        rows, columns, place = self._rows, self._columns, int(place)  # numpy's whole numbers overflow below
        while True:
            row, column = divmod(place, columns)
            for first, second in self._keys:
                row = (row + _mixed(column + first)) % rows
                column = (column + _mixed(row + second)) % columns
            place = row * columns + column
            if place < self._length:
                return place


def _mixed(number: int) -> int:
    """64 bits that depend on all bits of a number."""
    number = number * _STEP & _MASK
    number = (number ^ number >> 29) * _MIX & _MASK
    return number ^ number >> 32
