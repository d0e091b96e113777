"""What is known of each model beside its definition: its sizes, its recipe, its published results. Imports no JAX."""

import dataclasses
import fnmatch
import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from imagenet_jax.errors import unknown

# By recipe of configs/, the models that it takes and that have no other; where it is given none, it trains the first.
RECIPES = {
    'alexnet': ('alexnet',),
    'alexnet_v1': ('alexnet_v1', 'alexnet_bn'),
    'alexnet_v2': ('alexnet_v2',),
    'zfnet': ('zfnet', 'zfnet_bn'),
    'vgg16': ('vgg16', 'vgg11', 'vgg13', 'vgg19', 'vgg11_bn', 'vgg13_bn', 'vgg16_bn', 'vgg19_bn'),
    'resnet50': (
        'resnet50', 'resnet18', 'resnet34', 'resnet101', 'resnet152', 'wide_resnet50_2',
        'resnet18d', 'resnet34d', 'resnet50d', 'resnet101d', 'resnet152d',
        'resnet18v2', 'resnet34v2', 'resnet50v2', 'resnet101v2', 'resnet152v2', 'resnext50_32x4d', 'resnext101_32x8d',
        'seresnet18', 'seresnet34', 'seresnet50', 'seresnet101', 'resnest50', 'resnest50d', 'resnest101e',
        'oct_resnet50', 'oct_resnet50v2',
        'regnetx_002', 'regnetx_004', 'regnetx_006', 'regnetx_008', 'regnetx_016', 'regnetx_032',
        'regnetx_040', 'regnetx_064', 'regnetx_080', 'regnetx_120', 'regnetx_160', 'regnetx_320', 'regnety_002',
        'regnety_004', 'regnety_006', 'regnety_008', 'regnety_016', 'regnety_032', 'regnety_040', 'regnety_064',
        'regnety_080', 'regnety_120', 'regnety_160', 'regnety_320'),
    'mobilenet_v1': ('mobilenet_v1', 'mobilenet_v2'),
    'mobilenet_v3': ('mobilenet_v3_large', 'mobilenet_v3_small'),
    'ghostnet_130': ('ghostnet_130', 'ghostnet_100'),
    'cifar10_resnet20': ('resnet20_cifar', 'resnet8_cifar', 'resnet32_cifar', 'resnet44_cifar', 'resnet56_cifar',
                         'resnet110_cifar'),
    'cifar10_fast': ('resnet9_cifar',),
    'cifar10_alexnet': ('alexnet_cifar', 'alexnet_v1_cifar'),
}
_SIZES = Path(__file__).with_name('sizes.json')
RECIPE_OF = {model: recipe for recipe, models in RECIPES.items() for model in models}


@dataclasses.dataclass(frozen=True)
class Published:
    """A result that others report, not one of ours.

    Attributes:
      top1: accuracy in percent, of one centre crop where `on` names nothing else.
      top5: likewise; None where it is not known.
      on: the data set, and what sets the numbers apart.
      source: where they are from; 'its recipe' is the table of results that gives the recipe which the file follows.
    """
    top1: float
    top5: float | None = None
    on: str = 'ImageNet'
    source: str = 'its recipe'


def _cifar10(error: float) -> Published:
    return Published(round(100 - error, 2), on='CIFAR-10', source='arXiv 1512.03385, table 6')


def _mini_imagenet(error: float) -> Published:
    return Published(round(100 - error, 2), on='mini-ImageNet, ten crops')


# Of each model on its usual data; where several are known, the best of one network and one crop.
PUBLISHED = {
    'alexnet': Published(56.52, 79.07, source='torchvision'),
    'alexnet_v1': Published(59.3, 81.8, 'ImageNet, ten crops', 'NIPS 2012, table 2'),
    'alexnet_v2': Published(57.69, 79.10, source='its recipe, but for a rate that falls when the loss stays'),
    'zfnet': Published(61.6, 83.5, 'ImageNet, ten crops', 'arXiv 1311.2901, table 2'),
    'vgg16': Published(71.59, 90.38, source='torchvision'),
    'vgg19': Published(70.04, 89.30),
    'resnet34': Published(73.31, 91.42, source='torchvision'),
    'resnet50': Published(77.36),
    'resnet101': Published(79.13, 94.38),
    'resnet50v2': Published(77.06, 93.44),
    'resnet101v2': Published(78.90, 94.39),
    'resnext50_32x4d': Published(79.00, 94.39),
    'resnest50': Published(78.62, 94.28),
    'oct_resnet50v2': Published(78.2, 93.9, source='its authors'),
    'regnetx_040': Published(78.40, 94.04),
    'regnety_040': Published(79.22, 94.57),
    'regnety_064': Published(79.69, 94.82),
    'mobilenet_v1': Published(72.17, 90.70),
    'mobilenet_v2': Published(71.94, 90.59),
    'mobilenet_v3_large': Published(75.64, 92.61),
    'mobilenet_v3_small': Published(67.83, 87.78),
    'ghostnet_130': Published(75.78, 92.77),
    'resnet9_cifar': Published(94.0, on='CIFAR-10', source='How to train your ResNet'),
    'resnet20_cifar': _cifar10(8.75),
    'resnet32_cifar': _cifar10(7.51),
    'resnet44_cifar': _cifar10(7.17),
    'resnet56_cifar': _cifar10(6.97),
    'resnet110_cifar': _cifar10(6.43),
}
# Further results that recipes are held against: by (recipe, model), where it is not the one above.
ALSO_PUBLISHED = {
    ('alexnet_v2', 'alexnet_v2'): (Published(50.98),),
    ('vgg16', 'vgg16'): (Published(69.21, 88.67),),
    ('resnet50v2_avgpool', 'resnet50v2'): (Published(78.05, 94.19, 'ImageNet, ten crops'),
                                           Published(78.86, 94.50, 'ImageNet, ten crops, two models averaged')),
    ('resnet_strikes_back', 'resnet50'): tuple(
        Published(top1, on=f'ImageNet, {variant}', source='arXiv 2110.00476, table 2')
        for variant, top1 in (('a3', 78.1), ('a2', 79.8), ('a1', 80.4))),
    ('nvidia_resnet50', 'resnet50'): tuple(
        Published(top1, on=f'ImageNet, {epochs} epochs', source="NVIDIA's DeepLearningExamples")
        for epochs, top1 in ((90, 77.12), (250, 78.43))),
    ('ffcv_resnet50', 'resnet50'): tuple(
        Published(top1, top5, f'ImageNet, {epochs} epochs, an image and its mirror image', 'ffcv-imagenet')
        for epochs, top1, top5 in ((16, 73.8, 90.8), (24, 75.6, 92.1), (32, 76.6, 92.7), (40, 77.2, 93.2),
                                   (56, 78.0, 93.7), (88, 78.4, 94.1))),
    **{('torchvision_600_epochs', model): (Published(top1, top5, source='torchvision'),)
       for model, top1, top5 in (('resnet50', 80.858, 95.434), ('resnet101', 81.886, 95.780),
                                 ('resnet152', 82.284, 96.002), ('resnext50_32x4d', 81.198, 95.340))},
    ('cifar10_paper', 'resnet32_cifar'): (Published(92.49, on='CIFAR-10', source='arXiv 1512.03385, table 6'),
                                          Published(92.63, on='CIFAR-10, autoaugment')),
    ('imagenette', 'resnet50d'): tuple(
        Published(top1, on=f'Imagenette at 128 pixels, {epochs} epochs', source='its leaderboard, by other recipes')
        for epochs, top1 in ((5, 85.77), (20, 91.57), (80, 93.55))),
    ('miniimagenet', 'resnet50v2'): (_mini_imagenet(18.42),),
    ('miniimagenet', 'seresnet50'): (_mini_imagenet(16.36),),
    ('miniimagenet', 'alexnet_bn'): (_mini_imagenet(31.52),),
    ('miniimagenet', 'zfnet_bn'): (_mini_imagenet(29.42),),
}


class Sizes(NamedTuple):
    """Of a model as `models.create` makes it where it is given nothing.

    Attributes:
      parameters, multiply_adds: as `summary.total` has them, at its own image size.
      arrays, numbers: how many arrays its state_dict has, counts of batches left out, and how many numbers these hold:
        what finds the few models that are worth tracing where foreign weights do not fit the one that was named.
    """
    parameters: int
    multiply_adds: int
    arrays: int
    numbers: int


def image_size(name: str) -> int:
    """Side in pixels of the images that the model `name` is made for."""
    return 32 if name.endswith('_cifar') else 224


def eval_resize(name: str, size: int) -> int:
    """What the shorter side becomes before the centre crop of `size`: as for ImageNet, 256 of 224; CIFAR's is whole."""
    return size if image_size(name) < 64 else round(size * 256 / 224)


def sizes() -> dict[str, Sizes]:
    """Of every model.

    They are kept in sizes.json, since tracing every model takes a minute; `python tests/models/test_summary.py` writes
    them anew.
    """
    return {name: Sizes(*row) for name, row in json.loads(_SIZES.read_text()).items()}


def matching(patterns: Sequence[str]) -> list[str]:
    """Models that any of the patterns means, such as resnet*, in the order of `sizes`; all where there are none.

    Raises:
      UserError: a pattern that means none.
    """
    names = list(sizes())
    for pattern in patterns:
        if not fnmatch.filter(names, pattern):
            raise unknown('model', pattern, names)
    return [name for name in names if not patterns or any(fnmatch.fnmatchcase(name, each) for each in patterns)]


def config(name: str) -> str:
    """The recipe that trains the model `name`, as --config takes it from the root of the repository."""
    path = f'configs/{RECIPE_OF[name]}.py'
    return path if name == RECIPES[RECIPE_OF[name]][0] else f'{path}:{name}'


# Files of version 0.1 whose names are no model's -> what trains the same.
EARLIER_RECIPES = {
    **{f'cifar10_resnet{n}': f'configs/cifar10_resnet20.py:resnet{n}_cifar' for n in (8, 32, 44, 56, 110)},
    'cifar10_alexnet_v1': 'configs/cifar10_alexnet.py:alexnet_v1_cifar',
    'cifar10_alexnet_224': 'configs/cifar10_alexnet.py:alexnet',
    'cifar100_alexnet_224': 'configs/cifar100_alexnet.py:alexnet',
    'miniimagenet_resnet50v2': 'configs/miniimagenet.py',
    **{f'miniimagenet_{name}': f'configs/miniimagenet.py:{name}' for name in ('seresnet50', 'alexnet_bn', 'zfnet_bn')},
}
