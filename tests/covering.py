"""Pairwise covering arrays: rows of options such that every two values of two options stand together in some row."""

import itertools
from collections.abc import Callable, Mapping, Sequence


def rows(factors: Mapping[str, Sequence], allowed: Callable[[dict], bool] = lambda row: True) -> list[dict]:
    """{factor: value} rows, greedily few, the first of all first values.

    Args:
      factors: name -> its values, the first the one that is always allowed beside any other's first.
      allowed: whether some factors' values may stand together; asked with parts of rows too.
    """
    first = {name: values[0] for name, values in factors.items()}
    made, open_pairs = [], {}
    for (a, left), (b, right) in itertools.combinations(factors.items(), 2):
        for x, y in itertools.product(left, right):
            if allowed({a: x, b: y}):
                open_pairs[(a, x), (b, y)] = None  # a dict keeps the order, so that rows are the same each time
    _close(open_pairs, first)
    made.append(first)
    while open_pairs:
        row = _row(factors, allowed, open_pairs)
        _close(open_pairs, row)
        made.append(row)
    return made


def _row(factors, allowed, open_pairs) -> dict:
    """One that closes the first open pair, and of each further factor takes the value that closes the most."""
    row = dict(next(iter(open_pairs)))
    for name, values in factors.items():
        if name in row:
            continue
        possible = [value for value in values if allowed({**row, name: value})]
        row[name] = max(possible, key=lambda value: sum(
            _ordered(factors, (name, value), other) in open_pairs for other in row.items()))
    return {name: row[name] for name in factors}


def _ordered(factors, one, other) -> tuple:
    names = list(factors)
    return (one, other) if names.index(one[0]) < names.index(other[0]) else (other, one)


def _close(open_pairs, row) -> None:
    for pair in itertools.combinations(row.items(), 2):
        open_pairs.pop(pair, None)
