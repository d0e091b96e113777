"""A trained model as its folder has it, ready to use: weights, view of an image, class names."""

import dataclasses
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import flax.linen as nn
import numpy as np

from imagenet_jax import models, pretrained, record, runtime, weight_files, weights
from imagenet_jax.answer import Answer
from imagenet_jax.checkpoint import load_variables
from imagenet_jax.class_names import are_numbers, first, match
from imagenet_jax.errors import UserError, expanded
from imagenet_jax.images.batch import Normalize
from imagenet_jax.images.eval_view import EvalView
from imagenet_jax.options import apply, create
from imagenet_jax.sources import Source
from imagenet_jax.task import TASKS, Task

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

    @property
    def answer(self) -> Answer:
        """What it says of images, from its view and variables."""
        return Answer(model=self.model, normalize=self.normalize, view=self.view, task=self.task)


def load(source: str | Path, *, best: bool = False, ema: bool = False, dtype: str | None = None,
         exif: bool | None = None, view: Mapping | None = None, normalize: Mapping | None = None,
         model: str | Mapping | None = None) -> Trained:
    """The model of a run's folder, of one that weights were imported to, or of weights as they are published.

    Args:
      source: the folder, or whatever `weight_files.find` takes: a file, a folder with one, hf:OWNER/NAME. Those are
        read by `pretrained.read`, with what their files say of them.
      best, ema: see `load_variables`.
      dtype: of the computation, where not the run's.
      exif: where not the run's config.data.exif.
      view: changes of the run's or the import's config.eval.
      normalize: changes of the run's or the import's config.normalize.
      model: name of the model, or its options and `name`, of weights that do not say it.

    Raises:
      UserError: no such folder, it is damaged, or options that cannot be.
    """
    if weight_files.names_weights(source):
        section = {'name': model} if isinstance(model, str) else model
        found = pretrained.read(source, model=section, view=view, normalize=normalize, best=best, ema=ema or None)
        entry, variables = record.upgrade(found.entry), found.variables
        options = entry['model']
    elif model is not None:
        raise UserError(f'{source} is no file of weights, which alone need a model=')
    else:
        source = expanded(source)
        options, variables = load_variables(source, best=best, ema=ema)
        entry = record.read(source)
    if 'dtype' in entry['model']:  # a run's, where it may be unset; an import is of float32
        options = {'dtype': entry.get('run', {}).get('dtype') or runtime.default_dtype()} | options
    made = apply(models.create, options | ({'dtype': dtype} if dtype else {}), 'model')
    weights.refuse_misfit(made, variables)
    return Trained(
        made, variables, apply(EvalView, _view(entry, view or {}), 'eval'),
        apply(Normalize, entry.get('normalize', {}) | dict(normalize or {}), 'normalize'),
        create(TASKS, entry['loss'], 'loss'),
        tuple(entry.get('run', {}).get('class_names', ())), entry.get('run', {}).get('class_words', {}),
        bool(entry.get('data', entry).get('exif')) if exif is None else exif, entry)


def _view(entry: Mapping, changes: Mapping) -> dict[str, Any]:
    kept = entry.get('eval', {})
    if 'data' not in entry:
        return pretrained.import_view(entry['model']['name'], kept, changes)
    if 'resize' in changes:  # the ratio would hold instead
        kept = {name: value for name, value in kept.items() if name != 'crop_ratio'}
    return kept | dict(changes)


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
