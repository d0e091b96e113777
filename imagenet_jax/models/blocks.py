"""What several families are put together from: stages, shortcuts, a stem, a head.

Each of them is here, and not in the first family that had it, so that a family imports another only where it is a form
of it.
"""

from collections.abc import Callable

import flax.linen as nn
import jax

from imagenet_jax.models.layers import Layers, SqueezeExcite, at_least_float32, divisible, global_mean, halve

# Ratio of the squeeze and excitation that `model.squeeze_excite` and SE-ResNet have (arXiv 1709.01507).
SE_RATIO = 16


class Sequential(nn.Module):
    """Blocks, given as constructors, one after the other and named by number.

    `every=True` answers the output of each, not only of the last.
    """
    blocks: tuple[Callable[..., nn.Module], ...]
    every: bool = False

    @nn.compact
    def __call__(self, x):
        outputs = []
        for i, block in enumerate(self.blocks):
            x = block(name=str(i))(x)
            outputs.append(x)
        return outputs if self.every else x


class Stage(nn.Module):
    """Blocks of one width, one for each of `layers`, made as block(width, stride, layers) and named by number.

    The first carries the stride.
    """
    block: Callable[..., nn.Module]
    width: int
    stride: int
    layers: tuple[Layers, ...]

    @nn.compact
    def __call__(self, x):
        for i, layers in enumerate(self.layers):
            block = layers.block(self.block)
            x = block(self.width, self.stride if i == 0 else 1, layers, name=str(i))(x)
        return x


class Inside(nn.Module):
    """Puts the one module that `make` answers a name deeper, where the reference has it."""
    make: Callable[[], nn.Module]

    @nn.compact
    def __call__(self, x):
        return self.make()(x)


class ProjectionShortcut(nn.Module):
    """(N, H, W, C) -> (N, H / stride, W / stride, features): identity, or a strided 1x1 convolution and a norm.

    Option B of arXiv 1512.03385: it projects where shapes do not agree.
    """
    layers: Layers

    @nn.compact
    def __call__(self, x, features, stride):
        if stride == 1 and x.shape[-1] == features:
            return x
        layers = self.layers
        x = layers.conv(features, 1, layers.conv_stride(stride), name='0')(layers.blur(x, stride))
        return layers.norm('1', ends_shortcut=True)(x)


class AverageShortcut(nn.Module):
    """Identity where shapes agree, else 2x2 average pool where it strides, a 1x1 convolution and a norm.

    ResNet-D of arXiv 1812.01187.
    """
    layers: Layers

    @nn.compact
    def __call__(self, x, features, stride):
        if stride == 1 and x.shape[-1] == features:
            return x
        x = halve(x) if stride == 2 else x
        return self.layers.norm('2', ends_shortcut=True)(self.layers.conv(features, 1, name='1')(x))


class DeepStem(nn.Module):
    """Three 3x3 convolutions, the last twice as wide and without norm; the first strides (arXiv 1812.01187)."""
    width: int
    layers: Layers

    @nn.compact
    def __call__(self, x):
        layers = self.layers
        x = layers.norm_act(layers.conv(self.width, 3, 2, name='0')(x), '1')
        x = layers.norm_act(layers.conv(self.width, 3, name='3')(x), '4')
        return layers.conv(self.width * 2, 3, name='6')(x)


def excite(x: jax.Array, ratio: int, layers: Layers) -> jax.Array:
    """Squeeze and excitation with a hidden layer `ratio` times narrower, as `se`; a ratio of 0 leaves x as it is.

    The hidden layer is a multiple of 8 wide, as in timm: of a map of 64 channels 8, where the paper has 4. To be called
    inside a compact method.
    """
    return SqueezeExcite(divisible(x.shape[-1] / ratio), layers, name='se')(x) if ratio else x


def end(x: jax.Array, y: jax.Array, name: str, se_ratio: int, layers: Layers) -> jax.Array:
    """The end of a residual block: the branch's last norm, its gate, the sum with the shortcut x, the activation.

    To be called once inside a compact method: it makes the norm there, by its name, and see `excite`, `Layers.join`.
    """
    if not se_ratio:
        return layers.norm_join_act(x, y, name)
    return layers.join_act(x, excite(layers.norm(name, ends_branch=True)(y), se_ratio, layers))


def classify(x: jax.Array, num_classes: int, layers: Layers, name: str) -> jax.Array:
    """Global average pool and dense classifier: (N, H, W, C) -> (N, num_classes), or (N, C) where there are no classes.

    At least float32. To be called inside a compact method: it makes the dense layer there, as `name`.
    """
    x = global_mean(x)
    return at_least_float32(layers.dense(num_classes, name=name)(layers.dropout()(x))) if num_classes else x
