"""GhostNet (arXiv 1911.11907): half of each convolution's channels made from the other half by a cheap depthwise one.

A module's path is its state_dict path in timm: blocks/0/0/ghost1/primary_conv/0 is blocks.0.0.ghost1.primary_conv.0.
"""

from functools import partial

import flax.linen as nn
import jax.numpy as jnp

from imagenet_jax.models.blocks import Sequential
from imagenet_jax.models.layers import ConvNorm, Layers, SqueezeExcite, at_least_float32, divisible, global_mean
from imagenet_jax.models.network import NormedResidualNetwork

# Kernel, expanded width, width, squeeze and excitation, stride of each block, by stage (table 1 of the paper).
_STAGES = (
    ((3, 16, 16, False, 1),),
    ((3, 48, 24, False, 2),),
    ((3, 72, 24, False, 1),),
    ((5, 72, 40, True, 2),),
    ((5, 120, 40, True, 1),),
    ((3, 240, 80, False, 2),),
    ((3, 200, 80, False, 1), (3, 184, 80, False, 1), (3, 184, 80, False, 1), (3, 480, 112, True, 1),
     (3, 672, 112, True, 1)),
    ((5, 672, 160, True, 2),),
    ((5, 960, 160, False, 1), (5, 960, 160, True, 1), (5, 960, 160, False, 1), (5, 960, 160, True, 1)))


class GhostModule(nn.Module):
    """A 1x1 convolution to half the features, and a 3x3 depthwise one of those for the other half."""
    features: int
    layers: Layers
    act: bool

    @nn.compact
    def __call__(self, x):
        conv = partial(ConvNorm, self.features // 2, layers=self.layers, act=self.act,
                       ends_branch=not self.act)
        x = conv(1, name='primary_conv')(x)
        return jnp.concatenate([x, conv(3, groups=self.features // 2, name='cheap_operation')(x)], axis=-1)


class Shortcut(nn.Module):
    """Strided depthwise convolution, then a 1x1 one, without activations."""
    features: int
    kernel: int
    stride: int
    layers: Layers

    @nn.compact
    def __call__(self, x):
        layers, c = self.layers, x.shape[-1]
        x = layers.norm('1')(layers.conv(c, self.kernel, self.stride, c, name='0')(x))
        return layers.norm('3')(layers.conv(self.features, 1, name='2')(x))


class GhostBottleneck(nn.Module):
    """Ghost module to the expanded width, depthwise convolution where it strides, gate, ghost module, shortcut.

    DropBlock comes before the gate, whether there is a depthwise convolution or not.
    """
    kernel: int
    expanded: int
    features: int
    excite: bool
    stride: int
    layers: Layers

    @nn.compact
    def __call__(self, x):
        layers = self.layers
        y = GhostModule(self.expanded, layers, act=True, name='ghost1')(x)
        if self.stride > 1:
            y = layers.conv(self.expanded, self.kernel, self.stride, self.expanded, name='conv_dw')(y)
            y = layers.norm('bn_dw')(y)
        y = layers.drop_block(y)
        if self.excite:
            y = SqueezeExcite(divisible(self.expanded / 4, 4), layers, gate=nn.hard_sigmoid,
                              names=('conv_reduce', 'conv_expand'), name='se')(y)
        y = GhostModule(self.features, layers, act=False, name='ghost2')(y)
        if x.shape != y.shape:
            x = Shortcut(self.features, self.kernel, self.stride, layers, name='shortcut')(x)
        return layers.join(x, y)


class GhostNet(NormedResidualNetwork):
    """3x3 stem, nine stages of ghost bottlenecks, 1x1 convolution, hidden layer 1280 wide, classifier.

    Attributes:
      width: of every layer but the hidden one, as a multiple of the paper's.
      num_classes: 0 answers the hidden layer, which sees the pooled features.
    """
    width: float
    dropout: float = 0.2

    @nn.compact
    def __call__(self, images, train=False, features=False):
        layers = self.layers(train)
        x = layers.norm_act(layers.conv(self._scaled(16), 3, 2, name='conv_stem')(images), 'bn1')
        block = layers.block(GhostBottleneck)
        by_block = iter(layers.by_block([stride for rows in _STAGES for *_, stride in rows]))
        stages = [partial(Sequential, tuple(
            partial(block, kernel, self._scaled(expanded), self._scaled(c), excite, stride, next(by_block))
            for kernel, expanded, c, excite, stride in rows)) for rows in _STAGES]
        last = partial(ConvNorm, self._scaled(960), 1, layers=layers, names=('conv', 'bn1'))
        outputs = Sequential((*stages, partial(Sequential, (last,))), every=True, name='blocks')(x)
        x = global_mean(outputs[-1], keepdims=True)
        x = layers.act(layers.conv(1280, 1, use_bias=True, name='conv_head')(x))[:, 0, 0]
        if self.num_classes:
            x = layers.dropout()(x)
            x = layers.dense(self.num_classes, name='classifier')(x)
        logits = at_least_float32(x)
        return (logits, {f'blocks.{i}': y for i, y in enumerate(outputs)}) if features else logits

    def _scaled(self, width: int) -> int:
        return divisible(width * self.width, 4)


MODELS = {'ghostnet_100': partial(GhostNet, width=1.0), 'ghostnet_130': partial(GhostNet, width=1.3)}
