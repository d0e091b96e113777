"""Pre-activation ResNet (arXiv 1603.05027): norm and ReLU come before each convolution, and once more at the end.

A module's path is that of timm's resnetv2: stages/0/blocks/0/conv1. As there, the first norm of a block that projects
serves the shortcut too, the 3x3 of a bottleneck carries the stride, and the classifier is a 1x1 convolution.
"""

from functools import partial

import flax.linen as nn

from imagenet_jax.errors import unknown
from imagenet_jax.models.blocks import SE_RATIO, Inside, Stage, excite
from imagenet_jax.models.layers import LIP, Layers, at_least_float32, dense_init, global_mean, halve, strided
from imagenet_jax.models.network import ResidualNetwork, refuse_beside_lip

_SHORTCUTS = ('conv', 'avgpool')


class Shortcut(nn.Module):
    """1x1 convolution, strided, or after a strided 2x2 average pool (arXiv 1812.01187, ResNet-D)."""
    kind: str
    layers: Layers

    @nn.compact
    def __call__(self, x, features, stride):
        if self.kind == 'avgpool' and stride == 2:
            x, stride = halve(x), 1
        return self.layers.conv(features, 1, stride, name='conv')(x)


class Basic(nn.Module):
    """Two 3x3 convolutions beside the shortcut; DropBlock follows the norm between them.

    The branch ends in a gate by channel where `se_ratio` is not 0.
    """
    width: int
    stride: int
    layers: Layers
    shortcut: str
    se_ratio: int = 0

    @nn.compact
    def __call__(self, x):
        layers = self.layers
        y = layers.norm_act(x, 'norm1')
        pool, kernel, stride = strided(y, self.stride, layers)
        if self.stride > 1 or x.shape[-1] != self.width:
            x = Shortcut(self.shortcut, layers, name='downsample')(pool(y, 'downsample_lip'), self.width, stride)
        y = layers.conv(self.width, kernel, stride, name='conv1')(pool(y, 'lip'))
        y = layers.conv(self.width, 3, name='conv2')(layers.norm_act(y, 'norm2', drops=True))
        return layers.join(x, excite(y, self.se_ratio, layers))


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolutions, four times as wide at the end, beside the shortcut.

    DropBlock follows the norm after the 3x3. The branch ends in a gate by channel where `se_ratio` is not 0.
    """
    width: int
    stride: int
    layers: Layers
    shortcut: str
    se_ratio: int = 0

    @nn.compact
    def __call__(self, x):
        layers = self.layers
        y = layers.norm_act(x, 'norm1')
        pool, kernel, stride = strided(y, self.stride, layers)
        if self.stride > 1 or x.shape[-1] != self.width * 4:
            x = Shortcut(self.shortcut, layers, name='downsample')(pool(y, 'downsample_lip'), self.width * 4, stride)
        y = layers.norm_act(layers.conv(self.width, 1, name='conv1')(y), 'norm2')
        y = layers.conv(self.width, kernel, stride, name='conv2')(pool(y, 'lip'))
        y = layers.conv(self.width * 4, 1, name='conv3')(layers.norm_act(y, 'norm3', drops=True))
        return layers.join(x, excite(y, self.se_ratio, layers))


class Stages(nn.Module):
    """The four stages; also answers the map after each."""
    block: partial
    depths: tuple[int, ...]
    layers: Layers

    @nn.compact
    def __call__(self, x):
        maps = {}
        for i, layers in enumerate(self.layers.by_stage(self.depths)):
            blocks = partial(Stage, self.block, 64 * 2**i, 1 if i == 0 else 2, layers, name='blocks')
            maps[f'stages.{i}'] = x = Inside(blocks, name=str(i))(x)
        return x, maps


class ResNetV2(ResidualNetwork):
    """7x7 stem without a norm, four stages, final norm, global average pool, classifier.

    There is no zero_gamma: branches end in a convolution.

    Attributes:
      block: `Basic` or `Bottleneck`.
      depths: blocks of each stage.
      shortcut: 'conv' (strided 1x1 convolution) or 'avgpool' (2x2 average pool, then the convolution).
      squeeze_excite: branches end in squeeze and excitation.
      lip, deformable: as of `resnet.ResNet`.
    """
    block: type[nn.Module]
    depths: tuple[int, ...]
    shortcut: str = 'conv'
    squeeze_excite: bool = False
    lip: bool = False
    deformable: int = 0

    def __post_init__(self):
        if self.shortcut not in _SHORTCUTS:
            raise unknown('model.shortcut', self.shortcut, _SHORTCUTS)
        if self.lip:
            refuse_beside_lip(shortcut=self.shortcut != 'conv')
        super().__post_init__()

    @nn.nowrap
    def layers(self, train, **more):
        return super().layers(train, lip=self.lip, deformable_stages=self.deformable, **more)

    @nn.compact
    def __call__(self, images, train=False, features=False):
        layers = self.layers(train)
        x = Inside(partial(layers.conv, 64, 7, 2, name='conv'), name='stem')(images)
        x = LIP(3, layers, name='lip')(x, x) if self.lip else layers.max_pool(x, 3, 2, 1)
        block = partial(self.block, shortcut=self.shortcut, se_ratio=SE_RATIO if self.squeeze_excite else 0)
        x, maps = Stages(block, self.depths, layers, name='stages')(x)
        x = global_mean(layers.norm_act(x, 'norm'), keepdims=True)
        if self.num_classes:
            x = layers.dropout()(x)
            classifier = partial(layers.conv, self.num_classes, 1, use_bias=True, init=dense_init, name='fc')
            x = at_least_float32(Inside(classifier, name='head')(x))
        logits = x[:, 0, 0]
        return (logits, maps) if features else logits


MODELS = {
    'resnet18v2': partial(ResNetV2, block=Basic, depths=(2, 2, 2, 2)),
    'resnet34v2': partial(ResNetV2, block=Basic, depths=(3, 4, 6, 3)),
    'resnet50v2': partial(ResNetV2, block=Bottleneck, depths=(3, 4, 6, 3)),
    'resnet101v2': partial(ResNetV2, block=Bottleneck, depths=(3, 4, 23, 3)),
    'resnet152v2': partial(ResNetV2, block=Bottleneck, depths=(3, 8, 36, 3)),
}
