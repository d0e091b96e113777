"""Modules of one or two convolutions, and the rounding of their widths."""

import dataclasses
from collections.abc import Callable
from functools import partial

import flax.linen as nn
import jax

from imagenet_jax.models.layers.choice import Layers
from imagenet_jax.models.layers.pools import global_mean


class ConvNorm(nn.Module):
    """Convolution, norm and, unless it is linear, activation; called with a shortcut, the end of a residual block.

    Attributes:
      features, kernel, stride, groups: of the convolution.
      layers: what it is made of.
      act: whether an activation follows.
      ends_branch, ends_shortcut: see `Layers.norm`, where no activation follows.
      drops: see `Layers.norm_act`.
      names: of the convolution and the norm.
    """
    features: int
    kernel: int
    stride: int = 1
    groups: int = 1
    _: dataclasses.KW_ONLY
    layers: Layers
    act: bool = True
    ends_branch: bool = False
    ends_shortcut: bool = False
    drops: bool = False
    names: tuple[str, str] = ('0', '1')

    @nn.compact
    def __call__(self, x, shortcut=None):
        x = self.layers.conv(self.features, self.kernel, self.stride, self.groups, name=self.names[0])(x)
        if shortcut is not None:
            return self.layers.norm_join_act(shortcut, x, self.names[1])
        if self.act:
            return self.layers.norm_act(x, self.names[1], drops=self.drops)
        return self.layers.norm(self.names[1], ends_branch=self.ends_branch, ends_shortcut=self.ends_shortcut)(x)


class SqueezeExcite(nn.Module):
    """Scales each channel by a gate computed from all channels' global means (arXiv 1709.01507).

    Attributes:
      features_reduced: width of the hidden layer.
      layers: what it is made of.
      act, gate: activations of the hidden and of the last layer (`nn.hard_sigmoid` is relu6(x + 3) / 6).
      names: of the two 1x1 convolutions, which have biases.
    """
    features_reduced: int
    layers: Layers
    act: Callable[[jax.Array], jax.Array] = nn.relu
    gate: Callable[[jax.Array], jax.Array] = nn.sigmoid
    names: tuple[str, str] = ('fc1', 'fc2')

    @nn.compact
    def __call__(self, x):
        conv = partial(self.layers.conv, kernel=1, use_bias=True)
        y = global_mean(x, keepdims=True).astype(x.dtype)
        y = self.act(conv(self.features_reduced, name=self.names[0])(y))
        return x * self.gate(conv(x.shape[-1], name=self.names[1])(y))


def divisible(width: float, divisor: int = 8) -> int:
    """The nearest multiple of `divisor`, but never less than 0.9 of `width`; as the MobileNets round widths."""
    nearest = max(divisor, int(width + divisor / 2) // divisor * divisor)
    return nearest if nearest >= 0.9 * width else nearest + divisor
