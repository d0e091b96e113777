"""Layouts on disk behind one interface: a random-access, labelled source. One file a layout."""

import contextlib
import os
from collections.abc import Iterator

import numpy as np

from imagenet_jax import options as option_lib
from imagenet_jax.errors import UserError, beside, expanded, unknown
from imagenet_jax.sources.array_record import ArrayRecord
from imagenet_jax.sources.base import Source
from imagenet_jax.sources.cifar import Cifar
from imagenet_jax.sources.digits import Digits
from imagenet_jax.sources.flat import Flat
from imagenet_jax.sources.folder import Folder
from imagenet_jax.sources.holdout import check_fraction, hold_out
from imagenet_jax.sources.ilsvrc2012 import Ilsvrc2012
from imagenet_jax.sources.image_list import ImageList
from imagenet_jax.sources.lmdb import Lmdb
from imagenet_jax.sources.parquet import Parquet
from imagenet_jax.sources.shards import spellings
from imagenet_jax.sources.synthetic import Synthetic
from imagenet_jax.sources.tfds import Tfds
from imagenet_jax.sources.upright import UprightSource
from imagenet_jax.sources.voc import Voc
from imagenet_jax.sources.webdataset import WebDataset

_SOURCES = {'folder': Folder, 'flat': Flat, 'list': ImageList, 'array_record': ArrayRecord, 'ilsvrc2012': Ilsvrc2012,
            'parquet': Parquet, 'webdataset': WebDataset, 'tfds': Tfds, 'lmdb': Lmdb, 'cifar': Cifar, 'voc': Voc,
            'digits': Digits, 'synthetic': Synthetic}
# More is a label that is no class number: commands make a name for each.
_MOST_CLASSES = 1_000_000
# What a split to evaluate on is called.
_TO_EVALUATE = spellings('val')


def names() -> list[str]:
    """Every format name."""
    return list(_SOURCES)


def formats_at(path: str, split: str) -> list[str]:
    """The formats that `path` holds a split in; those that only name images last."""
    present = [name for name, source in _SOURCES.items() if source.is_at(path, split)]
    return sorted(present, key=lambda name: _SOURCES[name].refers)


def create(format: str, path: str, split: str, num_classes: int | None = None, size: int = 224, *,
           holdout: float = 0.0, train_split: str = 'train', eval_split: str = 'val', exif: bool = False,
           **options) -> Source:
    """Opens one split of a data set and checks it.

    Args:
      format: one of `names()`.
      path: the data set's root.
      split: such as 'train'; each layout's docstring says how it is found.
      num_classes: what labels must stay under; None: as many as the data has.
      size: side in pixels of the images of a source that makes its own.
      holdout: fraction of the training images that is split `eval_split`; `train_split` has the others. 0: none.
      train_split, eval_split: names of these two; where there is no such split, the root ('') holds the images.
      exif: whether images are decoded upright, and not as they are stored.
      **options: the layout's own.

    Raises:
      UserError: an unknown format; a path, split or class that is missing or cannot be read; an empty split; labels
        outside 0..num_classes-1; files of two formats; a `holdout` beside a split to evaluate on.
    """
    check_fraction(option_lib.checked('config.data.holdout', holdout, float))
    if holdout and split in (train_split, eval_split):
        with _reading(path):
            whole = _undivided(format, path, train_split, eval_split)
        whole = create(format, path, whole, num_classes, size, exif=exif, **options)
        return hold_out(whole, holdout, split == eval_split)
    if format not in _SOURCES:
        raise unknown('data.format', format, names())
    if _SOURCES[format].on_disk and not path:
        raise UserError(f'config.data.format={format} needs config.data.path, the root of the data set')
    with _reading(path):
        present = formats_at(path, split)
    copies = [name for name in present if not _SOURCES[name].refers]
    if format in copies and len(copies) > 1:
        raise UserError(f'{path} holds split {split!r} in two formats, {" and ".join(copies)}; keep one of them there')
    if _SOURCES[format].on_disk and format not in present and present:
        raise UserError(f'{path} holds split {split!r} as {present[0]}, not as {format}: set '
                        f'config.data.format={present[0]}')
    made = {'num_classes': num_classes, 'size': size}  # for a source that makes its images
    given = {name: value for name, value in made.items() if name in option_lib.reads(_SOURCES[format])}
    with _reading(path):
        source = option_lib.create(_SOURCES, {'format': format, **options}, 'config.data', key='format', path=path,
                                   split=split, **given)
    if not len(source):
        raise UserError(f'{path}: split {split!r} is empty')
    _check_labels(source, path, split, num_classes)
    upright = option_lib.checked('config.data.exif', exif, bool)
    return UprightSource(source) if upright and not source.draws else source


@contextlib.contextmanager
def _reading(path: str) -> Iterator[None]:
    """While entered, an OSError means that something in the data set cannot be read, such as a folder of others; where
    there is nothing at `path`, an error goes on with what is beside it.
    """
    root = expanded(path)
    try:
        yield
    except OSError as error:
        raise UserError(f'{path} cannot be read: {error}') from error
    except UserError as error:
        if not path or os.path.lexists(root) or len(os.fsencode(root.name)) > 255:
            raise
        raise UserError(f'{error}. {root} does not exist; {beside(root)}') from error


def _undivided(format: str, path: str, train_split: str, eval_split: str) -> str:
    """The split that a fraction is held out of."""
    source = _SOURCES.get(format)
    if train_split == eval_split:
        raise UserError(f'config.data.holdout needs two names: train_split and eval_split are both {train_split!r}')
    if source and not source.on_disk:
        raise UserError(f'config.data.holdout is not for {format}, which has splits of its own; TFDS also slices them, '
                        'such as train[:90%] and train[90%:]')
    for name in dict.fromkeys((eval_split, *_TO_EVALUATE)):
        if source and name != train_split and source.is_at(path, name):
            raise UserError(f'config.data.holdout is for data without a split to evaluate on, and {path} has split '
                            f'{name!r}: leave holdout at 0 and set config.data.eval_split={name}; in a command, '
                            '--option holdout=0')
    return '' if source and not source.is_at(path, train_split) and source.is_at(path, '') else train_split


def _check_labels(source: Source, path: str, split: str, num_classes: int | None):
    if source.multi_label:
        classes = source.num_labels
        if num_classes not in (None, classes):
            raise UserError(f'{path}, split {split!r}, has {classes} labels an image, not {num_classes}: '
                            f'set config.model.num_classes={classes}')
        bad = ~(np.isnan(source.labels) | np.isin(source.labels, (0, 1))).all(axis=1)
        if bad.any():
            raise UserError(f'{bad.sum()} images of {path}, split {split!r}, have labels other than 0, 1 and NaN, the '
                            f'first {source.key(int(bad.argmax()))}')
        return
    if num_classes is None:
        num_classes = min(max(len(source.class_names), source.num_labels, 1), _MOST_CLASSES)
    bad = (source.labels < 0) | (source.labels >= num_classes)
    if bad.any():
        first, classes = int(bad.argmax()), len(source.class_names) or source.num_labels
        raise UserError(
            f'{bad.sum()} labels of {path}, split {split!r}, are outside 0..{num_classes - 1}, the first '
            f'{source.labels[first]} at {source.key(first)}; ' + (
                'labels that are kept secret are -1: use another split' if (source.labels == -1).all()
                else f'the data has {classes} classes: set config.model.num_classes'))
