"""What a model sees of its images: batches as a run makes them, each image beside what becomes of it."""

import contextlib
import dataclasses
import itertools
from collections.abc import Callable, Iterator
from functools import partial

import jax
import numpy as np

from imagenet_jax import class_names, input_pipeline, inspection, models, sources, streams
from imagenet_jax.errors import UserError
from imagenet_jax.experiment import open_device_part, open_input
from imagenet_jax.images.batch import Drawn, draw
from imagenet_jax.images.decode import decode, image_size
from imagenet_jax.models.layers import DATA_AXIS
from imagenet_jax.preview import Pair
from imagenet_jax.run_options import Length, Options, length
from imagenet_jax.sources.upright import as_stored


def pairs(options: Options, split: str, first: int, count: int) -> list[Pair]:
    """At most `count` images, of several views (config.augment.views) each, from a batch on.

    Args:
      options: those of the run.
      split: 'train' or 'eval'.
      first: number of the batch, from 0.

    Raises:
      UserError: there is no such batch, none to look at, or what a run refuses.
    """
    source, batches, skipped, run = _batches(options, split, first)
    names = [class_names.shown(name, source.class_words) for name in inspection.classes(source)]
    with contextlib.closing(batches):
        see = _through_device(options, split, run)
        seen = map(see, itertools.count(first), itertools.islice(batches, skipped, None))
        rows = ((batch, row) for batch in seen
                for row in np.flatnonzero(batch.get('mask', batch['index'] >= 0)))
        found = (pair for batch, row in rows for pair in _pairs(source, names, batch, row))
        shown = list(itertools.islice(found, count))
    if not shown:
        raise UserError(f'--step {first}: the split has no batch of that number')
    return shown


def _batches(options: Options, split: str, first: int) -> tuple[sources.Source, Iterator[dict], int, Length]:
    """The split, host batches of it as a run makes them, how many of them lie before `first`, and the run's length."""
    model = models.from_section(options.model)
    data, augment, view = open_input(options)
    train, test = data.open_both(model.num_classes, augment.size)
    if train.draws:
        raise UserError(f'batches of {data.format} are made on the device; there is nothing to look at')
    run = length(options, len(train))
    if split == 'train':
        return train, input_pipeline.train_batches(train, augment, options.batch_size, options.seed, first,
                                                   data.workers), 0, run
    return test, input_pipeline.eval_batches(test, view.one, options.eval_batch_size, data.workers), first, run


def _through_device(options: Options, split: str, run: Length) -> Callable[[int, dict], dict]:
    """(step, host batch) -> the batch with its images as the model sees them there, as uint8 pixels again."""
    device_part = open_device_part(options, run)
    normalize = device_part.normalize

    def see(at, images):
        key = streams.step_key(streams.seed_key(options.seed), at)
        drawn = (draw(*device_part, partial(streams.stream, key), at, images.shape[1:3]) if split == 'train'
                 else Drawn(normalize))
        return normalize.undo(drawn.images(drawn.with_partners({'image': images}, DATA_AXIS)))
    on_one_device = jax.jit(jax.vmap(see, (None, 0), axis_name=DATA_AXIS))
    return lambda at, batch: batch | {'image': np.asarray(on_one_device(at, batch['image'][None])[0])}


def _pairs(source: sources.Source, names: list[str], batch: dict, row: int) -> list[Pair]:
    """One of an image, or one of each of its views."""
    if batch['image'].ndim == 4:
        return [_pair(source, names, batch, row)]
    pairs = [_pair(source, names, batch | {'image': views}, row) for views in batch['image'].swapaxes(0, 1)]
    return [dataclasses.replace(pair, title=f'{pair.title}, view {number} of {len(pairs)}')
            for number, pair in enumerate(pairs, 1)]


def _pair(source: sources.Source, names: list[str], batch: dict, row: int) -> Pair:
    index, bad, seen = int(batch['index'][row]), int(batch['bad'][row]), batch['image'][row]
    title, key = inspection.class_of(source, index, names), source.key(index)
    if bad == index:
        return Pair(seen, seen, title, f'unreadable: {key}')
    image = as_stored(source.image(index))
    stored, (height, width) = decode(image), image_size(image)
    note = f'{width} x {height}, {key}'
    return Pair(stored, seen, title, note if bad < 0 else f'{note} for unreadable {source.key(bad)}')
