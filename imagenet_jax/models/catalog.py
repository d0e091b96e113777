"""What is known of each model beside its definition: its input size, its published result, its recipe."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Published:
    """A result that others report, not one of ours.

    Attributes:
      top1: accuracy in percent, of one centre crop where `on` names nothing else.
      on: the data set, and what sets the number apart.
    """
    top1: float
    on: str = 'ImageNet'


# Where several are known, the best of one network and one crop. The docstring of each recipe says where it is from.
PUBLISHED = {
    'alexnet': Published(56.52), 'alexnet_v1': Published(59.3, 'ImageNet, ten crops'), 'alexnet_v2': Published(57.69),
    'zfnet': Published(61.6, 'ImageNet, ten crops'), 'vgg16': Published(71.59), 'vgg19': Published(70.04),
    'resnet34': Published(73.31), 'resnet50': Published(77.36), 'resnet101': Published(79.13),
    'resnet50v2': Published(77.06), 'resnet101v2': Published(78.90), 'resnext50_32x4d': Published(79.00),
    'resnest50': Published(78.62), 'oct_resnet50': Published(78.2, 'ImageNet, pre-activation'),
    'regnetx_040': Published(78.40), 'regnety_040': Published(79.22), 'regnety_064': Published(79.69),
    'mobilenet_v1': Published(72.17), 'mobilenet_v2': Published(71.94), 'mobilenet_v3_large': Published(75.64),
    'mobilenet_v3_small': Published(67.83), 'ghostnet_130': Published(75.78),
    'resnet20_cifar': Published(91.25, 'CIFAR-10'), 'resnet32_cifar': Published(92.49, 'CIFAR-10'),
    'resnet44_cifar': Published(92.83, 'CIFAR-10'), 'resnet56_cifar': Published(93.03, 'CIFAR-10'),
    'resnet110_cifar': Published(93.57, 'CIFAR-10'),
}
# RegNets with a recipe of their own; the others borrow that of regnetx_040 or regnety_040.
_REGNETS = ('regnetx_040', 'regnety_040', 'regnety_064')


def image_size(name: str) -> int:
    """Side in pixels of the images that the model `name` is made for."""
    return 32 if name.endswith('_cifar') else 224


def config(name: str) -> str:
    """Path, from the root of the repository, of the recipe that trains the model `name`."""
    recipe = name
    if name.endswith('_cifar'):
        recipe = f'cifar10_{name.removesuffix("_cifar")}'
    elif name.startswith('regnet') and name not in _REGNETS:
        recipe = f'{name[:len("regnetx")]}_040'
    return f'configs/{recipe}.py'
