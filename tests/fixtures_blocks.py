"""Every kind of block, small."""

from functools import partial

import jax
import jax.numpy as jnp

from imagenet_jax.models import (
    ghostnet,
    mobilenet_v1,
    mobilenet_v2,
    mobilenet_v3,
    octresnet,
    regnet,
    resnest,
    resnet,
    resnet_v2,
)

# Every kind of block, to be called on 8 channels.
KINDS = {
    'basic, se': partial(resnet.BasicBlock, 4, 2, se_ratio=2),
    'bottleneck, grouped': partial(resnet.Bottleneck, 4, 1, groups=2, group_width=32),
    'v2 basic': partial(resnet_v2.Basic, 8, 2, shortcut='avgpool'),
    'v2 bottleneck': partial(resnet_v2.Bottleneck, 2, 1, shortcut='conv'),
    'resnest': partial(resnest.Bottleneck, 2, 2, average_down=True),
    'octave': partial(octresnet.OctaveBottleneck, 4, 1, alpha=0.25),
    'octave v2': partial(octresnet.OctaveBottleneckV2, 4, 2, alpha=0.25),
    'regnet': partial(regnet.Block, 8, 2, 4, True),
    'separable': partial(mobilenet_v1.SeparableConv, 8, 1),
    'inverted v2': partial(mobilenet_v2.InvertedResidual, 2, 8, 1),
    'inverted v3': partial(mobilenet_v3.InvertedResidual, 3, 16, 8, True, 1),
    'ghost': partial(ghostnet.GhostBottleneck, 3, 16, 8, True, 2)}


def filled(shapes):
    """Variables of these shapes, made without random bits, whose program takes long to compile."""
    return jax.tree.map(lambda s: 1 + jnp.cos(jnp.arange(s.size) * 1.7).reshape(s.shape) / 2, shapes)
