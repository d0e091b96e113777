"""The 6n+2-layer ResNets for 32-pixel images (arXiv 1512.03385, section 4.2)."""

from functools import partial

import flax.linen as nn
import jax.numpy as jnp

from imagenet_jax.errors import unknown
from imagenet_jax.models.layers import FLOAT32, Layers
from imagenet_jax.models.resnet import BasicBlock, ProjectionShortcut, Stage, classify


class PaddingShortcut(nn.Module):
    """Option A, without parameters: every second pixel, and zero channels, half of them on each side."""
    layers: Layers

    @nn.compact
    def __call__(self, x, features, stride, train):
        extra = features - x.shape[-1]
        return jnp.pad(x[:, ::stride, ::stride], ((0, 0), (0, 0), (0, 0), (extra // 2, extra - extra // 2)))


_SHORTCUTS = {'A': PaddingShortcut, 'B': ProjectionShortcut}


class CifarResNet(nn.Module):
    """3x3 stem and three stages of widths 16, 32 and 64.

    Attributes:
      depth: blocks of each stage, n of 6n+2.
      num_classes: 0 answers the pooled features.
      shortcut: 'A' (padding, no parameters, the paper's choice for CIFAR) or 'B' (1x1 convolution).
      dtype, param_dtype, norm, zero_gamma, remat: see `layers.Layers`.
    """
    depth: int
    num_classes: int = 10
    shortcut: str = 'A'
    dtype: jnp.dtype = FLOAT32
    param_dtype: jnp.dtype = FLOAT32
    norm: str = 'batch'
    zero_gamma: bool = False
    remat: bool = False

    @nn.compact
    def __call__(self, images, train=False, features=False):
        if self.shortcut not in _SHORTCUTS:
            raise unknown('model.shortcut', self.shortcut, _SHORTCUTS)
        layers = Layers(self.dtype, self.param_dtype, self.norm, self.zero_gamma, remat=self.remat)
        conv, norm, act = layers(train)
        block = partial(BasicBlock, shortcut=_SHORTCUTS[self.shortcut])
        x = act(norm('bn1')(conv(16, 3, name='conv1')(images)))
        maps = {}
        for i in range(3):
            stage = Stage(block, self.depth, 16 * 2**i, 1 if i == 0 else 2, layers, name=f'layer{i + 1}')
            maps[stage.name] = x = stage(x, train)
        logits = classify(x, self.num_classes, self.dtype, self.param_dtype, 'linear')
        return (logits, maps) if features else logits


MODELS = {f'resnet{6 * n + 2}_cifar': partial(CifarResNet, depth=n) for n in (1, 3, 5, 7, 9, 18)}
