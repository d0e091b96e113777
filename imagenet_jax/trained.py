"""A trained model as its folder has it, ready to use: weights, view of an image, class names."""

import dataclasses
import logging
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import numpy as np

from imagenet_jax import catalog, models, record, runtime, weights
from imagenet_jax.checkpoint import load_variables
from imagenet_jax.class_names import are_numbers, first, match
from imagenet_jax.errors import UserError, expanded
from imagenet_jax.images.batch import Normalize
from imagenet_jax.images.decode import DecodeError
from imagenet_jax.images.eval_view import EvalView
from imagenet_jax.options import apply, create
from imagenet_jax.sources import Source
from imagenet_jax.sources.upright import Upright
from imagenet_jax.task import TASKS, Task
from imagenet_jax.workers import cores

log = logging.getLogger(__name__)

@dataclasses.dataclass(frozen=True)
class Trained:
    """A model and what goes with it.

    Attributes:
      model, variables: for `model.apply`; {'params', 'batch_stats'} are numpy arrays.
      view: encoded image -> uint8 pixels, on the host.
      normalize: uint8 batch -> what the model takes, on the device.
      task: what it was trained for.
      class_names: in the order of the model's outputs; () where unknown.
      class_words: of names that are ids, and none of ImageNet's 1000, what they mean: for `class_names.shown`.
      exif: whether images are turned as their EXIF says.
      entry: config.json.
    """
    model: nn.Module
    variables: dict
    view: EvalView
    normalize: Normalize
    task: Task
    class_names: tuple[str, ...]
    class_words: Mapping[str, str]
    exif: bool
    entry: Mapping


def load(folder: str | Path, *, best: bool = False, ema: bool = False, dtype: str | None = None,
         exif: bool | None = None, view: Mapping | None = None, normalize: Mapping | None = None) -> Trained:
    """The model of a run's folder, or of one that weights were imported to.

    Args:
      folder, best, ema: see `load_variables`.
      dtype: of the computation, where not the run's.
      exif: where not the run's config.data.exif.
      view: changes of the run's or the import's config.eval.
      normalize: changes of the run's or the import's config.normalize.

    Raises:
      UserError: no such folder, it is damaged, or options that cannot be.
    """
    folder = expanded(folder)
    options, variables = load_variables(folder, best=best, ema=ema)
    entry = record.read(folder)
    if 'dtype' in entry['model']:  # a run's, where it may be unset; an import is of float32
        options = {'dtype': entry.get('run', {}).get('dtype') or runtime.default_dtype()} | options
    model = apply(models.create, options | ({'dtype': dtype} if dtype else {}), 'model')
    weights.refuse_misfit(model, variables)
    return Trained(
        model, variables, apply(EvalView, _view(entry, view or {}), 'eval'),
        apply(Normalize, entry.get('normalize', {}) | dict(normalize or {}), 'normalize'),
        create(TASKS, entry['loss'], 'loss'),
        tuple(entry.get('run', {}).get('class_names', ())), entry.get('run', {}).get('class_words', {}),
        bool(entry.get('data', {}).get('exif')) if exif is None else exif, entry)


def import_view(name: str, **changes) -> dict[str, Any]:
    """The section `eval` of weights that come without one: the model's own size, and as much more as ImageNet's models
    are shown; `changes` are what is known better.
    """
    size = changes.get('size') or catalog.image_size(name)
    return {'size': size, 'resize': catalog.eval_resize(name, size), **changes}


def _view(entry: Mapping, changes: Mapping) -> dict[str, Any]:
    if 'data' in entry:
        return entry['eval'] | dict(changes)
    kept = entry.get('eval', {})
    if 'size' in changes and 'resize' not in changes:  # both grow alike: an import's crop is a part of the image
        kept = {name: value for name, value in kept.items() if name != 'resize'}
    return import_view(entry['model']['name'], **kept | dict(changes))


def renumber(source: Source, class_names: Sequence[str], num_classes: int, by_number: bool = False) -> Source:
    """The source with its labels in a model's order, matched by class name.

    Args:
      source: its classes may be in another order than the model's, or some of them. Names that are all whole numbers
        are the model's numbers, where it has no such names. Labels without names are taken by number, with a warning.
      class_names: the model's, () where unknown: by number too. Names that are all numbers tell no more than none.
      num_classes: of the model.
      by_number: labels without names are known to be the model's numbers, even where there are fewer.

    Returns:
      A source of labels 0..num_classes-1; in multi-label vectors, classes that `source` lacks are NaN.

    Raises:
      UserError: a name that the model does not know, names that several classes share where the order differs, labels
        that have no name or no output, or fewer classes than the model's without names to match them by.
    """
    theirs, ours = tuple(source.class_names), tuple(class_names)
    numbered = are_numbers(theirs)
    if theirs and not numbered and are_numbers(ours):
        ours = ()
    if not theirs or not (ours or numbered):
        _refuse_labels(source, num_classes, f'the model has {num_classes} outputs')
        if not by_number:
            _refuse_other_count(source, num_classes)
        log.warning('%s no class names: labels are taken by number, unchecked',
                    'the model has' if theirs else 'the data set has')
        return source
    _refuse_labels(source, len(theirs), f'{len(theirs)} classes have names')
    if theirs == ours:
        return source
    by_name = not numbered or are_numbers(ours)
    ours = ours or tuple(map(str, range(num_classes)))
    places = np.array(match(theirs, ours))
    log.info("labels are renumbered by class name%s: %d of the model's %d classes, %d of them under another number",
             '' if by_name else ', each a number of the model', len(theirs), len(ours),
             np.count_nonzero(places != np.arange(len(places))))
    return source.renumbered(places, ours, num_classes)


def _refuse_other_count(source, num_classes: int) -> None:
    """Without names on one side, as many classes as the model has are taken to be the same ones, in the same order."""
    names = source.class_names
    if (len(names) or source.num_labels) != num_classes:
        theirs = f'{len(names)} classes ({first(names)})' if names else f'labels up to {source.num_labels - 1}, unnamed'
        raise UserError(f'the data has {theirs}, and the model {num_classes} outputs, with no names to match them by: '
                        'say what they are, by --class-names of `weights import` or by names in the data, or give '
                        "--by-number where the labels are the model's numbers")


def _refuse_labels(source, count: int, why: str) -> None:
    found = source.num_labels
    if found > count or (source.multi_label and found != count):
        raise UserError(f'the data has labels up to {found - 1}, and {why}')


def predict(trained: Trained, files: Sequence[str | Path],
            batch_size: int) -> Iterator[tuple[str | Path, np.ndarray | str]]:
    """Each file with its classes' probabilities, float32 (K,), or with the reason why there are none."""
    apply_model = jax.jit(lambda variables, images: trained.task.probabilities(
        trained.model.apply(variables, trained.normalize(images), train=False)))
    variables = jax.device_put(trained.variables)
    batch = np.zeros((batch_size, trained.view.size, trained.view.size, 3), np.uint8)
    with ThreadPoolExecutor(cores()) as pool:
        for start in range(0, len(files), batch_size):
            part = files[start:start + batch_size]
            seen = list(pool.map(lambda file: _see(trained, file), part))
            for row, pixels in enumerate(seen):
                batch[row] = 0 if isinstance(pixels, str) else pixels
            probabilities = np.asarray(apply_model(variables, batch))
            for row, (file, pixels) in enumerate(zip(part, seen, strict=True)):
                if isinstance(pixels, str):
                    yield file, pixels
                elif not np.isfinite(probabilities[row]).all():
                    yield file, "the model's answer is not finite"
                else:
                    yield file, probabilities[row]


def _see(trained: Trained, file: str | Path) -> np.ndarray | str:
    try:
        image = Path(file).read_bytes()
        return trained.view(Upright(image) if trained.exif else image)
    except OSError as error:
        return f'cannot be read: {error.strerror or error}'
    except DecodeError as error:
        return f'cannot be read: {error}'
