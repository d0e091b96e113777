"""The registry: `create(name, **options)` makes a model, `names()` lists them."""

import re
from collections.abc import Mapping
from functools import partial
from typing import Any

from imagenet_jax import options
from imagenet_jax.errors import UserError
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
    resnet9_cifar,
    resnet_cifar,
    resnet_v2,
    se_resnet,
    vgg,
    zfnet,
)
from imagenet_jax.models.network import Network

_FAMILIES = (
    alexnet, zfnet, vgg, resnet, resnet9_cifar, resnet_cifar, resnet_v2, se_resnet, resnest, octresnet,
    regnet, mobilenet_v1, mobilenet_v2, mobilenet_v3, ghostnet,
)


def _numeric(name: str) -> list:
    return [int(part) if part.isdigit() else part for part in re.split(r'(\d+)', name)]


_REGISTRY: dict[str, partial] = {name: family.MODELS[name] for name, family in sorted(
    ((name, family) for family in _FAMILIES for name in family.MODELS), key=lambda pair: _numeric(pair[0]))}


def names() -> list[str]:
    """Every registered name, numbers in numeric order."""
    return list(_REGISTRY)


def from_section(section: Mapping[str, Any]) -> Network:
    """Makes the model that config.model describes: its `name`, and its options as `create` takes them."""
    try:
        return options.create(_REGISTRY, section, 'config.model')
    except UserError as error:
        # A model's own refusals are of `create`, where there is no config.
        raise UserError(f'config.{error}' if str(error).startswith('model.') else str(error)) from error


def create(name: str, **given) -> Network:
    """Makes the model `name`.

    Args:
      name: one of `names()`.
      **given: its options: those of `network.Network`, or `network.ResidualNetwork`, and the family's own, documented
        at its class.

    Returns:
      A module called as `model.apply(variables, images, train=False)` with float images of shape (N, H, W, 3);
      answers logits of shape (N, num_classes), float32 or, where `dtype` is, float64. `features=True` answers
      (logits, {stage name: activation}).

    Raises:
      UserError: an unknown name, an option that the model does not have, or a value that the option cannot have.
    """
    return options.create(_REGISTRY, {'name': name, **given}, 'model')
