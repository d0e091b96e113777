"""SE-ResNet (arXiv 1709.01507): ResNet v1.5 whose residual branches end in squeeze and excitation of ratio 16.

A module's path is its state_dict path in timm: layer1/0/se/fc1 is layer1.0.se.fc1.
"""

from functools import partial

from imagenet_jax.models.resnet import BottleneckResNet, ResNet

MODELS = {
    'seresnet18': partial(ResNet, depths=(2, 2, 2, 2), squeeze_excite=True),
    'seresnet34': partial(ResNet, depths=(3, 4, 6, 3), squeeze_excite=True),
    'seresnet50': partial(BottleneckResNet, depths=(3, 4, 6, 3), squeeze_excite=True),
    'seresnet101': partial(BottleneckResNet, depths=(3, 4, 23, 3), squeeze_excite=True),
}
