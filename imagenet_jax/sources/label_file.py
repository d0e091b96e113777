"""Labels of images that lie in one folder without class folders: a table in it or beside it.

    root/val/ILSVRC2012_val_00000001.JPEG     root/val.csv, or such as val_labels.csv, LOC_val_solution.csv, labels.csv
    root/val/images/val_0.JPEG                root/val/val_annotations.txt (Tiny ImageNet), or any .csv there

A row has the name of an image, with or without its ending or its folder, and of its class; further columns are passed
over. Tabs, commas, semicolons or blanks separate them. A first row that names no image is the header.
"""

import csv
import io
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from imagenet_jax.errors import UserError
from imagenet_jax.sources.shards import spellings

# Names that one split goes by.
ALIASES = ({'train', 'training'}, {*spellings('val')}, {'test', 'testing'})
_TABLES, _TEXTS = ('.csv', '.tsv'), ('.csv', '.tsv', '.txt')
_OF_ANY_SPLIT = ('labels', 'annotations', 'metadata')
_GUESSES = {'sample', 'submission', 'predictions'}  # of Kaggle's test sets
# Headers of the column of classes, without what is no letter; the first that is there.
_CLASS = ('wnid', 'synset', 'class', 'classname', 'label', 'labelname', 'category', 'target', 'predictionstring',
          'breed', 'species', 'classid', 'labelid')
_LARGEST = 1 << 28  # bytes; ImageNet's training images would take a fifth of it
_TRIED = 1000  # rows that say which column names the images


def find(folder: Path) -> Path | None:
    """The table for the images that lie in a split's folder, or in its folder `images`.

    Raises:
      UserError: several files may be it.
    """
    found = candidates(folder)
    if len(found) > 1:
        raise UserError(f'{" and ".join(map(str, sorted(found)[:4]))} may each say the classes of the images in '
                        f'{folder}; keep one of them there')
    return found[0] if found else None


def candidates(folder: Path) -> list[Path]:
    """The tables that are nearest by place and name."""
    folder = Path(os.path.abspath(folder))
    inside, beside = [*_files(folder), *_files(folder / 'images')], _files(folder.parent)
    # Of ImageNet as Kaggle has it, three folders above ILSVRC/Data/CLS-LOC/val.
    kaggle = [file for up in folder.parents[1:4] for file in [up / f'LOC_{folder.name}_solution.csv'] if file.is_file()]
    nearest = ([file for file in inside if _names_split(file, folder.name)],
               [file for file in inside if file.suffix.lower() in _TABLES],
               [file for file in beside if _names_split(file, folder.name)], kaggle[:1],
               [file for file in beside if file.stem.lower() in _OF_ANY_SPLIT and file.suffix.lower() in _TABLES])
    return next(filter(None, nearest), [])


def _files(folder: Path) -> list[Path]:
    return [file for file in (folder.iterdir() if folder.is_dir() else ())
            if file.suffix.lower() in _TEXTS and not file.name.startswith('.')
            and not _GUESSES & set(_words(file.stem)) and file.is_file()]


def _words(text: str) -> list[str]:
    return re.split('[^a-z0-9]+', text.lower())


def _names_split(file: Path, split: str) -> bool:
    names = next((names for names in ALIASES if split in names), {split.lower()})
    # train.txt is data.format=list, whose labels are numbers.
    return bool(names & set(_words(file.stem))) and not (file.suffix == '.txt' and file.stem in names)


def read(file: Path, folder: Path, images: Sequence[str]) -> list[str]:
    """The class of each image.

    Args:
      file: the table.
      folder: where the images are.
      images: their paths below it.

    Raises:
      UserError: the table is none, lacks images, has some that are not there (unless it may be another split's too), or
        says two classes of one.
    """
    rows, places = _rows(file), _places(folder, images)
    image_at, rows, class_at = _columns(file, folder, rows, places)
    classes, strangers, lines = [''] * len(images), [], [0] * len(images)
    for line, row in rows:
        if max(image_at, class_at) >= len(row) or not row[class_at]:
            raise UserError(f'{file}:{line}: {",".join(row)[:80]!r} does not have an image and its class')
        place = places.get(_path(row[image_at]))
        if place is None:
            strangers.append(f'{row[image_at][:80]!r} in line {line}')
            continue
        name = _class(f'{file}:{line}', row[class_at])
        if classes[place] not in ('', name):
            raise UserError(f'{file}: {images[place]} is {classes[place]!r} in line {lines[place]} and {name!r} in '
                            f'line {line}; an image has one class')
        classes[place], lines[place] = name, line
    if strangers and file.stem.lower() not in _OF_ANY_SPLIT:
        raise UserError(f'{file} has {len(strangers)} images that are not in {folder}, the first {strangers[0]}: '
                        'the folder is not whole, or the table is of another one')
    if '' in classes:
        raise UserError(f'{file} does not say the classes of {classes.count("")} of the {len(images)} images in '
                        f'{folder}, the first {images[classes.index("")]}')
    return classes


def _rows(file: Path) -> list[tuple[int, list[str]]]:
    """(line, fields) of each row that is not empty."""
    text = _text(file)
    first = next((line for line in text.splitlines() if line.strip()), '')
    between = max('\t;, ', key=lambda mark: (mark != ' ' and first.count(mark), mark == ' '))
    try:
        reader = csv.reader(io.StringIO(text, newline=''), delimiter=between, skipinitialspace=True)
        rows = [(reader.line_num, [field.strip() for field in row]) for row in reader]
    except csv.Error as error:
        raise UserError(f'{file} cannot be read as a table of images and classes: {error}') from error
    rows = [row for row in rows if any(row[1])]
    if not rows:
        raise UserError(f'{file} is empty; expected a row of image and class for each image')
    return rows


def _text(file: Path) -> str:
    try:
        if file.stat().st_size > _LARGEST:
            raise UserError(f'{file} has {file.stat().st_size:,} bytes, too many for a table of images or classes')
        data = file.read_bytes()
        return data.decode('utf-16' if data[:2] in (b'\xff\xfe', b'\xfe\xff') else 'utf-8-sig')
    except (OSError, UnicodeError) as error:
        raise UserError(f'{file} cannot be read as text: {error}') from error


def lines(file: Path) -> list[str]:
    """A text file's lines that are not blank. Raises UserError."""
    return [line for line in _text(file).splitlines() if line.strip()]


def _path(text: str) -> str:
    return text.replace('\\', '/').removeprefix('./')


def _places(folder: Path, images: Sequence[str]) -> dict[str, int]:
    """What a row may call an image -> its place; a name without ending only where one image has it."""
    places, shared = {}, set()
    for place, image in enumerate(images):
        for called in (image, f'{folder.name}/{image}', image.rpartition('/')[2]):
            places[called] = place
            short = called.rpartition('.')[0]
            if places.setdefault(short, place) != place:
                shared.add(short)
    whole = set(images)
    return {called: place for called, place in places.items() if called in whole or called not in shared}


def _columns(file: Path, folder: Path, rows: list, places: Mapping[str, int]) -> tuple[int, list, int]:
    """The column of images, the rows below the header, the column of classes."""
    hits = [sum(at < len(row) and _path(row[at]) in places for _, row in rows[:_TRIED])
            for at in range(max(len(row) for _, row in rows[:_TRIED]))]
    image_at = hits.index(max(hits))
    if not hits[image_at]:
        raise UserError(f'{file}: none of its first rows names an image in {folder}, such as {next(iter(places))}; '
                        f'line {rows[0][0]} is {",".join(rows[0][1])[:80]!r}')
    (line, first), others = rows[0], [at for at in range(len(rows[0][1])) if at != image_at]
    if not others:
        raise UserError(f'{file}:{line} has one column; expected an image and its class in each row')
    # A header says no file: one with a digit or an ending may be an image that is not there.
    if len(first) > image_at and (_path(first[image_at]) in places or re.search(r'[\d.]', first[image_at])):
        return image_at, rows, image_at + 1 if image_at + 1 in others else others[-1]
    named = {re.sub('[^a-z]', '', first[at].lower()): at for at in others}
    known = [named[name] for name in _CLASS if name in named] or others
    if len(known) > 1 and known is others:
        raise UserError(f'{file}:{line}: which column has the classes? There are {", ".join(first)[:200]}; call one '
                        'class')
    return image_at, rows[1:], known[0]


def _class(place: str, text: str) -> str:
    """A class; of Kaggle's `class left top right bottom class left ...` the one that all boxes have."""
    words = text.split()
    boxed = len(words) % 5 == 0 and all(re.fullmatch(r'-?\d+(\.\d*)?', w) for i, w in enumerate(words) if i % 5)
    if not boxed:
        return text
    if len(set(words[::5])) > 1:
        raise UserError(f'{place}: boxes of several classes, {", ".join(sorted(set(words[::5]))[:5])}; an image has '
                        'one')
    return words[0]
