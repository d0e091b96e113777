"""The nine-layer ResNet that trains on CIFAR-10 in seconds (D. Page, How to train your ResNet, myrtle.ai, 2018)."""

from functools import partial

import flax.linen as nn
import jax.numpy as jnp

from imagenet_jax.models.blocks import classify
from imagenet_jax.models.layers import ConvNorm, Layers
from imagenet_jax.models.network import ResidualNetwork

# The logits of a network with few layers and wide ones start too large for a high rate; as its author has it.
_LOGIT_SCALE = 0.125


class _Stage(nn.Module):
    """(N, H, W, C) -> (N, H / 2, W / 2, width): convolution, max-pool and, where `residual`, a block of two."""
    width: int
    residual: bool
    layers: Layers

    @nn.compact
    def __call__(self, x):
        conv = partial(ConvNorm, self.width, 3, layers=self.layers, names=('conv', 'bn'))
        x = self.layers.max_pool(conv(name='enter')(x), 2, 2, 0)
        if not self.residual:
            return x
        branch = conv(name='conv2')(conv(name='conv1', drops=True)(x))
        return self.layers.join(x, branch)


class ResNet9(ResidualNetwork):
    """A convolution, three stages of widths 128, 256 and 512, the first and last with a block; max-pool, classifier.

    The activation stands inside the branch of a block, before the sum, so that no branch may start at 0, where its
    gradient would be 0 as well. For 32 pixels, or more.
    """
    num_classes: int = 10

    @nn.compact
    def __call__(self, images, train=False, features=False):
        layers = self.layers(train)
        x = ConvNorm(64, 3, layers=layers, names=('conv', 'bn'), name='prep')(images)
        maps = {}
        first, last = layers.by_block((2, 2))
        for i, (width, of_block) in enumerate(((128, first), (256, None), (512, last))):
            stage = layers.block(_Stage)(width, of_block is not None, of_block or layers, name=f'layer{i + 1}')
            maps[stage.name] = x = stage(x)
        x = jnp.max(x, axis=(1, 2), keepdims=True)
        logits = classify(x, self.num_classes, layers, 'linear')
        logits = logits * _LOGIT_SCALE if self.num_classes else logits
        return (logits, maps) if features else logits


MODELS = {'resnet9_cifar': ResNet9}
