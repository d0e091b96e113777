"""Draws what a model will see: images as they are stored, each beside what becomes of it on the host and the device.

    python -m imagenet_jax preview --config configs/imagenette_resnet18.py --output preview.png
    python -m imagenet_jax preview --config configs/resnet50.py --output preview.png --count 32 --step 1000 \\
        --config.augment.color_jitter=0.4
    python -m imagenet_jax preview --config configs/resnet50.py --output preview.png --split eval

  --config FILE        the recipe
  --config.NAME=VALUE  changes one option of it
  --output FILE        the picture, PNG by its ending, or another that Pillow writes
  --count N            images in it, 16 where not given; of several views (config.augment.views) each counts
  --step N             from which batch on: those that a run trains on at that step, the first where not given
  --split train|eval   train where not given

The device's part is computed here on the CPU; its normalising is undone at the end, so that colours are as usual.
"""

import contextlib
import dataclasses
import itertools
from collections.abc import Callable, Iterator
from functools import partial
from typing import NoReturn

import jax
import numpy as np
from absl import flags
from PIL import Image

from imagenet_jax import class_names, input_pipeline, inspection, models, runtime, sources, step
from imagenet_jax.command_line import recipes
from imagenet_jax.errors import UserError, expanded, writing
from imagenet_jax.experiment import open_device_part, open_input
from imagenet_jax.images.batch import Drawn, draw
from imagenet_jax.images.decode import decode, image_size
from imagenet_jax.models.layers import DATA_AXIS
from imagenet_jax.options import apply
from imagenet_jax.preview import Pair, sheet
from imagenet_jax.run_options import Length, Options, length
from imagenet_jax.sources.upright import as_stored

_OUTPUT = flags.DEFINE_string('output', None, 'the picture')
_COUNT = flags.DEFINE_integer('count', 16, 'images in it', 1, 400)
_STEP = flags.DEFINE_integer('step', 0, 'from which batch on', 0, 2**31 - 1)
_SPLIT = flags.DEFINE_enum('split', 'train', ['train', 'eval'], 'which images')


def main() -> NoReturn:
    """The whole command."""
    recipes.run(_run, __doc__)


def _run(argv: list[str]) -> None:
    runtime.keep_to_cpu()
    _preview(recipes.config(argv))


def _preview(config) -> None:
    if not _OUTPUT.value:
        raise UserError('where should the picture go? Give --output, such as --output preview.png')
    output = expanded(_OUTPUT.value)
    if output.suffix.lower() not in Image.registered_extensions():
        raise UserError(f'--output {output}: name a picture, such as {output.with_suffix(".png")}')
    options = apply(Options, config, 'config')
    source, batches, skipped, run = _batches(options)
    names = [class_names.shown(name, source.class_words) for name in inspection.classes(source)]
    with contextlib.closing(batches):
        see = _through_device(options, run)
        seen = map(see, itertools.count(_STEP.value), itertools.islice(batches, skipped, None))
        rows = ((batch, row) for batch in seen
                for row in np.flatnonzero(batch.get('mask', batch['index'] >= 0)))
        pairs = (pair for batch, row in rows for pair in _pairs(source, names, batch, row))
        shown = list(itertools.islice(pairs, _COUNT.value))
    if not shown:
        raise UserError(f'--step {_STEP.value}: the split has no batch of that number')
    heading = f'{recipes.name()}, {_SPLIT.value}, step {_STEP.value}'
    with writing(output):
        sheet(shown, heading).save(output)
    print(f'{len(shown)} images are in {output}')


def _batches(options: Options) -> tuple[sources.Source, Iterator[dict], int, Length]:
    """The split, host batches of it as a run makes them, how many of them lie before --step, and the run's length."""
    model = models.from_section(options.model)
    data, augment, view = open_input(options)
    train, test = data.open_both(model.num_classes, augment.size)
    if train.draws:
        raise UserError(f'batches of {data.format} are made on the device; there is nothing to look at')
    run = length(options, len(train))
    if _SPLIT.value == 'train':
        return train, input_pipeline.train_batches(train, augment, options.batch_size, options.seed, _STEP.value,
                                                   data.workers), 0, run
    return test, input_pipeline.eval_batches(test, view, options.eval_batch_size, data.workers), _STEP.value, run


def _through_device(options: Options, run: Length) -> Callable[[int, dict], dict]:
    """(step, host batch) -> the batch with its images as the model sees them there, as uint8 pixels again."""
    device_part = open_device_part(options, run)
    normalize = device_part.normalize

    def see(at, images):
        key = step.step_key(jax.random.key(options.seed), at)
        drawn = (draw(*device_part, partial(step.stream, key), at, images.shape[1:3]) if _SPLIT.value == 'train'
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
