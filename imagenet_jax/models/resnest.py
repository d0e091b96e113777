"""ResNeSt (arXiv 2004.08955): a ResNet whose 3x3 convolutions are split in two and weighed by attention.

A module's path is its state_dict path in timm: layer1/0/conv2/fc1 is layer1.0.conv2.fc1.
"""

from functools import partial

import flax.linen as nn
import jax

from imagenet_jax.models.blocks import AverageShortcut, DeepStem, ProjectionShortcut, Stage, classify
from imagenet_jax.models.layers import Layers, at_least_float32, global_mean
from imagenet_jax.models.network import NormedResidualNetwork

_RADIX = 2


class SplitAttention(nn.Module):
    """Grouped 3x3 convolution whose splits are summed with weights, for each channel, that add up to 1.

    What computes the weights has the paper's ReLU, whatever the model's activation is. DropBlock follows the norm of
    the convolution.
    """
    features: int
    stride: int
    layers: Layers

    @nn.compact
    def __call__(self, x):
        layers = self.layers
        hidden = max(32, x.shape[-1] * _RADIX // 4)
        x = layers.conv(self.features * _RADIX, 3, self.stride, _RADIX, name='conv')(x)
        x = layers.norm_act(x, 'bn0', drops=True)
        splits = x.reshape(*x.shape[:-1], _RADIX, self.features)
        y = global_mean(splits.sum(-2), keepdims=True).astype(x.dtype)
        y = nn.relu(layers.norm('bn1')(layers.conv(hidden, 1, use_bias=True, name='fc1')(y)))
        y = layers.conv(self.features * _RADIX, 1, use_bias=True, name='fc2')(y)
        weights = jax.nn.softmax(at_least_float32(y.reshape(*y.shape[:-1], _RADIX, self.features)), axis=-2)
        return (splits * weights.astype(x.dtype)).sum(-2)


class Bottleneck(nn.Module):
    """1x1, split-attention 3x3 and 1x1 convolutions, and the shortcut.

    With `average_down` both ways stride by average pool: 3x3 after the attention (avd), 2x2 in the shortcut.
    """
    width: int
    stride: int
    layers: Layers
    average_down: bool

    @nn.compact
    def __call__(self, x):
        layers = self.layers
        stride = 1 if self.average_down else self.stride
        y = layers.norm_act(layers.conv(self.width, 1, name='conv1')(x), 'bn1')
        y = SplitAttention(self.width, stride, layers, name='conv2')(y)
        if stride != self.stride:
            y = nn.avg_pool(y, (3, 3), (self.stride, self.stride), ((1, 1), (1, 1)))
        y = layers.conv(self.width * 4, 1, name='conv3')(y)
        shortcut = AverageShortcut if self.average_down else ProjectionShortcut
        x = shortcut(layers, name='downsample')(x, y.shape[-1], self.stride)
        return layers.norm_join_act(x, y, 'bn3')


class ResNeSt(NormedResidualNetwork):
    """Stem, four stages, global average pool, classifier.

    Attributes:
      depths: blocks of each stage.
      stem_width: of the deep stem of three convolutions; 0: one 7x7.
      average_down: see `Bottleneck`.
    """
    depths: tuple[int, ...]
    stem_width: int
    average_down: bool

    @nn.compact
    def __call__(self, images, train=False, features=False):
        layers = self.layers(train)
        if self.stem_width:
            x = DeepStem(self.stem_width, layers, name='conv1')(images)
        else:
            x = layers.conv(64, 7, 2, name='conv1')(images)
        x = layers.max_pool(layers.norm_act(x, 'bn1'), 3, 2, 1)
        maps = {}
        block = partial(Bottleneck, average_down=self.average_down)
        for i, blocks in enumerate(layers.by_stage(self.depths)):
            stage = Stage(block, 64 * 2**i, 1 if i == 0 else 2, blocks, name=f'layer{i + 1}')
            maps[stage.name] = x = stage(x)
        logits = classify(x, self.num_classes, layers, 'fc')
        return (logits, maps) if features else logits


MODELS = {
    'resnest50': partial(ResNeSt, depths=(3, 4, 6, 3), stem_width=0, average_down=False),
    'resnest50d': partial(ResNeSt, depths=(3, 4, 6, 3), stem_width=32, average_down=True),
    'resnest101e': partial(ResNeSt, depths=(3, 4, 23, 3), stem_width=64, average_down=True),
}
