"""ResNet for 224-pixel images (arXiv 1512.03385), in the v1.5 form of torchvision's weights; ResNeXt; wide ResNet.

A module's path is its PyTorch state_dict path: layer1/0/conv1 is layer1.0.conv1.
"""

from functools import partial

import flax.linen as nn
import jax.numpy as jnp

from imagenet_jax.models.layers import (
    FLOAT32,
    Layers,
    SqueezeExcite,
    at_least_float32,
    dense_init,
    global_mean,
    max_pool,
)


class ProjectionShortcut(nn.Module):
    """Identity where shapes agree, else a strided 1x1 convolution and a norm (option B)."""
    layers: Layers

    @nn.compact
    def __call__(self, x, features, stride, train):
        if stride == 1 and x.shape[-1] == features:
            return x
        conv, norm, _ = self.layers(train)
        return norm('1')(conv(features, 1, stride, name='0')(x))


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and the shortcut; the branch is gated by channel where `se_ratio` is not 0."""
    width: int
    stride: int
    layers: Layers
    shortcut: type[nn.Module] = ProjectionShortcut
    se_ratio: int = 0

    @nn.compact
    def __call__(self, x, train):
        conv, norm, act = self.layers(train)
        y = act(norm('bn1')(conv(self.width, 3, self.stride, name='conv1')(x)))
        y = norm('bn2', ends_branch=True)(conv(self.width, 3, name='conv2')(y))
        y = excite(y, self.se_ratio, self.layers)
        return act(y + self.shortcut(self.layers, name='downsample')(x, y.shape[-1], self.stride, train))


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolutions, four times as wide at the end, and the shortcut.

    The 3x3 carries the stride (v1.5); with `stride_in_1x1` the first 1x1 does, as in the paper. The 3x3 has `groups`
    groups, `group_width` wide each in the first stage; the branch is gated by channel where `se_ratio` is not 0.
    """
    width: int
    stride: int
    layers: Layers
    stride_in_1x1: bool = False
    groups: int = 1
    group_width: int = 64
    se_ratio: int = 0

    @nn.compact
    def __call__(self, x, train):
        conv, norm, act = self.layers(train)
        first, second = (self.stride, 1) if self.stride_in_1x1 else (1, self.stride)
        inner = self.width * self.group_width // 64 * self.groups
        y = act(norm('bn1')(conv(inner, 1, first, name='conv1')(x)))
        y = act(norm('bn2')(conv(inner, 3, second, self.groups, name='conv2')(y)))
        y = norm('bn3', ends_branch=True)(conv(self.width * 4, 1, name='conv3')(y))
        y = excite(y, self.se_ratio, self.layers)
        return act(y + ProjectionShortcut(self.layers, name='downsample')(x, y.shape[-1], self.stride, train))


class Stage(nn.Module):
    """`depth` blocks of one width; the first carries the stride."""
    block: partial
    depth: int
    width: int
    stride: int
    layers: Layers

    @nn.compact
    def __call__(self, x, train):
        block = self.layers.block(self.block)
        for i in range(self.depth):
            x = block(self.width, self.stride if i == 0 else 1, self.layers, name=str(i))(x, train)
        return x


class ResNet(nn.Module):
    """Basic-block ResNet: 7x7 stem, four stages, global average pool, classifier.

    Attributes:
      depths: blocks of each stage.
      num_classes: 0 answers the pooled features.
      dtype, param_dtype, norm, zero_gamma, remat: see `layers.Layers`.
    """
    depths: tuple[int, ...]
    num_classes: int = 1000
    dtype: jnp.dtype = FLOAT32
    param_dtype: jnp.dtype = FLOAT32
    norm: str = 'batch'
    zero_gamma: bool = False
    remat: bool = False

    def block(self):
        """The constructor of one block, with this model's options."""
        return BasicBlock

    @nn.compact
    def __call__(self, images, train=False, features=False):
        layers = Layers(self.dtype, self.param_dtype, self.norm, self.zero_gamma, remat=self.remat)
        conv, norm, act = layers(train)
        x = conv(64, 7, 2, name='conv1')(images)
        x = max_pool(act(norm('bn1')(x)), 3, 2, 1)
        maps = {}
        for i, depth in enumerate(self.depths):
            stage = Stage(self.block(), depth, 64 * 2**i, 1 if i == 0 else 2, layers, name=f'layer{i + 1}')
            maps[stage.name] = x = stage(x, train)
        logits = classify(x, self.num_classes, self.dtype, self.param_dtype, 'fc')
        return (logits, maps) if features else logits


class BottleneckResNet(ResNet):
    """Bottleneck ResNet; `stride_in_1x1=True` is the paper's v1."""
    stride_in_1x1: bool = False

    def block(self):
        return partial(Bottleneck, stride_in_1x1=self.stride_in_1x1)


class GroupedResNet(BottleneckResNet):
    """Bottlenecks of another width: ResNeXt (arXiv 1611.05431), wide ResNet (arXiv 1605.07146)."""
    groups: int = 1
    group_width: int = 64

    def block(self):
        return partial(super().block(), groups=self.groups, group_width=self.group_width)


def excite(x, ratio, layers):
    """Squeeze and excitation with a hidden layer `ratio` times narrower, as `se`; a ratio of 0 leaves x as it is."""
    return SqueezeExcite(x.shape[-1] // ratio, layers, name='se')(x) if ratio else x


def classify(x, num_classes, dtype, param_dtype, name):
    """Global average pool and dense classifier: (N, H, W, C) -> logits, or features where there are no classes.

    To be called inside a module's compact method: it makes the dense layer there, as `name`.
    """
    x = global_mean(x)
    if not num_classes:
        return x
    dense = nn.Dense(num_classes, kernel_init=dense_init, dtype=dtype, param_dtype=param_dtype, name=name)
    return at_least_float32(dense(x))


MODELS = {
    'resnet18': partial(ResNet, depths=(2, 2, 2, 2)),
    'resnet34': partial(ResNet, depths=(3, 4, 6, 3)),
    'resnet50': partial(BottleneckResNet, depths=(3, 4, 6, 3)),
    'resnet101': partial(BottleneckResNet, depths=(3, 4, 23, 3)),
    'resnet152': partial(BottleneckResNet, depths=(3, 8, 36, 3)),
    'resnext50_32x4d': partial(GroupedResNet, depths=(3, 4, 6, 3), groups=32, group_width=4),
    'resnext101_32x8d': partial(GroupedResNet, depths=(3, 4, 23, 3), groups=32, group_width=8),
    'wide_resnet50_2': partial(GroupedResNet, depths=(3, 4, 6, 3), groups=1, group_width=128),
}
