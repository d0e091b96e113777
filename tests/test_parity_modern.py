"""RegNet, ResNeSt, MobileNets and GhostNet against PyTorch's, by the same random weights."""

import pytest
from test_models import count, shapes
from torch_reference import check, timm_model, torchvision_models

from imagenet_jax import models

SLOW = pytest.mark.slow
REGNET = tuple(f's{i}' for i in range(1, 5))
RESNEST = tuple(f'layer{i}' for i in range(1, 5))


@pytest.mark.parametrize(('name', 'size'), [
    ('regnety_040', 75), pytest.param('regnety_040', 224, marks=SLOW), pytest.param('regnetx_040', 64, marks=SLOW),
    pytest.param('regnety_064', 64, marks=SLOW)])
def test_regnet(name, size):
    check(models.create(name, num_classes=10), timm_model(name, num_classes=10), size, REGNET)


@pytest.mark.slow
@pytest.mark.parametrize('name', [name for name in models.names() if name.startswith('regnet')])
def test_regnet_parameters(name):
    variables, _ = shapes(models.create(name), 64)
    assert count(variables) == sum(p.numel() for p in timm_model(name).parameters())


@pytest.mark.parametrize(('name', 'size'), [
    ('resnest50d', 75), pytest.param('resnest50d', 224, marks=SLOW), pytest.param('resnest101e', 64, marks=SLOW)])
def test_resnest(name, size):
    check(models.create(name, num_classes=10), timm_model(name, num_classes=10), size, RESNEST)


@pytest.mark.parametrize('width', [1.0, pytest.param(1.25, marks=SLOW)])
def test_mobilenet_v1(width):
    reference = timm_model('mobilenetv1_100' if width == 1 else 'mobilenetv1_125', num_classes=10)
    check(models.create('mobilenet_v1', num_classes=10, width=width), reference, 75, [f'blocks.{i}' for i in range(5)])


@pytest.mark.parametrize('width', [1.0, pytest.param(0.35, marks=SLOW), pytest.param(1.4, marks=SLOW)])
def test_mobilenet_v2(width):
    reference = torchvision_models().mobilenet_v2(num_classes=10, width_mult=width)
    check(models.create('mobilenet_v2', num_classes=10, width=width), reference, 75,
          [f'features.{i}' for i in (1, 3, 6, 13, 17, 18)])


@pytest.mark.parametrize(('name', 'size', 'stages'), [
    ('mobilenet_v3_small', 75, (1, 3, 8, 11, 12)),
    pytest.param('mobilenet_v3_large', 224, (1, 3, 6, 12, 15, 16), marks=SLOW)])
def test_mobilenet_v3(name, size, stages):
    reference = getattr(torchvision_models(), name)(num_classes=10)
    check(models.create(name, num_classes=10), reference, size, [f'features.{i}' for i in stages])


@pytest.mark.parametrize('name', ['ghostnet_100', pytest.param('ghostnet_130', marks=SLOW)])
def test_ghostnet(name):
    check(models.create(name, num_classes=10), timm_model(name, num_classes=10), 75, [f'blocks.{i}' for i in range(10)])
