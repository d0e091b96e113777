"""The 6n+2-layer ResNets for 32-pixel images (arXiv 1512.03385, section 4.2)."""

from functools import partial

import flax.linen as nn
import jax.numpy as jnp

from imagenet_jax.errors import unknown
from imagenet_jax.models.blocks import SE_RATIO, ProjectionShortcut, Stage, classify
from imagenet_jax.models.layers import Layers
from imagenet_jax.models.network import NormedResidualNetwork
from imagenet_jax.models.resnet import BasicBlock


class PaddingShortcut(nn.Module):
    """Option A, without parameters: every second pixel, and zero channels, half of them on each side."""
    layers: Layers

    @nn.compact
    def __call__(self, x, features, stride):
        extra = features - x.shape[-1]
        return jnp.pad(x[:, ::stride, ::stride], ((0, 0), (0, 0), (0, 0), (extra // 2, extra - extra // 2)))


_SHORTCUTS = {'A': PaddingShortcut, 'B': ProjectionShortcut}


class CifarResNet(NormedResidualNetwork):
    """3x3 stem and three stages of widths 16, 32 and 64.

    Attributes:
      depth: blocks of each stage, n of 6n+2.
      shortcut: 'A' (padding, no parameters, the paper's choice for CIFAR) or 'B' (1x1 convolution).
      squeeze_excite: branches end in squeeze and excitation.
    """
    depth: int
    num_classes: int = 10
    shortcut: str = 'A'
    squeeze_excite: bool = False

    def __post_init__(self):
        if self.shortcut not in _SHORTCUTS:
            raise unknown('model.shortcut', self.shortcut, _SHORTCUTS)
        super().__post_init__()

    @nn.compact
    def __call__(self, images, train=False, features=False):
        layers = self.layers(train)
        block = partial(BasicBlock, shortcut=_SHORTCUTS[self.shortcut], se_ratio=SE_RATIO if self.squeeze_excite else 0)
        x = layers.norm_act(layers.conv(16, 3, name='conv1')(images), 'bn1')
        maps = {}
        for i, blocks in enumerate(layers.by_stage((self.depth,) * 3)):
            stage = Stage(block, 16 * 2**i, 1 if i == 0 else 2, blocks, name=f'layer{i + 1}')
            maps[stage.name] = x = stage(x)
        logits = classify(x, self.num_classes, layers, 'linear')
        return (logits, maps) if features else logits


MODELS = {f'resnet{6 * n + 2}_cifar': partial(CifarResNet, depth=n) for n in (1, 3, 5, 7, 9, 18)}
