"""The two parts of a plain network, AlexNet or VGG: convolutions with pools between them, and dense layers.

They are PyTorch's two Sequentials: children are numbered, and those without parameters count too. Here, and not in
alexnet.py: VGG is no form of AlexNet.
"""

import itertools
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from imagenet_jax.models.layers import Layers, adaptive_mean_pool, at_least_float32, he_init, local_response_norm


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


def flatten(x: jax.Array, size: int, fully_convolutional: bool) -> jax.Array:
    """(N, H, W, C) -> (N, size * size * C), of means over size x size windows; or of every size x size pixels.

    `fully_convolutional` answers (N, H - size + 1, W - size + 1, size * size * C), which makes convolutions of the
    dense layers that follow (arXiv 1312.6229); a map that is smaller is pooled all the same.
    """
    height, width = x.shape[1:3]
    if not fully_convolutional or min(height, width) < size:
        return adaptive_mean_pool(x, size).reshape(x.shape[0], -1)
    return jnp.concatenate([x[:, i:height - size + 1 + i, j:width - size + 1 + j]
                            for i in range(size) for j in range(size)], -1)


def mean_answer(logits: jax.Array) -> jax.Array:
    """(N, K), or a map of answers (N, h, w, K), of which it is the mean -> (N, K)."""
    return logits if logits.ndim == 2 else logits.mean((1, 2))


class Classifier(nn.Module):
    """Two hidden dense layers of 4096 and the last, answered in float32; without classes, the second hidden layer.

    (N, inputs) -> (N, outputs), and a map (N, h, w, inputs) to one.
    """
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
