"""PyTorch's state_dict <-> Flax variables.

A module's path is its PyTorch path, so that one rule moves the weights of every model:

    Flax                          PyTorch
    kernel (..., inputs, outputs) weight (outputs, inputs, ...), of dense layers and of convolutions of any groups
    scale                         weight
    mean, var                     running_mean, running_var, and num_batches_tracked, which Flax does not have
    any other name                the same

A model tells its exceptions by two attributes, either of which it may lack:

    flattens  {PyTorch's path of a dense layer: (C, H, W)}, where a flattened convolution feeds it: PyTorch orders its
              inputs C, H, W, and we H, W, C
    renames   {our path, of a module or an array: PyTorch's}
"""

import collections
import logging
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np

from imagenet_jax import catalog, foreign_names, models, state_dicts
from imagenet_jax.errors import UserError, first_line

log = logging.getLogger(__name__)

_LEAVES = {'kernel': 'weight', 'scale': 'weight', 'mean': 'running_mean', 'var': 'running_var'}
_COUNTER = 'num_batches_tracked'
# Shapes depend on the image's size where a convolution is flattened: ImageNet's and CIFAR's.
_IMAGE_SIZES = (224, 32)
# Of arrays that do not fit: how many models they are held against, what part of a model's arrays must be there to name
# it, and what part may differ for them to be taken for those of the model that was asked for.
_TRACED, _ALIKE, _NEARLY = 4, 0.8, 0.15


class _Array(NamedTuple):
    """One array of a model: its Flax path from the collection on, its Flax shape, and (C, H, W) where flattened."""
    path: tuple[str, ...]
    shape: tuple[int, ...]
    flattened: tuple[int, int, int] | None

    @property
    def torch_shape(self) -> tuple[int, ...]:
        return (*self.shape[:-3:-1], *self.shape[:-2]) if self.path[-1] == 'kernel' else self.shape

    def from_torch(self, value: np.ndarray) -> np.ndarray:
        if self.flattened:
            value = value.reshape(-1, *self.flattened).transpose(0, 2, 3, 1).reshape(value.shape)
        if self.path[-1] == 'kernel':
            value = np.moveaxis(value, (1, 0), (-2, -1))
        return value.copy(order='C')

    def to_torch(self, value: np.ndarray) -> np.ndarray:
        if self.path[-1] == 'kernel':
            value = np.moveaxis(value, (-2, -1), (1, 0))
        if self.flattened:
            c, h, w = self.flattened
            value = value.reshape(-1, h, w, c).transpose(0, 3, 1, 2).reshape(value.shape)
        return value.copy(order='C')


def from_torch(model: nn.Module, state_dict: Mapping[str, Any], ema: bool | None = None) -> dict[str, dict]:
    """Variables of `model` with the weights of a PyTorch state_dict.

    Args:
      model: from `models.create`.
      state_dict: arrays or tensors by name. It may lie inside a training script's checkpoint, and its names may carry
        prefixes, such as those of DataParallel, torch.compile and Lightning.
      ema: True for averaged weights, False for raw ones; None for the raw ones where both are there.

    Returns:
      {'params', 'batch_stats'}, float32 numpy arrays.

    Raises:
      UserError: names every array that is missing, unexpected, of another shape, or not of finite numbers, and first
        the registered models that have such arrays; or the weights that are asked for are not there.
    """
    expected = _arrays(model)
    found = _chosen(state_dict, expected, ema)
    counters = _counters(expected)
    shapes = {name: _shape(value) for name, value in found.items() if name not in counters}
    if misfits := _misfits(shapes, {name: array.torch_shape for name, array in expected.items()}):
        nearly = len(misfits) <= _NEARLY * len(expected)  # then it is of this model, and no other has to be traced
        told = _differing_head(model, shapes) if nearly else _likeness(shapes)
        raise UserError('\n'.join([f'the state_dict does not fit {type(model).__name__}: {told}', *misfits]))
    values = {name: _float32(name, found[name]) for name in expected}
    # Here, since it need not show later: compiled for a CPU, the mean of a ReLU may take NaN for 0.
    if spoiled := [f'  {name}' for name, value in sorted(values.items()) if not np.isfinite(value).all()]:
        raise UserError('\n'.join(['the state_dict holds NaN or infinity, in', *spoiled]))
    flat = {array.path: array.from_torch(values[name]) for name, array in expected.items()}
    return {'params': {}, 'batch_stats': {}, **flax.traverse_util.unflatten_dict(flat)}


def to_torch(model: nn.Module, variables: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """The inverse of `from_torch`: float32 arrays by PyTorch name, and an int64 zero for each count of batches.

    Raises:
      UserError: names every variable that is missing, unexpected or of another shape.
    """
    expected = _arrays(model)
    found = _fitting(model, expected, variables)
    state_dict = {name: array.to_torch(_float32(name, found[array.path])) for name, array in expected.items()}
    return state_dict | {name: np.zeros((), np.int64) for name in _counters(expected)}


def classes_of(model: nn.Module, state_dict: Mapping[str, Any]) -> int:
    """How many classes the head of a state_dict of such a model has; 0 where it has no head."""
    expected = _arrays(model)
    found = foreign_names.renamed(state_dicts.choose(state_dict, expected)[0].arrays, expected)
    sizes = {_shape(found[name])[0] for name in _head(model) if _shape(found.get(name, 0))}
    return min(sizes, default=0)


def likeness(state_dict: Mapping[str, Any]) -> str:
    """Which registered model a state_dict is of as its arrays look, for a message."""
    found = state_dicts.choose(state_dict, {''})[0].arrays
    return _likeness({name: _shape(value) for name, value in found.items() if not name.endswith(f'.{_COUNTER}')})


def without_head(model: nn.Module, variables: Mapping[str, Any]) -> dict[str, dict]:
    """The variables but those that the model lacks with `num_classes=0`."""
    head = {array.path for array in _head(model).values()}
    flat = flax.traverse_util.flatten_dict(variables)
    return flax.traverse_util.unflatten_dict({path: value for path, value in flat.items() if path not in head})


def with_classes(model: nn.Module, variables: Mapping[str, Any], places: Sequence[int]) -> dict[str, dict]:
    """The variables with the classes in another order: class i is what class places[i] was."""
    flat, head = flax.traverse_util.flatten_dict(variables), {array.path for array in _head(model).values()}
    order = np.asarray(places)
    return flax.traverse_util.unflatten_dict({  # classes are the last axis of kernels and of biases
        path: np.asarray(value)[..., order] if path in head else value for path, value in flat.items()})


def head_names(model: nn.Module) -> tuple[str, ...]:
    """Paths of the parameters that the model lacks with `num_classes=0`, such as fc/kernel."""
    return tuple('/'.join(array.path[1:]) for array in _head(model).values())


def refuse_misfit(model: nn.Module, variables: Mapping[str, Any]) -> None:
    """Raises UserError, which names every variable that is missing, unexpected or of another shape."""
    _fitting(model, _arrays(model), variables)


def _fitting(model, expected, variables) -> dict[tuple[str, ...], Any]:
    """The variables by path, all those expected and no other."""
    found = flax.traverse_util.flatten_dict({name: variables.get(name, {}) for name in ('params', 'batch_stats')})
    if misfits := _misfits({'/'.join(path): np.shape(value) for path, value in found.items()},
                           {'/'.join(array.path): array.shape for array in expected.values()}):
        raise UserError('\n'.join([f'the variables do not fit {type(model).__name__}:', *misfits]))
    return found


def _head(model: nn.Module) -> dict[str, _Array]:
    """The arrays that depend on the number of classes."""
    rest = _arrays(model.clone(num_classes=0))
    return {name: array for name, array in _arrays(model).items() if name not in rest}


def _arrays(model: nn.Module) -> dict[str, _Array]:
    """Every array of the model by its PyTorch name; shapes by tracing alone."""
    renames, flattens = getattr(model, 'renames', {}), getattr(model, 'flattens', {})
    flattened = {f'{name}.weight': shape for name, shape in flattens.items()}
    for size in _IMAGE_SIZES:
        variables = jax.eval_shape(
            lambda size=size: model.init(jax.random.key(0), jnp.zeros((1, size, size, 3)), train=False))
        shapes = {path: leaf.shape for path, leaf in flax.traverse_util.flatten_dict(variables).items()}
        names = [_torch_name(path[1:], renames) for path in shapes]
        arrays = {name: _Array(path, shape, flattened.get(name))
                  for name, (path, shape) in zip(names, shapes.items(), strict=True)}
        if len(arrays) < len(shapes):
            raise ValueError(f'{type(model).__name__} gives two arrays one PyTorch name')
        if all(a.flattened is None or math.prod(a.flattened) == a.shape[0] for a in arrays.values()):
            return arrays
    raise ValueError(f'{type(model).__name__}.flattens={flattens} holds for no image size of {_IMAGE_SIZES}')


def _torch_name(path: tuple[str, ...], renames: Mapping[str, str]) -> str:
    parts = [*path[:-1], _LEAVES.get(path[-1], path[-1])]
    for end in range(len(path), 0, -1):
        theirs = renames.get('.'.join(path[:end]))
        if theirs is not None:
            return '.'.join([theirs, *parts[end:]])
    return '.'.join(parts)


def _counters(names) -> list[str]:
    return [f'{name.removesuffix("running_mean")}{_COUNTER}' for name in names if name.endswith('.running_mean')]


def _chosen(state_dict, expected, ema: bool | None) -> dict[str, Any]:
    """The arrays that `state_dicts.choose` finds; logs what had to be chosen or taken off."""
    found, others = state_dicts.choose(state_dict, expected, ema)
    if others:
        raw, averaged = (found, others[0]) if others[0].averaged else (others[0], found)
        log.info('there are raw weights, under %s, and averaged ones, under %s: the %s ones are taken (--ema or '
                 '--no-ema of `weights import` decides)', raw.title, averaged.title,
                 'averaged' if found.averaged else 'raw')
    elif found.averaged:
        log.info('the weights, under %s, are averaged ones; there are no others', found.title)
    if found.prefixes:
        log.info('taken off the names of the weights: %s', ', '.join(found.prefixes))
    if found.left_out:
        log.info('left out, since the model is whole without: %s', ', '.join(found.left_out))
    return foreign_names.renamed(found.arrays, expected)


def _differing_head(model: nn.Module, found: Mapping[str, tuple]) -> str:
    theirs = next((found[name][0] for name in _head(model) if found.get(name)), model.num_classes)
    return ('most of its arrays do' if theirs == model.num_classes else
            f'its head has {theirs} classes, the model {model.num_classes}')


def _likeness(found: Mapping[str, tuple]) -> str:
    """What registered model arrays of such names and shapes are of, as the first line of a refusal."""
    shapes = collections.Counter(shape for shape in found.values() if shape)
    size = sum(math.prod(shape) * count for shape, count in shapes.items())

    def distance(name):  # the number of arrays first: it does not depend on that of classes
        theirs = sizes[name]
        return 10 * abs(math.log(shapes.total() / theirs.arrays)) + abs(math.log(size / theirs.numbers))
    sizes, scores, heads = catalog.sizes(), {}, {}
    for name in sorted(sizes, key=distance)[:_TRACED]:
        model = models.create(name)
        arrays, head = _arrays(model), _head(model)
        theirs = collections.Counter(array.torch_shape for key, array in arrays.items() if key not in head)
        common = (theirs & shapes).total() / theirs.total()
        named = sum(found.get(key) == array.torch_shape for key, array in arrays.items() if key not in head)
        scores[name] = (common, named / theirs.total(), -abs(shapes.total() - theirs.total() - len(head)))
        heads[name] = next((found[key][0] for key in head if found.get(key)), model.num_classes)
    best = max(scores, key=scores.get)
    if scores[best][0] < _ALIKE:
        return 'its arrays look like those of no registered model with its default options'
    classes = f' with {heads[best]} classes' if heads[best] != models.create(best).num_classes else ''
    exactly = '' if scores[best][0] == 1 else f'; {scores[best][0]:.0%} of its arrays are there'
    return f'its arrays look like {best}{classes}{exactly}'


def _shape(value) -> tuple[int, ...]:
    try:
        return tuple(np.shape(value))
    except (ValueError, TypeError):  # such as lists of several lengths, which a training script may have saved as well
        return ()


def _float32(name: str, value) -> np.ndarray:
    try:
        if hasattr(value, 'detach'):  # a torch tensor; numpy does not know all of its dtypes
            value = value.detach().cpu()
            value = (value if value.is_complex() else value.float()).numpy()
        value = np.asarray(value)
        if np.iscomplexobj(value):
            raise TypeError('complex numbers')
        return value.astype(np.float32)
    except (ValueError, TypeError, RuntimeError, NotImplementedError) as error:
        raise UserError(f'{name} of the state_dict is no dense array of real numbers: {first_line(error)}') from error


def _misfits(found: dict[str, tuple], expected: dict[str, tuple]) -> list[str]:
    """A line for each array that is missing, unexpected or of another shape."""
    return [*(f'  missing: {name} {expected[name]}' for name in sorted(expected.keys() - found.keys())),
            *(f'  unexpected: {name} {tuple(found[name])}' for name in sorted(found.keys() - expected.keys())),
            *(f'  {name}: has shape {tuple(found[name])}, the model {expected[name]}'
              for name in sorted(expected.keys() & found.keys()) if tuple(found[name]) != expected[name])]
