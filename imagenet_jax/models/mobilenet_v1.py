"""MobileNet (arXiv 1704.04861): depthwise and pointwise convolutions in turn.

A module's path is its state_dict path in timm: blocks/0/0/conv_dw is blocks.0.0.conv_dw. Activations are cut off at 6,
as in the authors' code and every published weight; the paper says ReLU.
"""

from functools import partial

import flax.linen as nn
import jax.numpy as jnp

from imagenet_jax.models.layers import FLOAT32, Layers, Sequential, divisible
from imagenet_jax.models.resnet import classify

# Width, blocks, stride of the first block of each stage.
_STAGES = ((64, 1, 1), (128, 2, 2), (256, 2, 2), (512, 6, 2), (1024, 2, 2))


class SeparableConv(nn.Module):
    """3x3 depthwise and 1x1 convolution, a norm and an activation after each."""
    features: int
    stride: int
    layers: Layers

    @nn.compact
    def __call__(self, x, train):
        conv, norm, _ = self.layers(train)
        c = x.shape[-1]
        x = nn.relu6(norm('bn1')(conv(c, 3, self.stride, c, name='conv_dw')(x)))
        return nn.relu6(norm('bn2')(conv(self.features, 1, name='conv_pw')(x)))


class MobileNetV1(nn.Module):
    """3x3 stem, thirteen separable convolutions, classifier.

    Attributes:
      width: of every layer, as a multiple of the paper's.
      num_classes: 0 answers the pooled features.
      dtype, param_dtype, norm, remat: see `layers.Layers`.
    """
    width: float = 1.0
    num_classes: int = 1000
    dtype: jnp.dtype = FLOAT32
    param_dtype: jnp.dtype = FLOAT32
    norm: str = 'batch'
    remat: bool = False

    @nn.compact
    def __call__(self, images, train=False, features=False):
        layers = Layers(self.dtype, self.param_dtype, self.norm, remat=self.remat)
        conv, norm, _ = layers(train)
        x = nn.relu6(norm('bn1')(conv(divisible(32 * self.width), 3, 2, name='conv_stem')(images)))
        block = layers.block(SeparableConv)
        stages = tuple(partial(Sequential, tuple(
            partial(block, divisible(c * self.width), stride if i == 0 else 1, layers) for i in range(depth)))
            for c, depth, stride in _STAGES)
        outputs = Sequential(stages, every=True, name='blocks')(x, train)
        logits = classify(outputs[-1], self.num_classes, self.dtype, self.param_dtype, 'classifier')
        return (logits, {f'blocks.{i}': x for i, x in enumerate(outputs)}) if features else logits


MODELS = {'mobilenet_v1': partial(MobileNetV1)}
