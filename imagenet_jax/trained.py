"""A trained model as its folder has it, ready to use: weights, view of an image, class names."""

import dataclasses
import logging
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import flax.linen as nn
import jax
import numpy as np

from imagenet_jax import models, record, runtime, weights
from imagenet_jax.checkpoint import load_variables
from imagenet_jax.errors import UserError, expanded
from imagenet_jax.images.batch import Normalize
from imagenet_jax.images.decode import DecodeError
from imagenet_jax.images.eval_view import EvalView
from imagenet_jax.options import apply, create
from imagenet_jax.sources import Source
from imagenet_jax.task import TASKS, Task
from imagenet_jax.workers import cores

log = logging.getLogger(__name__)

# What an import's folder does not say: how ImageNet's models see an image.
_VIEW = {'size': 224, 'resize': 256}


@dataclasses.dataclass(frozen=True)
class Trained:
    """A model and what goes with it.

    Attributes:
      model, variables: for `model.apply`; {'params', 'batch_stats'} are numpy arrays.
      view: encoded image -> uint8 pixels, on the host.
      normalize: uint8 batch -> what the model takes, on the device.
      task: what it was trained for.
      class_names: in the order of the model's outputs; () where unknown.
      entry: config.json.
    """
    model: nn.Module
    variables: dict
    view: EvalView
    normalize: Normalize
    task: Task
    class_names: tuple[str, ...]
    entry: Mapping


def load(folder: str | Path, *, best: bool = False, ema: bool = False, dtype: str | None = None,
         view: Mapping | None = None, normalize: Mapping | None = None) -> Trained:
    """The model of a run's folder, or of one that weights were imported to.

    Args:
      folder, best, ema: see `load_variables`.
      dtype: of the computation, where not the run's.
      view: changes of the run's config.eval, or of 224 pixels out of 256.
      normalize: changes of the run's config.normalize, or of ImageNet's.

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
        model, variables, apply(EvalView, _VIEW | entry.get('eval', {}) | dict(view or {}), 'eval'),
        apply(Normalize, entry.get('normalize', {}) | dict(normalize or {}), 'normalize'),
        create(TASKS, entry['loss'], 'loss'),
        tuple(entry.get('run', {}).get('class_names', ())), entry)


def renumber(source: Source, class_names: Sequence[str], num_classes: int) -> Source:
    """The source with its labels in a model's order, matched by class name.

    Args:
      source: its classes may be in another order than the model's, or some of them. Where it has no names, labels are
        taken by number, with a warning.
      class_names: the model's, () where unknown: by number too.
      num_classes: of the model.

    Returns:
      A source of labels 0..num_classes-1; in multi-label vectors, classes that `source` lacks are NaN.

    Raises:
      UserError: a name that the model does not know, names that several classes share where the order differs, or
        labels that have no name or no output.
    """
    theirs, ours = tuple(source.class_names), tuple(class_names)
    if not theirs or not ours:
        log.warning('%s no class names: labels are taken by number, unchecked',
                    'the model has' if theirs else 'the data set has')
    if not theirs or not ours or theirs == ours:
        _refuse_labels(source, num_classes, f'the model has {num_classes} outputs')
        return source
    place = {name: i for i, name in enumerate(ours)}
    strangers = [name for name in theirs if name not in place]
    if strangers:
        raise UserError(f'{len(strangers)} of {len(theirs)} classes of the data are none of the {len(ours)} that the '
                        f'model knows, the first: {", ".join(map(repr, strangers[:5]))}; the model has '
                        f'{", ".join(map(repr, ours[:5]))}{", ..." if len(ours) > 5 else ""}')
    if len(place) < len(ours) or len(set(theirs)) < len(theirs):
        raise UserError('several classes share a name, and the data has its classes in another order than the model: '
                        'there is no telling which is which')
    _refuse_labels(source, len(theirs), f'{len(theirs)} classes have names')
    places = np.array([place[name] for name in theirs])
    log.info("labels are renumbered by class name: %d of the model's %d classes, %d of them under another number",
             len(theirs), len(ours), np.count_nonzero(places != np.arange(len(places))))
    return source.renumbered(places, ours, num_classes)


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
            seen = list(pool.map(lambda file: _see(trained.view, file), part))
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


def _see(view, file: str | Path) -> np.ndarray | str:
    try:
        return view(Path(file).read_bytes())
    except OSError as error:
        return f'cannot be read: {error.strerror or error}'
    except DecodeError as error:
        return f'cannot be read: {error}'
