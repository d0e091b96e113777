"""ResNet for 224-pixel images (arXiv 1512.03385), in the v1.5 form of torchvision's weights; ResNet-D, ResNeXt, wide.

A module's path is its PyTorch state_dict path: layer1/0/conv1 is layer1.0.conv1; of ResNet-D, it is timm's.
"""

from functools import partial

import flax.linen as nn

from imagenet_jax.errors import unknown
from imagenet_jax.models.blocks import (
    SE_RATIO,
    AverageShortcut,
    DeepStem,
    ProjectionShortcut,
    Stage,
    classify,
    end,
)
from imagenet_jax.models.layers import LIP, Layers, strided
from imagenet_jax.models.network import NormedResidualNetwork, refuse_beside_lip

_STEMS = ('conv', 'deep')
_SHORTCUTS = {'conv': ProjectionShortcut, 'avgpool': AverageShortcut}


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and the shortcut; the branch is gated by channel where `se_ratio` is not 0.

    DropBlock follows the first norm.
    """
    width: int
    stride: int
    layers: Layers
    shortcut: type[nn.Module] = ProjectionShortcut
    se_ratio: int = 0

    @nn.compact
    def __call__(self, x):
        layers = self.layers
        pool, kernel, stride = strided(x, self.stride, layers)
        y = layers.conv(self.width, kernel, layers.conv_stride(stride), name='conv1')(pool(x, 'lip'))
        y = layers.blur(layers.norm_act(y, 'bn1', drops=True), stride)
        y = layers.conv(self.width, 3, name='conv2')(y)
        x = self.shortcut(layers, name='downsample')(pool(x, 'downsample_lip'), y.shape[-1], stride)
        return end(x, y, 'bn2', self.se_ratio, layers)


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolutions, four times as wide at the end, and the shortcut.

    The 3x3 carries the stride (v1.5); with `stride_in_1x1` the first 1x1 does, as in the paper. The 3x3 has `groups`
    groups, `group_width` wide each in the first stage; the branch is gated by channel where `se_ratio` is not 0.
    DropBlock follows the norm of the 3x3.
    """
    width: int
    stride: int
    layers: Layers
    stride_in_1x1: bool = False
    groups: int = 1
    group_width: int = 64
    shortcut: type[nn.Module] = ProjectionShortcut
    se_ratio: int = 0

    @nn.compact
    def __call__(self, x):
        layers = self.layers
        pool, kernel, stride = strided(x, self.stride, layers)
        first, second = (stride, 1) if self.stride_in_1x1 else (1, stride)
        inner = self.width * self.group_width // 64 * self.groups
        y = layers.conv(inner, 1, layers.conv_stride(first), name='conv1')(x)
        y = layers.blur(layers.norm_act(y, 'bn1'), first)
        y = layers.conv(inner, kernel, layers.conv_stride(second), self.groups, name='conv2')(pool(y, 'lip'))
        y = layers.blur(layers.norm_act(y, 'bn2', drops=True), second)
        y = layers.conv(self.width * 4, 1, name='conv3')(y)
        x = self.shortcut(layers, name='downsample')(pool(x, 'downsample_lip'), y.shape[-1], stride)
        return end(x, y, 'bn3', self.se_ratio, layers)


class ResNet(NormedResidualNetwork):
    """Basic-block ResNet: stem, four stages, global average pool, classifier.

    Attributes:
      depths: blocks of each stage.
      stem: 'conv' (one 7x7) or 'deep' (three 3x3 of 32, 32 and 64 channels, ResNet-D of arXiv 1812.01187).
      shortcut: 'conv' (strided 1x1 convolution) or 'avgpool' (2x2 average pool, then the convolution; ResNet-D).
      antialias: blur-pool where the max-pool, a 3x3 or a 1x1 convolution would stride; the stem's convolution still
        does. As in the paper (arXiv 1904.11486); timm leaves the strides of shortcuts.
      squeeze_excite: branches end in squeeze and excitation.
      lip: local importance-based pooling (arXiv 1908.04156) for the max-pool and for all strides of blocks.
      deformable: stages, the last ones, with deformable 3x3 convolutions (arXiv 1811.11168): 0 to 3.
    """
    depths: tuple[int, ...]
    stem: str = 'conv'
    shortcut: str = 'conv'
    antialias: bool = False
    squeeze_excite: bool = False
    lip: bool = False
    deformable: int = 0

    def __post_init__(self):
        for option, known in ('stem', _STEMS), ('shortcut', _SHORTCUTS):
            if getattr(self, option) not in known:
                raise unknown(f'model.{option}', getattr(self, option), known)
        if self.lip:
            refuse_beside_lip(shortcut=self.shortcut != 'conv', antialias=self.antialias)
        super().__post_init__()

    @nn.nowrap
    def layers(self, train, **more):
        return super().layers(train, antialias=self.antialias, lip=self.lip, deformable_stages=self.deformable, **more)

    def block(self):
        """The constructor of one block, with this model's options."""
        return partial(BasicBlock, **self._shared)

    @property
    def _shared(self):
        """What blocks of both kinds take."""
        return {'shortcut': _SHORTCUTS[self.shortcut], 'se_ratio': SE_RATIO if self.squeeze_excite else 0}

    @nn.compact
    def __call__(self, images, train=False, features=False):
        layers = self.layers(train)
        stem = DeepStem(32, layers, name='conv1') if self.stem == 'deep' else layers.conv(64, 7, 2, name='conv1')
        x = layers.norm_act(stem(images), 'bn1')
        x = LIP(3, layers, name='lip')(x, x) if self.lip else layers.max_pool(x, 3, 2, 1)
        maps = {}
        for i, blocks in enumerate(layers.by_stage(self.depths)):
            stage = Stage(self.block(), 64 * 2**i, 1 if i == 0 else 2, blocks, name=f'layer{i + 1}')
            maps[stage.name] = x = stage(x)
        logits = classify(x, self.num_classes, layers, 'fc')
        return (logits, maps) if features else logits


class BottleneckResNet(ResNet):
    """Bottleneck ResNet; `stride_in_1x1=True` is the paper's v1."""
    stride_in_1x1: bool = False

    def __post_init__(self):
        if self.lip:
            refuse_beside_lip(stride_in_1x1=self.stride_in_1x1)
        super().__post_init__()

    def block(self):
        return partial(Bottleneck, stride_in_1x1=self.stride_in_1x1, **self._shared)


class GroupedResNet(BottleneckResNet):
    """Bottlenecks of another width: ResNeXt (arXiv 1611.05431), wide ResNet (arXiv 1605.07146)."""
    groups: int = 1
    group_width: int = 64

    def block(self):
        return partial(super().block(), groups=self.groups, group_width=self.group_width)


_D = {'stem': 'deep', 'shortcut': 'avgpool'}
MODELS = {
    'resnet18': partial(ResNet, depths=(2, 2, 2, 2)),
    'resnet34': partial(ResNet, depths=(3, 4, 6, 3)),
    'resnet50': partial(BottleneckResNet, depths=(3, 4, 6, 3)),
    'resnet101': partial(BottleneckResNet, depths=(3, 4, 23, 3)),
    'resnet152': partial(BottleneckResNet, depths=(3, 8, 36, 3)),
    'resnet18d': partial(ResNet, depths=(2, 2, 2, 2), **_D),
    'resnet34d': partial(ResNet, depths=(3, 4, 6, 3), **_D),
    'resnet50d': partial(BottleneckResNet, depths=(3, 4, 6, 3), **_D),
    'resnet101d': partial(BottleneckResNet, depths=(3, 4, 23, 3), **_D),
    'resnet152d': partial(BottleneckResNet, depths=(3, 8, 36, 3), **_D),
    'resnext50_32x4d': partial(GroupedResNet, depths=(3, 4, 6, 3), groups=32, group_width=4),
    'resnext101_32x8d': partial(GroupedResNet, depths=(3, 4, 23, 3), groups=32, group_width=8),
    'wide_resnet50_2': partial(GroupedResNet, depths=(3, 4, 6, 3), groups=1, group_width=128),
}
