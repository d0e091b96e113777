"""MobileNetV2 (arXiv 1801.04381): inverted residuals with linear bottlenecks.

A module's path is its state_dict path in torchvision: features/1/conv/0/0 is features.1.conv.0.0.
"""

from functools import partial

import flax.linen as nn
import jax.numpy as jnp

from imagenet_jax.models.layers import FLOAT32, ConvNorm, Layers, Sequential, at_least_float32, divisible, global_mean

# Expansion, width, blocks, stride of the first block (table 2 of the paper).
_ROWS = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))


class Branch(nn.Module):
    """1x1 convolution to the expanded width, 3x3 depthwise, 1x1 without activation."""
    expansion: int
    features: int
    stride: int
    is_residual: bool
    layers: Layers

    @nn.compact
    def __call__(self, x, train):
        conv, norm, _ = self.layers(train)
        expanded = x.shape[-1] * self.expansion
        first = 0 if self.expansion == 1 else 1  # number of the depthwise convolution
        if first:
            x = ConvNorm(expanded, 1, layers=self.layers, act=nn.relu6, name='0')(x, train)
        x = ConvNorm(expanded, 3, self.stride, expanded, layers=self.layers, act=nn.relu6, name=f'{first}')(x, train)
        x = conv(self.features, 1, name=f'{first + 1}')(x)
        return norm(f'{first + 2}', ends_branch=self.is_residual)(x)


class InvertedResidual(nn.Module):
    """The branch, added to its input where shapes agree."""
    expansion: int
    features: int
    stride: int
    layers: Layers

    @nn.compact
    def __call__(self, x, train):
        is_residual = self.stride == 1 and x.shape[-1] == self.features
        y = Branch(self.expansion, self.features, self.stride, is_residual, self.layers, name='conv')(x, train)
        return x + y if is_residual else y


class Classifier(nn.Module):
    """Global average pool, dropout, dense layer."""
    num_classes: int
    dropout: float
    layers: Layers

    @nn.compact
    def __call__(self, x, train):
        x = global_mean(x)
        if not self.num_classes:
            return x
        x = nn.Dropout(self.dropout, deterministic=not train)(x)
        return at_least_float32(self.layers.dense(self.num_classes, name='1')(x))


class MobileNetV2(nn.Module):
    """3x3 stem, seventeen inverted residuals, 1x1 convolution, classifier.

    `features=True` answers the last block of each resolution, and the last convolution.

    Attributes:
      width: of every layer, as a multiple of the paper's; the last convolution is never narrower than 1280.
      dropout: before the classifier.
      num_classes: 0 answers the pooled features.
      dtype, param_dtype, norm, zero_gamma, remat: see `layers.Layers`.
    """
    width: float = 1.0
    dropout: float = 0.2
    num_classes: int = 1000
    dtype: jnp.dtype = FLOAT32
    param_dtype: jnp.dtype = FLOAT32
    norm: str = 'batch'
    zero_gamma: bool = False
    remat: bool = False

    @nn.compact
    def __call__(self, images, train=False, features=False):
        layers = Layers(self.dtype, self.param_dtype, self.norm, self.zero_gamma, remat=self.remat)
        conv, block = partial(ConvNorm, layers=layers, act=nn.relu6), layers.block(InvertedResidual)
        blocks = [partial(conv, divisible(32 * self.width), 3, 2)]
        for expansion, c, depth, stride in _ROWS:
            blocks += [partial(block, expansion, divisible(c * self.width), stride if i == 0 else 1, layers)
                       for i in range(depth)]
        blocks.append(partial(conv, divisible(1280 * max(1.0, self.width)), 1))
        outputs = Sequential(tuple(blocks), every=True, name='features')(images, train)
        logits = Classifier(self.num_classes, self.dropout, layers, name='classifier')(outputs[-1], train)
        return (logits, {f'features.{i}': outputs[i] for i in (1, 3, 6, 13, 17, 18)}) if features else logits


MODELS = {'mobilenet_v2': partial(MobileNetV2)}
