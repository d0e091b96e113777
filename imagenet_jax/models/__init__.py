"""The registry: `create(name, **options)` makes a model, `names()` lists them."""

import dataclasses
import math
import numbers
import re
from functools import partial

import flax.linen as nn
import jax.numpy as jnp

from imagenet_jax.errors import UserError, unknown
from imagenet_jax.models import (
    alexnet,
    ghostnet,
    mobilenet_v1,
    mobilenet_v2,
    mobilenet_v3,
    octresnet,
    regnet,
    resnest,
    resnet,
    resnet_cifar,
    resnet_v2,
    se_resnet,
    vgg,
    zfnet,
)

_FAMILIES = (
    alexnet, zfnet, vgg, resnet, resnet_cifar, resnet_v2, se_resnet, resnest, octresnet,
    regnet, mobilenet_v1, mobilenet_v2, mobilenet_v3, ghostnet,
)
_MODELS: dict[str, partial] = {name: model for family in _FAMILIES for name, model in family.MODELS.items()}

# What an option may be, by the type that its model declares; numpy's numbers too.
_KINDS = {bool: (bool, 'True or False'), int: (numbers.Integral, 'a whole number'), float: (numbers.Real, 'a number'),
          str: (str, 'text')}
_DTYPES = ('bfloat16', 'float16', 'float32', 'float64')


def names() -> list[str]:
    """Every registered name, numbers in numeric order."""
    return sorted(_MODELS, key=lambda name: [int(s) if s.isdigit() else s for s in re.split(r'(\d+)', name)])


def create(name: str, **options) -> nn.Module:
    """Makes the model `name`.

    Args:
      name: one of `names()`.
      **options: `num_classes` (0: pooled features instead of logits), `dtype` (of the computation; name or dtype,
        default float32), and the family's own, documented at its class.

    Returns:
      A module called as `model.apply(variables, images, train=False)` with float images of shape (N, H, W, 3);
      answers logits of shape (N, num_classes), float32 or, where `dtype` is, float64. `features=True` answers
      (logits, {stage name: activation}).

    Raises:
      UserError: an unknown name, an option that the model does not have, or a value that the option cannot have.
    """
    if name not in _MODELS:
        raise unknown('model', name, names())
    known = option_names(name)
    for option in options:
        if option not in known:
            raise unknown(f'option of model {name}:', option, known)
    for option in options.keys() & {'dtype', 'param_dtype'}:
        dtype = options[option] if isinstance(options[option], str) else jnp.dtype(options[option]).name
        if dtype not in _DTYPES:
            raise unknown(f'model.{option}', dtype, _DTYPES)
        options[option] = jnp.dtype(dtype)
    _check_kinds(_MODELS[name].func, options)
    for option in options.keys() & {'dropout', 'alpha'}:
        if not 0 <= options[option] < 1:
            raise UserError(f'model.{option}={options[option]} must be in [0, 1)')
    if not 0 < options.get('width', 1) < math.inf:
        raise UserError(f'model.width={options["width"]} must be above 0')
    if options.get('num_classes', 0) < 0:
        raise UserError(f'model.num_classes={options["num_classes"]} must not be negative')
    return _MODELS[name](**options)


def _check_kinds(model: type, options: dict) -> None:
    declared = {field.name: field.type for field in dataclasses.fields(model)}
    for option, value in options.items():
        kind, words = _KINDS.get(declared[option], (object, ''))
        if not isinstance(value, kind) or (isinstance(value, bool) and kind not in (bool, object)):
            raise UserError(f'model.{option}={value!r} must be {words}')


def option_names(name: str) -> list[str]:
    """The options that `create(name, ...)` takes."""
    preset = _MODELS[name]
    fixed = {'parent', 'name', *preset.keywords}
    return [f.name for f in dataclasses.fields(preset.func) if f.name not in fixed]

