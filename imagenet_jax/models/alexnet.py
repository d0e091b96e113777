"""AlexNet: the two towers of NIPS 2012 (alexnet_v1), its successors (arXiv 1404.5997), and forms for 32 pixels.

`Features` and `Classifier` are PyTorch's two Sequentials: children are numbered, those without parameters count too.
VGG is made of them as well.
"""

import itertools
from functools import partial
from typing import NamedTuple

import flax.linen as nn
import jax.numpy as jnp

from imagenet_jax.models.layers import (
    FLOAT32,
    Layers,
    adaptive_mean_pool,
    at_least_float32,
    dense_init,
    he_init,
    local_response_norm,
    max_pool,
)


class Conv(NamedTuple):
    """One convolution with its ReLU, and what follows before the next.

    Attributes:
      features, kernel, stride, padding: of the convolution.
      split: in the model's groups.
      bias: initial value.
      lrn: local response normalisation after the ReLU.
      pool: window of a max-pool of stride 2, the last thing; 0 for none.
    """
    features: int
    kernel: int = 3
    stride: int = 1
    padding: int = 1
    split: bool = False
    bias: float = 0.0
    lrn: bool = False
    pool: int = 0


class Features(nn.Module):
    """The convolutions; also answers the map after each pool."""
    convs: tuple[Conv, ...]
    layers: Layers
    groups: int = 1
    use_bias: bool = True
    batch_norm: bool = False
    init: nn.initializers.Initializer = he_init()

    @nn.compact
    def __call__(self, x, train):
        conv, norm, act = self.layers(train)
        index, maps = itertools.count(), {}
        for c in self.convs:
            x = conv(c.features, c.kernel, c.stride, self.groups if c.split else 1, padding=c.padding, init=self.init,
                     use_bias=self.use_bias, bias_init=nn.initializers.constant(c.bias), name=str(next(index)))(x)
            if self.batch_norm:
                x = norm(str(next(index)))(x)
            x, _ = act(x), next(index)
            if c.lrn:
                x, _ = local_response_norm(x, k=2.0, n=5, alpha=1e-4, beta=0.75), next(index)
            if c.pool:
                maps[f'features.{next(index)}'] = x = max_pool(x, c.pool, 2, 0)
        return x, maps


class Classifier(nn.Module):
    """Two hidden dense layers of 4096 and the last, answered in float32; without classes, the second hidden layer."""
    num_classes: int
    dropout: float
    layers: Layers
    dropout_first: bool
    use_bias: bool = True
    batch_norm: bool = False
    bias: float = 0.0

    @nn.compact
    def __call__(self, x, train):
        _, norm, act = self.layers(train)
        index, drop = itertools.count(), nn.Dropout(self.dropout, deterministic=not train)
        for _ in range(2):
            if self.dropout_first:
                x, _ = drop(x), next(index)
            x = self.layers.dense(4096, use_bias=self.use_bias, bias_init=nn.initializers.constant(self.bias),
                                  name=str(next(index)))(x)
            if self.batch_norm:
                x = norm(str(next(index)))(x)
            x, _ = act(x), next(index)
            if not self.dropout_first:
                x, _ = drop(x), next(index)
        if self.num_classes:
            x = self.layers.dense(self.num_classes, name=str(next(index)))(x)
        return at_least_float32(x)


class AlexNet(nn.Module):
    """Five convolutions, means over 6x6 windows (at 224 pixels there is nothing to average), three dense layers.

    Attributes:
      convs: the convolutions.
      batch_norm: a BatchNorm before each ReLU, and no bias there.
      paper_init: N(0, .01) for every kernel and bias 1 in the hidden dense layers, as in the paper; else He's.
      num_classes: 0 answers the 4096 features of the second hidden layer.
      dropout: before (each of) the hidden dense layers.
      groups: of the convolutions of the two towers; 1 is a single tower.
      dtype, param_dtype, norm: see `layers.Layers`.
    """
    convs: tuple[Conv, ...]
    batch_norm: bool
    paper_init: bool
    num_classes: int = 1000
    dropout: float = 0.5
    groups: int = 2
    dtype: jnp.dtype = FLOAT32
    param_dtype: jnp.dtype = FLOAT32
    norm: str = 'batch'

    @property
    def flattens(self):
        """Dense layer after a flattened map -> the map's (C, H, W)."""
        return {'classifier.1': (self.convs[-1].features, 6, 6)}

    @nn.compact
    def __call__(self, images, train=False, features=False):
        layers = Layers(self.dtype, self.param_dtype, self.norm)
        init, bias = (dense_init, 1.0) if self.paper_init else (he_init(), 0.0)
        shared = {'use_bias': not self.batch_norm, 'batch_norm': self.batch_norm}
        x, maps = Features(self.convs, layers, self.groups, init=init, **shared, name='features')(images, train)
        x = adaptive_mean_pool(x, 6).reshape(x.shape[0], -1)
        logits = Classifier(self.num_classes, self.dropout, layers, dropout_first=True, bias=bias, **shared,
                            name='classifier')(x, train)
        return (logits, maps) if features else logits


class CifarAlexNet(AlexNet):
    """AlexNet for ten classes of 32-pixel images."""
    num_classes: int = 10


def _convs(widths, lrn=(), biases=(0.0,) * 5, split=False, small=False):
    """AlexNet's five; `lrn` numbers, from 1, those that LRN follows, `small` is the first one for 32-pixel images."""
    first = {'kernel': 5, 'padding': 0} if small else {'kernel': 11, 'stride': 4, 'padding': 2}
    shapes = first, {'kernel': 5, 'padding': 2}, {}, {}, {}
    return tuple(Conv(widths[i], **shape, split=split and i in (1, 3, 4), bias=biases[i], lrn=i + 1 in lrn,
                      pool=3 if i in (0, 1, 4) else 0) for i, shape in enumerate(shapes))


_TOWERS, _ONE_WEIRD_TRICK, _TORCHVISION = (96, 256, 384, 384, 256), (64, 192, 384, 384, 256), (64, 192, 384, 256, 256)
_BIASES = (0.0, 1.0, 0.0, 1.0, 1.0)
_plain = partial(AlexNet, batch_norm=False, paper_init=False, groups=1)
_paper = partial(AlexNet, paper_init=True)

MODELS = {
    'alexnet_v1': partial(_paper, convs=_convs(_TOWERS, (1, 2), _BIASES, split=True), batch_norm=False),
    'alexnet_bn': partial(_paper, convs=_convs(_TOWERS, split=True), batch_norm=True),
    'alexnet_v2': partial(_plain, convs=_convs(_ONE_WEIRD_TRICK)),
    'alexnet': partial(_plain, convs=_convs(_TORCHVISION)),
    'alexnet_cifar': partial(CifarAlexNet, convs=_convs(_TORCHVISION, small=True), batch_norm=False, paper_init=False,
                             groups=1),
    'alexnet_v1_cifar': partial(CifarAlexNet, convs=_convs(_TOWERS, (1, 2, 5), _BIASES, small=True), batch_norm=False,
                                paper_init=True, groups=1),
}
