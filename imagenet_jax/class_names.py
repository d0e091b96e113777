"""Class names: those of ImageNet's 1000 classes, and which class of a data set is which of a model.

ImageNet's classes go by many names: 'n01440764', its WordNet id, in folders and in TFDS; 'tench, Tinca tinca' in the
hub's Parquet files; 'tench' in Imagenette's. All of them are one class here. imagenet_classes.txt has the ids, in the
order of every published model's outputs, each with WordNet's words for it.
"""

import collections
import functools
from collections.abc import Collection, Mapping, Sequence
from importlib import resources
from types import MappingProxyType

from imagenet_jax.errors import UserError, few


@functools.cache
def imagenet() -> Mapping[str, str]:
    """WordNet id -> its words, such as {'n01440764': 'tench, Tinca tinca', ...}: 1000, in the order of outputs."""
    text = resources.files('imagenet_jax').joinpath('imagenet_classes.txt').read_text()
    return dict(line.split(' ', 1) for line in text.splitlines())


def of_published(num_classes: int) -> tuple[str, ...]:
    """Those of published weights that say nothing of their classes: ImageNet's where there are 1000, () where not."""
    return tuple(imagenet()) if num_classes == len(imagenet()) else ()


def readable(name: str, words: Mapping[str, str] = MappingProxyType({})) -> str:
    """'tench' for 'n01440764'; '' where it is no id of ImageNet's 1000, nor one that `words` has."""
    return (imagenet().get(name) or words.get(name, '')).partition(',')[0]


def shown(name: str, words: Mapping[str, str] = MappingProxyType({})) -> str:
    """'n01440764 tench' for 'n01440764'; any name that is not `readable` as it is."""
    return f'{name} {readable(name, words)}' if readable(name, words) else name


def titled(one: Mapping[str, str]) -> str:
    """'n01440764 tench' for {'class': 'n01440764', 'name': 'tench'}; the class alone where it has no name."""
    return ' '.join(filter(None, (one['class'], one.get('name'))))


def are_numbers(names: Collection[str]) -> bool:
    """Whether all names, of which there are some, are whole numbers such as '7' or '007'."""
    return bool(names) and all(name.isascii() and name.isdigit() for name in names)


def match(theirs: Sequence[str], ours: Sequence[str], whose: str = 'the model') -> tuple[int, ...]:
    """Of each of their classes its number in `ours`, by name or, where all their names are numbers, by these.

    Args:
      theirs: names of a data set's classes; all of ours or some, in any order.
      ours: those of a model's outputs.
      whose: what has these, for messages.

    Raises:
      UserError: some of theirs are none of ours; or several share a name, where the order differs. Shows both sides.
    """
    if tuple(theirs) == tuple(ours):
        return tuple(range(len(ours)))
    for known, asked in _namings(theirs, ours):
        place = {name: number for number, name in enumerate(known)}
        if all(name in place for name in asked):
            if len(place) < len(known) or len(set(asked)) < len(asked):
                raise UserError('several classes share a name, and the data has its classes in another order than '
                                f'{whose}: there is no telling which is which')
            return tuple(place[name] for name in asked)
    known = {*ours, *_as_imagenet(ours)}
    strangers = [name for name, wnid in zip(theirs, _as_imagenet(theirs), strict=True) if not {name, wnid} & known]
    strangers = strangers or list(theirs)
    raise UserError(f'{len(strangers)} of {len(theirs)} classes of the data are none of the {len(ours)} that {whose} '
                    f'knows, the first: {first(strangers)}; {whose} has {first(ours)}')


def _namings(theirs, ours):
    """(ours, theirs) as they are, as ImageNet's classes, and by number."""
    yield ours, theirs
    yield _as_imagenet(ours), _as_imagenet(theirs)
    if are_numbers(theirs):
        yield [int(name) for name in ours] if are_numbers(ours) else range(len(ours)), [int(name) for name in theirs]


def first(names: Sequence[str]) -> str:
    """The first five, for messages."""
    return few(list(map(repr, names)), 5)


def _as_imagenet(names: Sequence[str]) -> list[str]:
    """The id of each name that means one of ImageNet's classes; any other name as it is.

    'crane' is a bird and a machine: the order decides, where it is ImageNet's. Of all 1000 names it decides of words
    that are one class's name and another's first, too: 'maillot'.
    """
    ids = list(imagenet())
    found = []
    for number, name in enumerate(names):
        meanings = _meanings(name)
        meant = meanings[0] if meanings else []
        here = ids[number] if number < len(ids) else None
        in_order = here in meant or (len(names) == len(ids) and any(here in each for each in meanings))
        found.append(here if in_order else meant[0] if len(meant) == 1 else name)
    return found


def _meanings(name: str) -> list[list[str]]:
    """Ids that a name may mean, the nearest meaning first."""
    plain = _plain(name)
    return [table[form] for form in (plain, plain.casefold()) for table in _meant() if form in table]


def _plain(name: str) -> str:
    return ' '.join(name.replace('_', ' ').replace(',', ' ').split())


@functools.cache
def _meant() -> tuple[Mapping[str, list[str]], ...]:
    """Name -> ids: of ids and all words together, of the first words, of any; as written and without capitals."""
    whole, first, each = (collections.defaultdict(list) for _ in range(3))
    for wnid, words in imagenet().items():
        for table, names in ((whole, [wnid, words]), (first, words.split(', ')[:1]), (each, words.split(', '))):
            names = list(map(_plain, names))
            for name in dict.fromkeys((*names, *map(str.casefold, names))):
                table[name].append(wnid)
    return whole, first, each
