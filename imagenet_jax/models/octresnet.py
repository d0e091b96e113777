"""Octave-convolution ResNet-50 (arXiv 1904.05049): a fraction of the channels lives at half the resolution.

Where the paper leaves a choice: a convolution of stride 2 is an average pool of both halves before one of stride 1,
and the first block of the last stage, shortcut too, merges the halves, so that the rest of it is plain.
"""

from functools import partial

import flax.linen as nn
import jax.numpy as jnp

from imagenet_jax.models.layers import FLOAT32, Layers, halve, max_pool
from imagenet_jax.models.resnet import classify

# A pair of maps is (high, low): all pixels, and half as many rows and columns. low is None where there is none.


def _split(features: int, alpha: float) -> tuple[int, int]:
    """Channels at high and at low resolution."""
    low = int(alpha * features)
    return features - low, low


def _each(f, pair):
    return tuple(None if x is None else f(x) for x in pair)


class OctaveConv(nn.Module):
    """Convolution from each half to each half: down by average pool before it, up by repetition after it."""
    features: int
    kernel: int
    alpha: float
    layers: Layers

    @nn.compact
    def __call__(self, pair, train):
        conv, _, _ = self.layers(train)
        high, low = pair
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
    """Octave convolution, a norm for each half and, with `act`, ReLU."""
    features: int
    kernel: int
    alpha: float
    layers: Layers
    stride: int = 1
    act: bool = True
    ends_branch: bool = False

    @nn.compact
    def __call__(self, pair, train):
        _, norm, act = self.layers(train)
        if self.stride == 2:
            pair = _each(halve, pair)
        high, low = OctaveConv(self.features, self.kernel, self.alpha, self.layers, name='conv')(pair, train)
        high = norm('bn_h', ends_branch=self.ends_branch)(high)
        if low is not None:
            low = norm('bn_l', ends_branch=self.ends_branch)(low)
        return _each(act, (high, low)) if self.act else (high, low)


class OctaveBottleneck(nn.Module):
    """1x1, 3x3 and 1x1 octave convolutions, four times as wide at the end, and the shortcut."""
    width: int
    stride: int
    alpha: float
    layers: Layers

    @nn.compact
    def __call__(self, pair, train):
        conv = partial(OctaveConvNorm, alpha=self.alpha, layers=self.layers)
        y = conv(self.width, 1, name='conv1')(pair, train)
        y = conv(self.width, 3, stride=self.stride, name='conv2')(y, train)
        y = conv(self.width * 4, 1, act=False, ends_branch=True, name='conv3')(y, train)
        if [x is not None and x.shape for x in pair] != [x is not None and x.shape for x in y]:
            pair = conv(self.width * 4, 1, stride=self.stride, act=False, name='downsample')(pair, train)
        return tuple(None if b is None else nn.relu(a + b) for a, b in zip(pair, y, strict=True))


class OctaveStage(nn.Module):
    """`depth` blocks of one width; the first carries the stride."""
    depth: int
    width: int
    stride: int
    alpha: float
    layers: Layers

    @nn.compact
    def __call__(self, pair, train):
        block = self.layers.block(OctaveBottleneck)
        for i in range(self.depth):
            stride = self.stride if i == 0 else 1
            pair = block(self.width, stride, self.alpha, self.layers, name=str(i))(pair, train)
        return pair


class OctaveResNet(nn.Module):
    """ResNet of bottlenecks with a plain stem, octave stages, and a plain last stage.

    `features=True` answers layer1.high, layer1.low and so on, and layer4.

    Attributes:
      depths: blocks of each stage.
      alpha: fraction of the channels at half resolution.
      num_classes: 0 answers the pooled features.
      dtype, param_dtype, norm, zero_gamma, remat: see `layers.Layers`.
    """
    depths: tuple[int, ...]
    alpha: float = 0.125
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
        pair = max_pool(act(norm('bn1')(conv(64, 7, 2, name='conv1')(images))), 3, 2, 1), None
        maps = {}
        for i, depth in enumerate(self.depths):
            name, alpha = f'layer{i + 1}', 0.0 if i + 1 == len(self.depths) else self.alpha
            pair = high, low = OctaveStage(depth, 64 * 2**i, 1 if i == 0 else 2, alpha, layers, name=name)(pair, train)
            maps |= {name: high} if low is None else {f'{name}.high': high, f'{name}.low': low}
        logits = classify(high, self.num_classes, self.dtype, self.param_dtype, 'fc')
        return (logits, maps) if features else logits


MODELS = {'oct_resnet50': partial(OctaveResNet, depths=(3, 4, 6, 3))}
