"""MobileNetV2 (arXiv 1801.04381): inverted residuals with linear bottlenecks.

A module's path is its state_dict path in torchvision: features/1/conv/0/0 is features.1.conv.0.0.
"""

from functools import partial

import flax.linen as nn

from imagenet_jax.models.blocks import Sequential
from imagenet_jax.models.layers import ConvNorm, Layers, at_least_float32, divisible, global_mean
from imagenet_jax.models.network import NormedResidualNetwork, refuse_no_width

# Expansion, width, blocks, stride of the first block (table 2 of the paper).
_ROWS = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))


class Branch(nn.Module):
    """1x1 convolution to the expanded width, 3x3 depthwise (DropBlock after its norm), 1x1 without activation."""
    expansion: int
    features: int
    stride: int
    is_residual: bool
    layers: Layers

    @nn.compact
    def __call__(self, x):
        layers = self.layers
        expanded = x.shape[-1] * self.expansion
        first = 0 if self.expansion == 1 else 1  # number of the depthwise convolution
        if first:
            x = ConvNorm(expanded, 1, layers=layers, name='0')(x)
        x = ConvNorm(expanded, 3, self.stride, expanded, layers=layers, drops=True, name=f'{first}')(x)
        x = layers.conv(self.features, 1, name=f'{first + 1}')(x)
        return layers.norm(f'{first + 2}', ends_branch=self.is_residual)(x)


class InvertedResidual(nn.Module):
    """The branch, joined with its input where shapes agree."""
    expansion: int
    features: int
    stride: int
    layers: Layers

    @nn.compact
    def __call__(self, x):
        is_residual = self.stride == 1 and x.shape[-1] == self.features
        y = Branch(self.expansion, self.features, self.stride, is_residual, self.layers, name='conv')(x)
        return self.layers.join(x, y) if is_residual else y


class Classifier(nn.Module):
    """Global average pool, dropout, dense layer."""
    num_classes: int
    layers: Layers

    @nn.compact
    def __call__(self, x):
        x = global_mean(x)
        if not self.num_classes:
            return x
        x = self.layers.dropout()(x)
        return at_least_float32(self.layers.dense(self.num_classes, name='1')(x))


class MobileNetV2(NormedResidualNetwork):
    """3x3 stem, seventeen inverted residuals, 1x1 convolution, classifier.

    `features=True` answers the last block of each resolution, and the last convolution.

    Attributes:
      width: of every layer, as a multiple of the paper's; the last convolution is never narrower than 1280.
    """
    width: float = 1.0
    dropout: float = 0.2
    act: str = 'relu6'

    def __post_init__(self):
        refuse_no_width('width', self.width)
        super().__post_init__()

    @nn.compact
    def __call__(self, images, train=False, features=False):
        layers = self.layers(train)
        conv, block = partial(ConvNorm, layers=layers), layers.block(InvertedResidual)
        rows = [(expansion, divisible(c * self.width), stride if i == 0 else 1)
                for expansion, c, depth, stride in _ROWS for i in range(depth)]
        by_block = layers.by_block([stride for *_, stride in rows])
        blocks = (partial(conv, divisible(32 * self.width), 3, 2),
                  *(partial(block, *row, layers) for row, layers in zip(rows, by_block, strict=True)),
                  partial(conv, divisible(1280 * max(1.0, self.width)), 1))
        outputs = Sequential(blocks, every=True, name='features')(images)
        logits = Classifier(self.num_classes, layers, name='classifier')(outputs[-1])
        return (logits, {f'features.{i}': outputs[i] for i in (1, 3, 6, 13, 17, 18)}) if features else logits


MODELS = {'mobilenet_v2': partial(MobileNetV2)}
