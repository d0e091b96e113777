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

import math
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np

from imagenet_jax.errors import UserError, first_line

_LEAVES = {'kernel': 'weight', 'scale': 'weight', 'mean': 'running_mean', 'var': 'running_var'}
_COUNTER = 'num_batches_tracked'
# Where training scripts keep the state_dict, and what DataParallel and torch.compile put before each name.
_WRAPPERS = ('state_dict', 'model', 'model_state', 'net', 'state_dict_ema', 'model_ema')
_PREFIX = re.compile(r'^(?:module\.|_orig_mod\.)+')
# Shapes depend on the image's size where a convolution is flattened: ImageNet's and CIFAR's.
_IMAGE_SIZES = (224, 32)


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


def from_torch(model: nn.Module, state_dict: Mapping[str, Any]) -> dict[str, dict]:
    """Variables of `model` with the weights of a PyTorch state_dict.

    Args:
      model: from `models.create`.
      state_dict: arrays or tensors by name. It may lie inside a training script's checkpoint, and its names may carry
        the prefixes of DataParallel and torch.compile.

    Returns:
      {'params', 'batch_stats'}, float32 numpy arrays.

    Raises:
      UserError: names every array that is missing, unexpected, of another shape, or not of finite numbers.
    """
    found, expected = _unwrap(state_dict), _arrays(model)
    counters = _counters(expected)
    _refuse_misfit(f'the state_dict does not fit {type(model).__name__}',
                   {name: _shape(value) for name, value in found.items() if name not in counters},
                   {name: array.torch_shape for name, array in expected.items()})
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
    found = _unwrap(state_dict)
    sizes = {_shape(found[name])[0] for name in _head(model) if _shape(found.get(name, 0))}
    return min(sizes, default=0)


def without_head(model: nn.Module, variables: Mapping[str, Any]) -> dict[str, dict]:
    """The variables but those that the model lacks with `num_classes=0`."""
    head = {array.path for array in _head(model).values()}
    flat = flax.traverse_util.flatten_dict(variables)
    return flax.traverse_util.unflatten_dict({path: value for path, value in flat.items() if path not in head})


def head_names(model: nn.Module) -> tuple[str, ...]:
    """Paths of the parameters that the model lacks with `num_classes=0`, such as fc/kernel."""
    return tuple('/'.join(array.path[1:]) for array in _head(model).values())


def refuse_misfit(model: nn.Module, variables: Mapping[str, Any]) -> None:
    """Raises UserError, which names every variable that is missing, unexpected or of another shape."""
    _fitting(model, _arrays(model), variables)


def _fitting(model, expected, variables) -> dict[tuple[str, ...], Any]:
    """The variables by path, all those expected and no other."""
    found = flax.traverse_util.flatten_dict({name: variables.get(name, {}) for name in ('params', 'batch_stats')})
    _refuse_misfit(f'the variables do not fit {type(model).__name__}',
                   {'/'.join(path): np.shape(value) for path, value in found.items()},
                   {'/'.join(array.path): array.shape for array in expected.values()})
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


def _unwrap(state_dict) -> dict[str, Any]:
    while isinstance(state_dict, Mapping):
        inner = [state_dict[name] for name in _WRAPPERS if isinstance(state_dict.get(name), Mapping)]
        if not inner:
            break
        state_dict = inner[0]
    else:
        raise UserError(f'a state_dict is a dict of arrays by name; this is of type {type(state_dict).__name__}')
    found = {_PREFIX.sub('', str(name)): value for name, value in state_dict.items()}
    if len(found) < len(state_dict):
        raise UserError('the state_dict has names that differ only in a prefix "module." or "_orig_mod."')
    return found


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


def _refuse_misfit(message: str, found: dict[str, tuple], expected: dict[str, tuple]) -> None:
    lines = [f'  missing: {name} {expected[name]}' for name in sorted(expected.keys() - found.keys())]
    lines += [f'  unexpected: {name} {tuple(found[name])}' for name in sorted(found.keys() - expected.keys())]
    lines += [f'  {name}: has shape {tuple(found[name])}, the model {expected[name]}'
              for name in sorted(expected.keys() & found.keys()) if tuple(found[name]) != expected[name]]
    if lines:
        raise UserError('\n'.join([f'{message}:', *lines]))
