"""RegNetX and RegNetY (arXiv 2003.13678): a network whose widths follow a quantised line.

The twelve networks of each table are given by the parameters found in the paper, from which depths and widths follow.
A module's path is its state_dict path in timm: s1/b1/conv1/conv is s1.b1.conv1.conv.
"""

import math
from functools import partial

import flax.linen as nn

from imagenet_jax.models.blocks import classify
from imagenet_jax.models.layers import ConvNorm, Layers, SqueezeExcite
from imagenet_jax.models.network import NormedResidualNetwork

_NAMES = ('conv', 'bn')


def stage_sizes(depth: int, w0: int, wa: float, wm: float, group_width: int) -> list[tuple[int, int, int]]:
    """(depth, width, group width) of each stage (section 3.3 of the paper).

    Block j would be w0 + wa * j wide; that is rounded to w0 times a power of wm, then to a multiple of 8, and blocks of
    one width are a stage. At last the width is rounded to whole groups, which are no wider than itself.
    """
    powers = [round(math.log(1 + wa * j / w0, wm)) for j in range(depth)]
    widths = [round(w0 * wm**power / 8) * 8 for power in powers]
    sizes = []
    for width in sorted(set(widths)):
        group = min(group_width, width)
        sizes.append((widths.count(width), round(width / group) * group, group))
    return sizes


class Block(nn.Module):
    """1x1, grouped 3x3 and 1x1 convolutions of one width, and the shortcut.

    In RegNetY the 3x3 is gated by channel; the gate's hidden layer is a quarter of the block's input wide. DropBlock
    follows the norm of the 3x3.
    """
    width: int
    stride: int
    group_width: int
    excite: bool
    layers: Layers

    @nn.compact
    def __call__(self, x):
        conv = partial(ConvNorm, self.width, layers=self.layers, names=_NAMES)
        y = conv(1, name='conv1')(x)
        y = conv(3, self.stride, self.width // self.group_width, drops=True, name='conv2')(y)
        if self.excite:
            y = SqueezeExcite(round(x.shape[-1] / 4), self.layers, name='se')(y)
        if x.shape != y.shape:
            x = conv(1, self.stride, act=False, ends_shortcut=True, name='downsample')(x)
        return conv(1, name='conv3')(y, x)


class Stage(nn.Module):
    """A block for each of `layers`; the first carries the stride of 2."""
    block: partial
    layers: tuple[Layers, ...]

    @nn.compact
    def __call__(self, x):
        for i, layers in enumerate(self.layers):
            x = self.block(stride=2 if i == 0 else 1, layers=layers, name=f'b{i + 1}')(x)
        return x


class Head(nn.Module):
    """Global average pool and classifier."""
    num_classes: int
    layers: Layers

    @nn.compact
    def __call__(self, x):
        return classify(x, self.num_classes, self.layers, 'fc')


class RegNet(NormedResidualNetwork):
    """3x3 stem 32 wide, four stages, classifier.

    Attributes:
      depth, w0, wa, wm, group_width: see `stage_sizes`.
      excite: RegNetY's squeeze and excitation.
    """
    depth: int
    w0: int
    wa: float
    wm: float
    group_width: int
    excite: bool = False

    @nn.compact
    def __call__(self, images, train=False, features=False):
        layers = self.layers(train)
        x = ConvNorm(32, 3, 2, layers=layers, names=_NAMES, name='stem')(images)
        maps, block = {}, layers.block(Block)
        sizes = stage_sizes(self.depth, self.w0, self.wa, self.wm, self.group_width)
        by_stage = layers.by_stage([depth for depth, _, _ in sizes])
        for i, ((_, width, group_width), blocks) in enumerate(zip(sizes, by_stage, strict=True)):
            make = partial(block, width=width, group_width=group_width, excite=self.excite)
            maps[f's{i + 1}'] = x = Stage(make, blocks, name=f's{i + 1}')(x)
        logits = Head(self.num_classes, layers, name='head')(x)
        return (logits, maps) if features else logits


# Hundreds of millions of multiply-adds: depth, w0, wa, wm, group width.
_X = {
    '002': (13, 24, 36.44, 2.49, 8), '004': (22, 24, 24.48, 2.54, 16), '006': (16, 48, 36.97, 2.24, 24),
    '008': (16, 56, 35.73, 2.28, 16), '016': (18, 80, 34.01, 2.25, 24), '032': (25, 88, 26.31, 2.25, 48),
    '040': (23, 96, 38.65, 2.43, 40), '064': (17, 184, 60.83, 2.07, 56), '080': (23, 80, 49.56, 2.88, 120),
    '120': (19, 168, 73.36, 2.37, 112), '160': (22, 216, 55.59, 2.1, 128), '320': (23, 320, 69.86, 2.0, 168),
}
_Y = {
    '002': (13, 24, 36.44, 2.49, 8), '004': (16, 48, 27.89, 2.09, 8), '006': (15, 48, 32.54, 2.32, 16),
    '008': (14, 56, 38.84, 2.4, 16), '016': (27, 48, 20.71, 2.65, 24), '032': (21, 80, 42.63, 2.66, 24),
    '040': (22, 96, 31.41, 2.24, 64), '064': (25, 112, 33.22, 2.27, 72), '080': (17, 192, 76.82, 2.19, 56),
    '120': (19, 168, 73.36, 2.37, 112), '160': (18, 200, 106.23, 2.48, 112), '320': (20, 232, 115.89, 2.53, 232),
}


def _preset(parameters: tuple, excite: bool) -> partial:
    depth, w0, wa, wm, group_width = parameters
    return partial(RegNet, depth=depth, w0=w0, wa=wa, wm=wm, group_width=group_width, excite=excite)


MODELS = ({f'regnetx_{name}': _preset(row, False) for name, row in _X.items()}
          | {f'regnety_{name}': _preset(row, True) for name, row in _Y.items()})
