"""AlexNet, ZFNet, VGG, ResNet v2, ResNeXt, wide and SE-ResNet against PyTorch's, by the same random weights."""

from functools import partial

import pytest
from torch_reference import check, timm_model, torch, torchvision_models

from imagenet_jax import models

nn = torch.nn


class TwoSequentials(nn.Module):
    """`features`, flattened, then `classifier`."""

    def __init__(self, features, classifier):
        super().__init__()
        self.features, self.classifier = nn.Sequential(*features), nn.Sequential(*classifier)

    def forward(self, x):
        return self.classifier(self.features(x).flatten(1))


def alexnet_v1():
    # The paper's alpha, 1e-4, multiplies a sum; PyTorch's multiplies a mean over 5.
    def lrn():
        return nn.LocalResponseNorm(5, alpha=5e-4, beta=0.75, k=2.0)
    return TwoSequentials(
        [nn.Conv2d(3, 96, 11, 4, 2), nn.ReLU(), lrn(), nn.MaxPool2d(3, 2),
         nn.Conv2d(96, 256, 5, 1, 2, groups=2), nn.ReLU(), lrn(), nn.MaxPool2d(3, 2),
         nn.Conv2d(256, 384, 3, 1, 1), nn.ReLU(),
         nn.Conv2d(384, 384, 3, 1, 1, groups=2), nn.ReLU(),
         nn.Conv2d(384, 256, 3, 1, 1, groups=2), nn.ReLU(), nn.MaxPool2d(3, 2)],
        [nn.Dropout(), nn.Linear(9216, 4096), nn.ReLU(), nn.Dropout(), nn.Linear(4096, 4096), nn.ReLU(),
         nn.Linear(4096, 10)])


def alexnet_bn():
    def conv(*shape, groups=1):
        return [nn.Conv2d(*shape, groups=groups, bias=False), nn.BatchNorm2d(shape[1]), nn.ReLU()]

    def dense(width):
        return [nn.Dropout(), nn.Linear(width, 4096, bias=False), nn.BatchNorm1d(4096), nn.ReLU()]

    return TwoSequentials(
        [*conv(3, 96, 11, 4, 2), nn.MaxPool2d(3, 2), *conv(96, 256, 5, 1, 2, groups=2), nn.MaxPool2d(3, 2),
         *conv(256, 384, 3, 1, 1), *conv(384, 384, 3, 1, 1, groups=2), *conv(384, 256, 3, 1, 1, groups=2),
         nn.MaxPool2d(3, 2)],
        [*dense(9216), *dense(4096), nn.Linear(4096, 10)])


def create(name, **options):
    return models.create(name, num_classes=10, **options)


@pytest.mark.parametrize(('build', 'last'), [(alexnet_v1, 14), (alexnet_bn, 17)])
def test_alexnet_v1_and_bn(build, last):
    check(create(build.__name__), build(), 224, ('features.3', 'features.7', f'features.{last}'))


@pytest.mark.parametrize('size', [224, 127])
def test_alexnet(size):
    reference = torchvision_models().alexnet(num_classes=10)
    check(create('alexnet'), reference, size, ('features.2', 'features.5', 'features.12'))


def test_zfnet():
    provider = pytest.importorskip('pytorchcv.model_provider')
    reference = provider.get_model('zfnet', num_classes=10)
    check(create('zfnet'), reference, 224, ('features.stage1', 'features.stage2', 'features.stage3'))


@pytest.mark.parametrize('name', ['vgg11_bn', *(pytest.param(name, marks=pytest.mark.slow) for name in (
    'vgg11', 'vgg13', 'vgg13_bn', 'vgg16', 'vgg16_bn', 'vgg19', 'vgg19_bn'))])
def test_vgg(name):
    reference = getattr(torchvision_models(), name)(num_classes=10)
    stages = [f'features.{i}' for i, module in enumerate(reference.features) if isinstance(module, nn.MaxPool2d)]
    check(create(name), reference, 96, stages)


LAYERS = tuple(f'layer{i}' for i in range(1, 5))


@pytest.mark.parametrize('name', ['resnext50_32x4d', 'wide_resnet50_2',
                                  pytest.param('resnext101_32x8d', marks=pytest.mark.slow)])
def test_resnext_and_wide(name):
    check(create(name), getattr(torchvision_models(), name)(num_classes=10), 64, LAYERS)


@pytest.mark.parametrize('name', ['seresnet50', pytest.param('seresnet101', marks=pytest.mark.slow)])
def test_seresnet(name):
    check(create(name), timm_model(name, num_classes=10), 64, LAYERS)


@pytest.mark.slow
@pytest.mark.parametrize('name', ['seresnet18', 'seresnet34'])
def test_basic_seresnet(name):
    # Ratio 16 throughout; timm would round a hidden layer of 4 up to 8.
    torchvision_models()  # which timm imports
    excite = partial(pytest.importorskip('timm.layers').SEModule, rd_ratio=1 / 16, rd_divisor=1)
    check(create(name), timm_model(name, num_classes=10, block_args={'attn_layer': excite}), 64, LAYERS)


STAGES = tuple(f'stages.{i}' for i in range(4))


@pytest.mark.parametrize(('name', 'theirs'), [
    ('resnet50v2', 'resnetv2_50'), ('resnet18v2', 'resnetv2_18'),
    *(pytest.param(name, theirs, marks=pytest.mark.slow) for name, theirs in (
        ('resnet34v2', 'resnetv2_34'), ('resnet101v2', 'resnetv2_101'), ('resnet152v2', 'resnetv2_152')))])
def test_resnet_v2(name, theirs):
    check(create(name), timm_model(theirs, num_classes=10), 64, STAGES)


def test_resnet_v2_average_pool():
    """An odd map at each stage: 75 pixels, then 38, 19, 10, 5, 3."""
    reference = timm_model('resnetv2_50', num_classes=10, avg_down=True)
    check(create('resnet50v2', shortcut='avgpool'), reference, 75, STAGES)
