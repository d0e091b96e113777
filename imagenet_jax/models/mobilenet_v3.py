"""MobileNetV3 (arXiv 1905.02244): searched inverted residuals with squeeze and excitation and hard-swish.

A module's path is its state_dict path in torchvision: features/1/block/0/0 is features.1.block.0.0. Its norms keep .99
of the running statistics at each step and have epsilon 1e-3, and the last convolution has no squeeze and excitation.
"""

import dataclasses
from functools import partial

import flax.linen as nn

from imagenet_jax.models.blocks import Sequential
from imagenet_jax.models.layers import ConvNorm, Layers, SqueezeExcite, at_least_float32, divisible, global_mean
from imagenet_jax.models.network import NormedResidualNetwork

# Kernel, expanded width, width, squeeze and excitation, hard-swish, stride (tables 1 and 2 of the paper).
_LARGE = (
    (3, 16, 16, False, False, 1), (3, 64, 24, False, False, 2), (3, 72, 24, False, False, 1),
    (5, 72, 40, True, False, 2), (5, 120, 40, True, False, 1), (5, 120, 40, True, False, 1),
    (3, 240, 80, False, True, 2), (3, 200, 80, False, True, 1), (3, 184, 80, False, True, 1),
    (3, 184, 80, False, True, 1), (3, 480, 112, True, True, 1), (3, 672, 112, True, True, 1),
    (5, 672, 160, True, True, 2), (5, 960, 160, True, True, 1), (5, 960, 160, True, True, 1))
_SMALL = (
    (3, 16, 16, True, False, 2), (3, 72, 24, False, False, 2), (3, 88, 24, False, False, 1), (5, 96, 40, True, True, 2),
    (5, 240, 40, True, True, 1), (5, 240, 40, True, True, 1), (5, 120, 48, True, True, 1), (5, 144, 48, True, True, 1),
    (5, 288, 96, True, True, 2), (5, 576, 96, True, True, 1), (5, 576, 96, True, True, 1))


class Branch(nn.Module):
    """1x1 convolution to the expanded width, depthwise, squeeze and excitation, 1x1 without activation.

    DropBlock follows the depthwise convolution's norm.
    """
    kernel: int
    expanded: int
    features: int
    excite: bool
    stride: int
    is_residual: bool
    layers: Layers

    @nn.compact
    def __call__(self, x):
        conv = partial(ConvNorm, layers=self.layers)
        number = 0
        if self.expanded != x.shape[-1]:
            x = conv(self.expanded, 1, name='0')(x)
            number = 1
        x = conv(self.expanded, self.kernel, self.stride, self.expanded, drops=True, name=f'{number}')(x)
        if self.excite:
            number += 1
            x = SqueezeExcite(divisible(self.expanded // 4), self.layers, gate=nn.hard_sigmoid, name=f'{number}')(x)
        return conv(self.features, 1, act=False, ends_branch=self.is_residual, name=f'{number + 1}')(x)


class InvertedResidual(nn.Module):
    """The branch, joined with its input where shapes agree."""
    kernel: int
    expanded: int
    features: int
    excite: bool
    stride: int
    layers: Layers

    @nn.compact
    def __call__(self, x):
        is_residual = self.stride == 1 and x.shape[-1] == self.features
        y = Branch(self.kernel, self.expanded, self.features, self.excite, self.stride, is_residual, self.layers,
                   name='block')(x)
        return self.layers.join(x, y) if is_residual else y


class Classifier(nn.Module):
    """Global average pool, dense layer, activation, dropout, dense layer."""
    hidden: int
    num_classes: int
    layers: Layers

    @nn.compact
    def __call__(self, x):
        x = global_mean(x)
        x = self.layers.act(self.layers.dense(self.hidden, name='0')(x))
        if not self.num_classes:
            return at_least_float32(x)
        x = self.layers.dropout()(x)
        return at_least_float32(self.layers.dense(self.num_classes, name='3')(x))


class MobileNetV3(NormedResidualNetwork):
    """3x3 stem, the blocks of a table, 1x1 convolution, classifier with a hidden layer.

    `features=True` answers the last block of each resolution, and the last convolution.

    Attributes:
      rows: kernel, expanded width, width, squeeze and excitation, hard-swish and stride of each block.
      hidden: width of the classifier's hidden layer.
      dropout: before the last layer.
      num_classes: 0 answers the hidden layer, which sees the pooled features.
      act: where the paper has hard-swish; blocks that the table has at ReLU keep it.
    """
    rows: tuple[tuple, ...]
    hidden: int
    dropout: float = 0.2
    act: str = 'hard_swish'

    @nn.compact
    def __call__(self, images, train=False, features=False):
        layers = self.layers(train, momentum=0.99, epsilon=1e-3)
        conv, block = partial(ConvNorm, layers=layers), layers.block(InvertedResidual)
        by_block = layers.by_block([stride for *_, stride in self.rows])
        blocks = (partial(conv, 16, 3, 2),
                  *(partial(block, kernel, expanded, c, excite, stride,
                            layers if swish else dataclasses.replace(layers, act_kind='relu'))
                    for (kernel, expanded, c, excite, swish, stride), layers in zip(self.rows, by_block, strict=True)),
                  partial(conv, 6 * self.rows[-1][2], 1))
        outputs = Sequential(blocks, every=True, name='features')(images)
        logits = Classifier(self.hidden, self.num_classes, layers, name='classifier')(outputs[-1])
        if not features:
            return logits
        last = len(outputs) - 1
        ends = [i for i in range(1, last) if i + 1 == last or outputs[i + 1].shape[1] != outputs[i].shape[1]]
        return logits, {f'features.{i}': outputs[i] for i in (*ends, last)}


MODELS = {
    'mobilenet_v3_large': partial(MobileNetV3, rows=_LARGE, hidden=1280),
    'mobilenet_v3_small': partial(MobileNetV3, rows=_SMALL, hidden=1024),
}
