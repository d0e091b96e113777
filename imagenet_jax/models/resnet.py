"""ResNet for 224-pixel images (arXiv 1512.03385), in the v1.5 form of torchvision's weights; ResNeXt; wide ResNet.

A module's path is its PyTorch state_dict path: layer1/0/conv1 is layer1.0.conv1.
"""

from functools import partial

import flax.linen as nn

from imagenet_jax.errors import UserError
from imagenet_jax.models.blocks import ProjectionShortcut, Stage, classify
from imagenet_jax.models.layers import LIP, Layers, SqueezeExcite, divisible, strided
from imagenet_jax.models.network import NormedResidualNetwork


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
        y = layers.norm('bn1')(layers.conv(self.width, kernel, stride, name='conv1')(pool(x, 'lip')))
        y = layers.act(layers.drop_block(y))
        y = layers.norm('bn2', ends_branch=True)(layers.conv(self.width, 3, name='conv2')(y))
        y = excite(y, self.se_ratio, layers)
        x = self.shortcut(layers, name='downsample')(pool(x, 'downsample_lip'), y.shape[-1], stride)
        return layers.act(layers.join(x, y))


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
    se_ratio: int = 0

    @nn.compact
    def __call__(self, x):
        layers = self.layers
        pool, kernel, stride = strided(x, self.stride, layers)
        first, second = (stride, 1) if self.stride_in_1x1 else (1, stride)
        inner = self.width * self.group_width // 64 * self.groups
        y = layers.act(layers.norm('bn1')(layers.conv(inner, 1, first, name='conv1')(x)))
        y = layers.norm('bn2')(layers.conv(inner, kernel, second, self.groups, name='conv2')(pool(y, 'lip')))
        y = layers.act(layers.drop_block(y))
        y = layers.norm('bn3', ends_branch=True)(layers.conv(self.width * 4, 1, name='conv3')(y))
        y = excite(y, self.se_ratio, layers)
        x = ProjectionShortcut(layers, name='downsample')(pool(x, 'downsample_lip'), y.shape[-1], stride)
        return layers.act(layers.join(x, y))


def excite(x, ratio, layers):
    """Squeeze and excitation with a hidden layer `ratio` times narrower, as `se`; a ratio of 0 leaves x as it is.

    The hidden layer is a multiple of 8 wide, as in timm: of a map of 64 channels 8, where the paper has 4.
    """
    return SqueezeExcite(divisible(x.shape[-1] / ratio), layers, name='se')(x) if ratio else x


class ResNet(NormedResidualNetwork):
    """Basic-block ResNet: 7x7 stem, four stages, global average pool, classifier.

    Attributes:
      depths: blocks of each stage.
      lip: local importance-based pooling (arXiv 1908.04156) for the max-pool and for all strides of blocks.
      deformable: stages, the last ones, with deformable 3x3 convolutions (arXiv 1811.11168): 0 to 3.
    """
    depths: tuple[int, ...]
    lip: bool = False
    deformable: int = 0

    @nn.nowrap
    def layers(self, train, **more):
        return super().layers(train, lip=self.lip, deformable_stages=self.deformable, **more)

    def block(self):
        """The constructor of one block, with this model's options."""
        return BasicBlock

    @nn.compact
    def __call__(self, images, train=False, features=False):
        layers = self.layers(train)
        x = layers.act(layers.norm('bn1')(layers.conv(64, 7, 2, name='conv1')(images)))
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
        if self.lip and self.stride_in_1x1:
            raise UserError('model.lip leaves no convolution a stride, so that model.stride_in_1x1 has no meaning: '
                            'unset one of them')
        super().__post_init__()

    def block(self):
        return partial(Bottleneck, stride_in_1x1=self.stride_in_1x1)


class GroupedResNet(BottleneckResNet):
    """Bottlenecks of another width: ResNeXt (arXiv 1611.05431), wide ResNet (arXiv 1605.07146)."""
    groups: int = 1
    group_width: int = 64

    def block(self):
        return partial(super().block(), groups=self.groups, group_width=self.group_width)


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
