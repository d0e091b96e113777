"""What is known of each model beside its definition: its sizes, its recipe, its published results. Imports no JAX."""

import dataclasses
import json
from pathlib import Path

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

# How many arrays the state_dict of each model has, counts of batches left out, and how many numbers they hold: what
# finds the few that are worth tracing where foreign weights do not fit the model that was named.
ARRAYS = {
    'alexnet': (16, 61_100_840), 'alexnet_bn': (37, 60_993_928), 'alexnet_cifar': (16, 57_026_378),
    'alexnet_v1': (16, 60_965_224), 'alexnet_v1_cifar': (16, 58_294_666), 'alexnet_v2': (16, 61_838_248),
    'ghostnet_100': (432, 5_204_476), 'ghostnet_130': (432, 7_387_356), 'mobilenet_v1': (137, 4_253_864),
    'mobilenet_v2': (262, 3_538_984), 'mobilenet_v3_large': (266, 5_507_432), 'mobilenet_v3_small': (210, 2_554_968),
    'oct_resnet50': (559, 25_610_152), 'oct_resnet50v2': (531, 25_594_792), 'regnetx_002': (222, 2_705_640),
    'regnetx_004': (357, 5_194_184), 'regnetx_006': (267, 6_229_320), 'regnetx_008': (267, 7_296_968),
    'regnetx_016': (297, 9_233_640), 'regnetx_032': (402, 15_359_112), 'regnetx_040': (372, 22_194_312),
    'regnetx_064': (282, 26_283_464), 'regnetx_080': (372, 39_663_112), 'regnetx_120': (312, 46_202_440),
    'regnetx_160': (357, 54_389_704), 'regnetx_320': (372, 107_973_576), 'regnety_002': (274, 3_183_844),
    'regnety_004': (331, 4_371_296), 'regnety_006': (312, 6_084_920), 'regnety_008': (293, 6_293_056),
    'regnety_016': (540, 11_255_102), 'regnety_032': (426, 19_502_498), 'regnety_040': (445, 20_708_928),
    'regnety_064': (502, 30_665_684), 'regnety_080': (350, 39_265_812), 'regnety_120': (388, 51_918_928),
    'regnety_160': (369, 83_712_956), 'regnety_320': (407, 145_205_058), 'resnest50': (395, 27_528_456),
    'resnest50d': (405, 27_547_816), 'resnest101e': (796, 48_405_128), 'resnet8_cifar': (37, 75_770),
    'resnet9_cifar': (42, 6_577_610), 'resnet18': (102, 11_699_112), 'resnet18d': (112, 11_718_472),
    'resnet18v2': (90, 11_695_528), 'resnet20_cifar': (97, 271_098), 'resnet32_cifar': (157, 466_426),
    'resnet34': (182, 21_814_696), 'resnet34d': (192, 21_834_056), 'resnet34v2': (170, 21_811_112),
    'resnet44_cifar': (217, 661_754), 'resnet50': (267, 25_610_152), 'resnet50d': (277, 25_629_512),
    'resnet50v2': (251, 25_594_792), 'resnet56_cifar': (277, 857_082), 'resnet101': (522, 44_654_504),
    'resnet101d': (532, 44_673_864), 'resnet101v2': (506, 44_639_144), 'resnet110_cifar': (547, 1_736_058),
    'resnet152': (777, 60_344_232), 'resnet152d': (787, 60_363_592), 'resnet152v2': (761, 60_328_872),
    'resnext50_32x4d': (267, 25_097_128), 'resnext101_32x8d': (522, 88_994_216), 'seresnet18': (134, 11_789_224),
    'seresnet34': (246, 21_977_440), 'seresnet50': (331, 28_141_144), 'seresnet101': (654, 49_432_216),
    'vgg11': (22, 132_863_336), 'vgg11_bn': (54, 132_874_344), 'vgg13': (26, 133_047_848),
    'vgg13_bn': (66, 133_059_624), 'vgg16': (32, 138_357_544), 'vgg16_bn': (84, 138_374_440),
    'vgg19': (38, 143_667_240), 'vgg19_bn': (102, 143_689_256), 'wide_resnet50_2': (267, 68_951_464),
    'zfnet': (16, 62_357_608), 'zfnet_bn': (31, 62_361_736),
}


def image_size(name: str) -> int:
    """Side in pixels of the images that the model `name` is made for."""
    return 32 if name.endswith('_cifar') else 224


def totals() -> dict[str, tuple[int, int]]:
    """Model -> its parameters and multiply-adds, each model as `models.create` makes it where it is given nothing.

    They are kept in sizes.json, since tracing every model takes a minute; `python tests/models/test_summary.py` writes
    them anew.
    """
    return {name: tuple(pair) for name, pair in json.loads(_SIZES.read_text()).items()}


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
