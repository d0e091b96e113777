"""ResNeSt (arXiv 2004.08955): a ResNet whose 3x3 convolutions are split in two and weighed by attention.

A module's path is its state_dict path in timm: layer1/0/conv2/fc1 is layer1.0.conv2.fc1.
"""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp

from imagenet_jax.models.layers import FLOAT32, Layers, at_least_float32, global_mean, halve, max_pool
from imagenet_jax.models.resnet import ProjectionShortcut, Stage, classify

_RADIX = 2


class SplitAttention(nn.Module):
    """Grouped 3x3 convolution whose splits are summed with weights, for each channel, that add up to 1."""
    features: int
    stride: int
    layers: Layers

    @nn.compact
    def __call__(self, x, train):
        conv, norm, act = self.layers(train)
        hidden = max(32, x.shape[-1] * _RADIX // 4)
        x = act(norm('bn0')(conv(self.features * _RADIX, 3, self.stride, _RADIX, name='conv')(x)))
        splits = x.reshape(*x.shape[:-1], _RADIX, self.features)
        y = global_mean(splits.sum(-2), keepdims=True).astype(x.dtype)
        y = act(norm('bn1')(conv(hidden, 1, use_bias=True, name='fc1')(y)))
        y = conv(self.features * _RADIX, 1, use_bias=True, name='fc2')(y)
        weights = jax.nn.softmax(at_least_float32(y.reshape(*y.shape[:-1], _RADIX, self.features)), axis=-2)
        return (splits * weights.astype(x.dtype)).sum(-2)


class AverageShortcut(nn.Module):
    """Identity where shapes agree, else 2x2 average pool where it strides, a 1x1 convolution and a norm."""
    layers: Layers

    @nn.compact
    def __call__(self, x, features, stride, train):
        if stride == 1 and x.shape[-1] == features:
            return x
        conv, norm, _ = self.layers(train)
        return norm('2')(conv(features, 1, name='1')(halve(x) if stride == 2 else x))


class Bottleneck(nn.Module):
    """1x1, split-attention 3x3 and 1x1 convolutions, and the shortcut.

    With `average_down` both ways stride by average pool: 3x3 after the attention (avd), 2x2 in the shortcut.
    """
    width: int
    stride: int
    layers: Layers
    average_down: bool

    @nn.compact
    def __call__(self, x, train):
        conv, norm, act = self.layers(train)
        stride = 1 if self.average_down else self.stride
        y = act(norm('bn1')(conv(self.width, 1, name='conv1')(x)))
        y = SplitAttention(self.width, stride, self.layers, name='conv2')(y, train)
        if stride != self.stride:
            y = nn.avg_pool(y, (3, 3), (self.stride, self.stride), ((1, 1), (1, 1)))
        y = norm('bn3', ends_branch=True)(conv(self.width * 4, 1, name='conv3')(y))
        shortcut = AverageShortcut if self.average_down else ProjectionShortcut
        return act(y + shortcut(self.layers, name='downsample')(x, y.shape[-1], self.stride, train))


class DeepStem(nn.Module):
    """Three 3x3 convolutions, the last twice as wide and without norm."""
    width: int
    layers: Layers

    @nn.compact
    def __call__(self, x, train):
        conv, norm, act = self.layers(train)
        x = act(norm('1')(conv(self.width, 3, 2, name='0')(x)))
        x = act(norm('4')(conv(self.width, 3, name='3')(x)))
        return conv(self.width * 2, 3, name='6')(x)


class ResNeSt(nn.Module):
    """Stem, four stages, global average pool, classifier.

    Attributes:
      depths: blocks of each stage.
      stem_width: of the deep stem of three convolutions; 0: one 7x7.
      average_down: see `Bottleneck`.
      num_classes: 0 answers the pooled features.
      dtype, param_dtype, norm, zero_gamma, remat: see `layers.Layers`.
    """
    depths: tuple[int, ...]
    stem_width: int
    average_down: bool
    num_classes: int = 1000
    dtype: jnp.dtype = FLOAT32
    param_dtype: jnp.dtype = FLOAT32
    norm: str = 'batch'
    zero_gamma: bool = False
    remat: bool = False

    @nn.compact
    def __call__(self, images, train=False, features=False):
        layers = Layers(self.dtype, self.param_dtype, self.norm, self.zero_gamma, remat=self.remat)
        conv, norm, act = layers(train)
        if self.stem_width:
            x = DeepStem(self.stem_width, layers, name='conv1')(images, train)
        else:
            x = conv(64, 7, 2, name='conv1')(images)
        x = max_pool(act(norm('bn1')(x)), 3, 2, 1)
        maps = {}
        block = partial(Bottleneck, average_down=self.average_down)
        for i, depth in enumerate(self.depths):
            stage = Stage(block, depth, 64 * 2**i, 1 if i == 0 else 2, layers, name=f'layer{i + 1}')
            maps[stage.name] = x = stage(x, train)
        logits = classify(x, self.num_classes, self.dtype, self.param_dtype, 'fc')
        return (logits, maps) if features else logits


MODELS = {
    'resnest50': partial(ResNeSt, depths=(3, 4, 6, 3), stem_width=0, average_down=False),
    'resnest50d': partial(ResNeSt, depths=(3, 4, 6, 3), stem_width=32, average_down=True),
    'resnest101e': partial(ResNeSt, depths=(3, 4, 23, 3), stem_width=64, average_down=True),
}
