"""ZFNet (arXiv 1311.2901): AlexNet with a smaller and denser first convolution.

As in pytorchcv's, LRN comes before the pool, where the paper normalises contrast after it, and windows of a pool that
are only partly inside count too.
"""

from functools import partial

import flax.linen as nn

from imagenet_jax.models.layers import Layers, at_least_float32, local_response_norm
from imagenet_jax.models.network import Network
from imagenet_jax.models.plain import flatten, mean_answer

# Of each stage: its units' (features, kernel, stride, padding). A max-pool ends each stage.
_STAGES = (
    ((96, 7, 2, 1),),
    ((256, 5, 2, 0),),
    ((384, 3, 1, 1), (384, 3, 1, 1), (256, 3, 1, 1)),
)


class Unit(nn.Module):
    """Convolution with a bias, or with a norm instead, and activation."""
    shape: tuple[int, int, int, int]
    batch_norm: bool
    layers: Layers

    @nn.compact
    def __call__(self, x):
        layers = self.layers
        features, kernel, stride, padding = self.shape
        x = layers.conv(features, kernel, stride, padding=padding, use_bias=not self.batch_norm, name='conv')(x)
        return layers.norm_act(x, 'bn') if self.batch_norm else layers.act(x)


class Stage(nn.Module):
    """Units, an LRN after each where `lrn`, and a max-pool."""
    units: tuple[tuple[int, int, int, int], ...]
    lrn: bool
    batch_norm: bool
    layers: Layers

    @nn.compact
    def __call__(self, x):
        for i, unit in enumerate(self.units):
            x = Unit(unit, self.batch_norm, self.layers, name=f'unit{i + 1}')(x)
            if self.lrn:
                x = local_response_norm(x, k=2.0, n=5, alpha=2e-5, beta=0.75)
        return self.layers.max_pool(x, 3, 2, 0, ceil=True)


class Features(nn.Module):
    """The three stages; also answers the map after each."""
    batch_norm: bool
    layers: Layers

    @nn.compact
    def __call__(self, x):
        maps = {}
        for i, units in enumerate(_STAGES):
            lrn = i < 2 and not self.batch_norm
            stage = Stage(units, lrn, self.batch_norm, self.layers, name=f'stage{i + 1}')
            maps[f'features.{stage.name}'] = x = stage(x)
        return x, maps


class Hidden(nn.Module):
    """Dense layer of 4096, activation, dropout."""
    layers: Layers

    @nn.compact
    def __call__(self, x):
        x = self.layers.act(self.layers.dense(4096, name='fc')(x))
        return self.layers.dropout()(x)


class Output(nn.Module):
    """Two hidden layers and the classifier, answered in float32."""
    num_classes: int
    layers: Layers

    @nn.compact
    def __call__(self, x):
        for name in ('fc1', 'fc2'):
            x = Hidden(self.layers, name=name)(x)
        if self.num_classes:
            x = self.layers.dense(self.num_classes, name='fc3')(x)
        return at_least_float32(x)


class ZFNet(Network):
    """Three stages, means over 6x6 windows (at 224 pixels there is nothing to average), three dense layers.

    Attributes:
      batch_norm: a BatchNorm after each convolution, and neither bias nor LRN.
      num_classes: 0 answers the 4096 features of the second hidden layer.
      dropout: after each hidden dense layer.
      fully_convolutional: where the last map is larger than 6x6, the dense layers answer every 6x6 pixels of it,
        and the mean of that is the answer, instead of pooling the map (arXiv 1312.6229).
    """
    batch_norm: bool
    dropout: float = 0.5
    fully_convolutional: bool = False

    @property
    def flattens(self):
        """Dense layer after a flattened map -> the map's (C, H, W)."""
        return {'output.fc1.fc': (_STAGES[-1][-1][0], 6, 6)}

    @nn.compact
    def __call__(self, images, train=False, features=False):
        layers = self.layers(train)
        x, maps = Features(self.batch_norm, layers, name='features')(images)
        x = flatten(x, 6, self.fully_convolutional)
        logits = Output(self.num_classes, layers, name='output')(x)
        logits = mean_answer(logits)
        return (logits, maps) if features else logits


MODELS = {'zfnet': partial(ZFNet, batch_norm=False), 'zfnet_bn': partial(ZFNet, batch_norm=True)}
