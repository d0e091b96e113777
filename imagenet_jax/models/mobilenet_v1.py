"""MobileNet (arXiv 1704.04861): depthwise and pointwise convolutions in turn.

A module's path is its state_dict path in timm: blocks/0/0/conv_dw is blocks.0.0.conv_dw. Activations are cut off at 6,
as in the authors' code and every published weight; the paper says ReLU.
"""

from functools import partial

import flax.linen as nn

from imagenet_jax.models.blocks import Sequential, classify
from imagenet_jax.models.layers import Layers, divisible
from imagenet_jax.models.network import Network, refuse_no_width

# Width, blocks, stride of the first block of each stage.
_STAGES = ((64, 1, 1), (128, 2, 2), (256, 2, 2), (512, 6, 2), (1024, 2, 2))


class SeparableConv(nn.Module):
    """3x3 depthwise and 1x1 convolution, a norm and an activation after each."""
    features: int
    stride: int
    layers: Layers

    @nn.compact
    def __call__(self, x):
        layers, c = self.layers, x.shape[-1]
        x = layers.norm_act(layers.conv(c, 3, self.stride, c, name='conv_dw')(x), 'bn1')
        return layers.norm_act(layers.conv(self.features, 1, name='conv_pw')(x), 'bn2')


class MobileNetV1(Network):
    """3x3 stem, thirteen separable convolutions, classifier.

    Attributes:
      width: of every layer, as a multiple of the paper's.
      remat: see `layers.Layers`.
    """
    width: float = 1.0
    act: str = 'relu6'
    remat: bool = False

    def __post_init__(self):
        refuse_no_width('width', self.width)
        super().__post_init__()

    @nn.compact
    def __call__(self, images, train=False, features=False):
        layers = self.layers(train, remat=self.remat)
        stem = layers.conv(divisible(32 * self.width), 3, 2, name='conv_stem')
        x = layers.norm_act(stem(images), 'bn1')
        block = layers.block(SeparableConv)
        stages = tuple(partial(Sequential, tuple(
            partial(block, divisible(c * self.width), stride if i == 0 else 1, layers) for i in range(depth)))
            for c, depth, stride in _STAGES)
        outputs = Sequential(stages, every=True, name='blocks')(x)
        logits = classify(outputs[-1], self.num_classes, layers, 'classifier')
        return (logits, {f'blocks.{i}': x for i, x in enumerate(outputs)}) if features else logits


MODELS = {'mobilenet_v1': partial(MobileNetV1)}
