"""The two parts of a plain network, AlexNet or VGG: convolutions with pools between them, and dense layers.

They are PyTorch's two Sequentials: children are numbered, and those without parameters count too. Here, and not in
alexnet.py: VGG is no form of AlexNet.
"""

import itertools
from typing import NamedTuple

import flax.linen as nn

from imagenet_jax.models.layers import Layers, at_least_float32, he_init, local_response_norm


class Conv(NamedTuple):
    """One convolution with its activation, and what follows before the next.

    Attributes:
      features, kernel, stride, padding: of the convolution.
      split: in the model's groups.
      bias: initial value.
      lrn: local response normalisation after the activation.
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
    def __call__(self, x):
        layers, index, maps = self.layers, itertools.count(), {}
        for c in self.convs:
            x = layers.conv(c.features, c.kernel, c.stride, self.groups if c.split else 1, padding=c.padding,
                            init=self.init, use_bias=self.use_bias, bias_init=nn.initializers.constant(c.bias),
                            name=str(next(index)))(x)
            x = layers.norm_act(x, str(next(index))) if self.batch_norm else layers.act(x)
            next(index)
            if c.lrn:
                x, _ = local_response_norm(x, k=2.0, n=5, alpha=1e-4, beta=0.75), next(index)
            if c.pool:
                maps[f'features.{next(index)}'] = x = layers.max_pool(x, c.pool, 2, 0)
        return x, maps


class Classifier(nn.Module):
    """Two hidden dense layers of 4096 and the last, answered in float32; without classes, the second hidden layer."""
    num_classes: int
    layers: Layers
    dropout_first: bool
    use_bias: bool = True
    batch_norm: bool = False
    bias: float = 0.0

    @nn.compact
    def __call__(self, x):
        layers, index, drop = self.layers, itertools.count(), self.layers.dropout()
        for _ in range(2):
            if self.dropout_first:
                x, _ = drop(x), next(index)
            x = layers.dense(4096, use_bias=self.use_bias, bias_init=nn.initializers.constant(self.bias),
                             name=str(next(index)))(x)
            x = layers.norm_act(x, str(next(index))) if self.batch_norm else layers.act(x)
            next(index)
            if not self.dropout_first:
                x, _ = drop(x), next(index)
        if self.num_classes:
            x = layers.dense(self.num_classes, name=str(next(index)))(x)
        return at_least_float32(x)
