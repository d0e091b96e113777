"""Octave-convolution ResNet-50 (arXiv 1904.05049): a fraction of the channels lives at half the resolution.

After ResNet, and after pre-activation ResNet (arXiv 1603.05027), which is what the paper compares. Where it leaves a
choice: a convolution of stride 2 is an average pool of both halves before one of stride 1, and the first block of the
last stage, shortcut too, merges the halves, so that the rest of it is plain.
"""

from functools import partial

import flax.linen as nn

from imagenet_jax.models.blocks import Stage, classify
from imagenet_jax.models.layers import Layers, halve
from imagenet_jax.models.network import NormedResidualNetwork, ResidualNetwork, refuse_outside_unit

# A pair of maps is (high, low): all pixels, and half as many rows and columns. low is None where there is none.


def _split(features: int, alpha: float) -> tuple[int, int]:
    """Channels at high and at low resolution."""
    low = int(alpha * features)
    return features - low, low


def _each(f, pair):
    return tuple(None if x is None else f(x) for x in pair)


def _shapes(pair):
    return _each(lambda x: x.shape, pair)


class OctaveConv(nn.Module):
    """Convolution from each half to each half: down by average pool before it, up by repetition after it."""
    features: int
    kernel: int
    alpha: float
    layers: Layers
    stride: int = 1

    @nn.compact
    def __call__(self, pair):
        conv = self.layers.conv
        high, low = _each(halve, pair) if self.stride == 2 else pair
        to_high, to_low = _split(self.features, self.alpha)
        y_high, y_low = conv(to_high, self.kernel, name='h2h')(high), None
        if low is not None:
            up = conv(to_high, self.kernel, name='l2h')(low).repeat(2, axis=1).repeat(2, axis=2)
            y_high += up[:, :high.shape[1], :high.shape[2]]  # an odd side has one pixel fewer
        if to_low:
            y_low = conv(to_low, self.kernel, name='h2l')(halve(high))
            if low is not None:
                y_low += conv(to_low, self.kernel, name='l2l')(low)
        return y_high, y_low


class OctaveConvNorm(nn.Module):
    """Octave convolution, a norm for each half, with `drops` DropBlock of each half and, with `act`, an activation."""
    features: int
    kernel: int
    alpha: float
    layers: Layers
    stride: int = 1
    act: bool = True
    ends_branch: bool = False
    drops: bool = False

    @nn.compact
    def __call__(self, pair):
        layers = self.layers
        pair = OctaveConv(self.features, self.kernel, self.alpha, layers, self.stride, name='conv')(pair)
        if self.act:
            return layers.norm_act(pair, ('bn_h', 'bn_l'), drops=self.drops)
        return tuple(None if x is None else layers.norm(name, ends_branch=self.ends_branch)(x)
                     for name, x in zip(('bn_h', 'bn_l'), pair, strict=True))


class OctaveBottleneck(nn.Module):
    """1x1, 3x3 and 1x1 octave convolutions, four times as wide at the end, and the shortcut.

    DropBlock follows the norms of the 3x3, of each half on its own; DropPath takes both halves together.
    """
    width: int
    stride: int
    layers: Layers
    alpha: float

    @nn.compact
    def __call__(self, pair):
        conv = partial(OctaveConvNorm, alpha=self.alpha, layers=self.layers)
        y = conv(self.width, 1, name='conv1')(pair)
        y = conv(self.width, 3, stride=self.stride, drops=True, name='conv2')(y)
        y = conv(self.width * 4, 1, act=False, ends_branch=True, name='conv3')(y)
        if _shapes(pair) != _shapes(y):
            pair = conv(self.width * 4, 1, stride=self.stride, act=False, name='downsample')(pair)
        return self.layers.join_act(pair, y)


class OctaveBottleneckV2(nn.Module):
    """1x1, 3x3 and 1x1 octave convolutions, each after norms of both halves and activations, and the shortcut.

    As in `resnet_v2`, the first norms of a block that projects serve the shortcut too. DropBlock follows the norms
    after the 3x3.
    """
    width: int
    stride: int
    layers: Layers
    alpha: float

    @nn.compact
    def __call__(self, pair):
        layers = self.layers
        conv = partial(OctaveConv, alpha=self.alpha, layers=layers)

        def ready(y, name, drops=False):
            return layers.norm_act(y, (f'{name}_h', f'{name}_l'), drops=drops)

        first = ready(pair, 'norm1')
        y = conv(self.width, 1, name='conv1')(first)
        y = conv(self.width, 3, stride=self.stride, name='conv2')(ready(y, 'norm2'))
        y = conv(self.width * 4, 1, name='conv3')(ready(y, 'norm3', drops=True))
        if _shapes(pair) != _shapes(y):
            pair = conv(self.width * 4, 1, stride=self.stride, name='downsample')(first)
        return layers.join(pair, y)


def octave_stages(x, block, depths, alpha, layers):
    """The map of the last stage, which is plain, and those of all stages by name.

    To be called inside a compact method: it makes the stages there, as layer1 and so on.
    """
    pair, maps = (x, None), {}
    for i, blocks in enumerate(layers.by_stage(depths)):
        make = partial(block, alpha=0.0 if i + 1 == len(depths) else alpha)
        stage = Stage(make, 64 * 2**i, 1 if i == 0 else 2, blocks, name=f'layer{i + 1}')
        pair = high, low = stage(pair)
        maps |= {stage.name: high} if low is None else {f'{stage.name}.high': high, f'{stage.name}.low': low}
    return high, maps


class _Octave(ResidualNetwork):
    """What both forms have: bottlenecks, with a plain stem, octave stages, and a plain last stage.

    `features=True` answers layer1.high, layer1.low and so on, and layer4.

    Attributes:
      depths: blocks of each stage.
      alpha: fraction of the channels at half resolution.
    """
    depths: tuple[int, ...]
    alpha: float = 0.125

    def __post_init__(self):
        refuse_outside_unit('alpha', self.alpha)
        super().__post_init__()


class OctaveResNet(_Octave, NormedResidualNetwork):
    """After ResNet."""

    @nn.compact
    def __call__(self, images, train=False, features=False):
        layers = self.layers(train)
        x = layers.norm_act(layers.conv(64, 7, 2, name='conv1')(images), 'bn1')
        x = layers.max_pool(x, 3, 2, 1)
        x, maps = octave_stages(x, OctaveBottleneck, self.depths, self.alpha, layers)
        logits = classify(x, self.num_classes, layers, 'fc')
        return (logits, maps) if features else logits


class OctaveResNetV2(_Octave):
    """The pre-activation form: no norm in the stem, one before the global average pool, and no zero_gamma."""

    @nn.compact
    def __call__(self, images, train=False, features=False):
        layers = self.layers(train)
        x = layers.max_pool(layers.conv(64, 7, 2, name='conv1')(images), 3, 2, 1)
        x, maps = octave_stages(x, OctaveBottleneckV2, self.depths, self.alpha, layers)
        logits = classify(layers.norm_act(x, 'norm'), self.num_classes, layers, 'fc')
        return (logits, maps) if features else logits


MODELS = {
    'oct_resnet50': partial(OctaveResNet, depths=(3, 4, 6, 3)),
    'oct_resnet50v2': partial(OctaveResNetV2, depths=(3, 4, 6, 3)),
}
