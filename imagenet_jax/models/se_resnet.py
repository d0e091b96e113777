"""SE-ResNet (arXiv 1709.01507): ResNet v1.5 whose residual branches end in squeeze and excitation of ratio 16.

A module's path is its state_dict path in timm: layer1/0/se/fc1 is layer1.0.se.fc1.
"""

from functools import partial

from imagenet_jax.models.resnet import BottleneckResNet, ResNet

_RATIO = 16


class SEResNet(ResNet):
    """Basic-block SE-ResNet; attributes as `ResNet`."""

    def block(self):
        return partial(super().block(), se_ratio=_RATIO)


class SEBottleneckResNet(BottleneckResNet):
    """Bottleneck SE-ResNet; attributes as `BottleneckResNet`."""

    def block(self):
        return partial(super().block(), se_ratio=_RATIO)


MODELS = {
    'seresnet18': partial(SEResNet, depths=(2, 2, 2, 2)),
    'seresnet34': partial(SEResNet, depths=(3, 4, 6, 3)),
    'seresnet50': partial(SEBottleneckResNet, depths=(3, 4, 6, 3)),
    'seresnet101': partial(SEBottleneckResNet, depths=(3, 4, 23, 3)),
}
