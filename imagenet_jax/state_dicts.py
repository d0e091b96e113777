"""Which weights of a foreign file are meant: they may lie in dicts, under prefixes, and there may be averaged ones too.

Training scripts keep a state_dict beside the epoch and the optimizer's state, under a name of their own; a wrapper
(DataParallel, torch.compile, Lightning) puts its prefix before every name, and a framework one before the backbone's
and another before the head's. None of these names is known here: what has the model's names, with a prefix taken off
or without, is what is looked for.
"""

import collections
import re
from collections.abc import Collection, Iterator, Mapping
from typing import Any, NamedTuple

from imagenet_jax.errors import UserError

# What says that weights are averages, in the name they are kept under.
_AVERAGED = re.compile(r'(?<![a-zA-Z])(?i:ema|swa|avg|averaged?)(?![a-z])|(?<=[a-z])(?:EMA|Ema|SWA)(?![a-z])')
# torch.optim.swa_utils.AveragedModel counts its updates beside the weights.
_COUNTER = 'n_averaged'
# Left in a model's buffers by what counts its operations (thop).
_IGNORED = (_COUNTER, 'total_ops', 'total_params')
_DEEPEST = 20


class Weights(NamedTuple):
    """One set of weights of a file.

    Attributes:
      place: the keys that lead to the dict that holds it, with dots between; '' for the file's own.
      prefixes: what was taken off its names, each with its dot; () where nothing was.
      arrays: arrays or tensors by name.
      averaged: whether they are averages of the weights.
      left_out: names beside it in its dict that belong to no module of the model.
    """
    place: str
    prefixes: tuple[str, ...]
    arrays: dict[str, Any]
    averaged: bool
    left_out: tuple[str, ...]

    @property
    def title(self) -> str:
        """What a user can find it by."""
        prefix = self.prefixes[0] if self.prefixes else ''
        return '.'.join(filter(None, (self.place, prefix.rstrip('.')))) or 'the names without a prefix'


def choose(state_dict: Any, expected: Collection[str], ema: bool | None = None) -> tuple[Weights, tuple[Weights, ...]]:
    """The weights that are meant, and those of the other kind, raw or averaged, which are there beside them.

    Args:
      state_dict: what a file of weights holds.
      expected: the names that the model has.
      ema: True for averaged weights, False for raw ones; None for the raw ones where both are there.

    Raises:
      UserError: there are no weights, or not of the kind that is asked for, or several and no telling which is meant.
    """
    if not isinstance(state_dict, Mapping):
        raise UserError(f'a state_dict is a dict of arrays by name; this is of type {type(state_dict).__name__}')
    found = _all(state_dict, frozenset(expected))
    by_kind = [tuple(one for one in found if one.averaged is kind) for kind in (False, True)]
    wanted = bool(ema) if ema is not None else not by_kind[False]
    if not by_kind[wanted]:
        raise UserError(f'the state_dict holds no {("raw", "averaged")[wanted]} weights; what it holds is '
                        f'{("raw", "averaged")[not wanted]}: {_titles(by_kind[not wanted])}')
    if len(by_kind[wanted]) > 1:
        raise UserError(f'the state_dict holds several sets of weights, under {_titles(by_kind[wanted])}, and there is '
                        'no telling which is meant: save that one alone, and give that file')
    return by_kind[wanted][0], by_kind[not wanted]


def _titles(found: Collection[Weights]) -> str:
    return ' and '.join(one.title for one in found)


def _all(state_dict: Mapping, expected: frozenset[str]) -> list[Weights]:
    """Every set of weights that has about as many of the names as any; where none has half, the largest dict of arrays.

    Other models' blocks have some of the names too, under many prefixes.
    """
    dicts = dict(_dicts(state_dict, (), set()))
    found = [one for place, values in dicts.items() for one in _in_dict(place, values, expected)]
    most = max((_fit(one, expected) for one in found), default=0)
    if 2 * most >= len(expected):
        return [one for one in found if 2 * _fit(one, expected) >= most]
    place, values = max(dicts.items(), key=lambda pair: sum(map(_is_array, pair[1].values())))
    if not any(map(_is_array, values.values())):
        keys = ', '.join(map(repr, list(state_dict)[:10])) or 'none'
        raise UserError(f'the state_dict holds no arrays; its keys are {keys}')
    prefix = _common_prefix(values)
    return [Weights(place, (prefix,) if prefix else (), {name.removeprefix(prefix): value for name, value in
                                                         values.items()}, _says_averaged(place, prefix), ())]


def _fit(found: Weights, expected: frozenset[str]) -> int:
    return len(found.arrays.keys() & expected)


def _dicts(tree: Mapping, path: tuple[str, ...], seen: set[int]) -> Iterator[tuple[str, dict[str, Any]]]:
    """(place, what is no dict in it) of a dict and of all those in it, each once: a pickle may hold itself."""
    seen.add(id(tree))
    yield '.'.join(path), {str(name): value for name, value in tree.items() if not isinstance(value, Mapping)}
    for name, value in tree.items():
        if isinstance(value, Mapping) and id(value) not in seen and len(path) < _DEEPEST:
            yield from _dicts(value, (*path, str(name)), seen)


def _in_dict(place: str, values: dict[str, Any], expected: frozenset[str]) -> Iterator[Weights]:
    """The sets of weights in one flat dict: one for each prefix under which at least half as many names fit as can."""
    averaged = _COUNTER in values
    values = {name: value for name, value in values.items() if name.rpartition('.')[2] not in _IGNORED}
    counts = collections.Counter(prefix for name in values for prefix in _fitting(name, expected))
    most, roots = max(counts.values(), default=0), []
    for prefix, count in sorted(counts.items(), key=lambda pair: (-pair[1], len(pair[0]))):
        if 2 * count >= most and not any(prefix.startswith(root) for root in roots):
            roots.append(prefix)
    others = [name for name in values if not name.startswith(tuple(roots))]
    for root in roots:
        arrays = {name.removeprefix(root): value for name, value in values.items() if name.startswith(root)}
        prefixes, left = [root], set(others)
        while found := collections.Counter(p for name in left for p in _fitting(name, expected - arrays.keys())):
            prefixes.append(found.most_common(1)[0][0])
            taken = {name for name in left if prefixes[-1] in _fitting(name, expected - arrays.keys())}
            arrays |= {name.removeprefix(prefixes[-1]): values[name] for name in taken}
            left -= taken
        # Where something is missing it may be one of these: then they are shown among what does not fit.
        whole = arrays.keys() >= expected
        yield Weights(place, tuple(filter(None, prefixes)), arrays if whole else arrays | {n: values[n] for n in left},
                      averaged or _says_averaged(place, root), tuple(sorted(left)) if whole else ())


def _says_averaged(*names: str) -> bool:
    return any(map(_AVERAGED.search, names))


def _fitting(name: str, expected: Collection[str]) -> Iterator[str]:
    """Every prefix that leaves an expected name when it is taken off; '' too."""
    ends = [0, *(dot.end() for dot in re.finditer(r'\.', name))]
    return (name[:end] for end in ends if name[end:] in expected)


def _common_prefix(names: Collection[str]) -> str:
    """What all names begin with, up to a dot."""
    prefix, names = '', list(names)
    while names and len({name.partition('.')[0] for name in names}) == 1 and all('.' in name for name in names):
        first = names[0].partition('.')[0]
        prefix, names = f'{prefix}{first}.', [name.partition('.')[2] for name in names]
    return prefix


def _is_array(value) -> bool:
    return getattr(value, 'ndim', 0) > 0
