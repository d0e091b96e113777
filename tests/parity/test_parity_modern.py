"""RegNet, ResNeSt, MobileNets and GhostNet against PyTorch's, by the same random weights; no model is forgotten."""

from functools import partial

import pytest
import test_parity_classic
from fixtures_models import count, shapes
from torch_reference import Case, check, parametrize, timm_model, torchvision_models

from imagenet_jax import models

pytestmark = pytest.mark.numerics

REGNETS = [name for name in models.names() if name.startswith('regnet')]
# A paper or a table is all there is of these.
WITHOUT_REFERENCE = {'alexnet_v2', 'alexnet_cifar', 'alexnet_v1_cifar', 'zfnet_bn', 'resnest50', 'oct_resnet50',
                     'oct_resnet50v2', 'resnet9_cifar'}


def regnet(name, size=64, slow=True):
    return Case(name, partial(timm_model, name), size, ('s1', 's2', 's3', 's4'), slow)


def resnest(name, size=64, slow=True):
    return Case(name, partial(timm_model, name), size, ('layer1', 'layer2', 'layer3', 'layer4'), slow)


def mobilenet_v1(width, theirs, slow=True):
    return Case('mobilenet_v1', partial(timm_model, theirs), 75, tuple(f'blocks.{i}' for i in range(5)), slow,
                options={'width': width})


def mobilenet_v2(width, slow=True):
    def build():
        return torchvision_models().mobilenet_v2(num_classes=10, width_mult=width)
    return Case('mobilenet_v2', build, 75, tuple(f'features.{i}' for i in (1, 3, 6, 13, 17, 18)), slow,
                options={'width': width})


def mobilenet_v3(kind, ends, slow=True):
    def build():
        return getattr(torchvision_models(), f'mobilenet_v3_{kind}')(num_classes=10)
    return Case(f'mobilenet_v3_{kind}', build, 75, tuple(f'features.{i}' for i in ends), slow)


def ghostnet(name, slow=True):
    return Case(name, partial(timm_model, name), 75, tuple(f'blocks.{i}' for i in range(10)), slow)


CASES = (
    regnet('regnetx_002', slow=False), regnet('regnety_002', 75, slow=False), regnet('regnety_040', 224),
    *(regnet(name) for name in REGNETS if name not in ('regnetx_002', 'regnety_002')),
    resnest('resnest50d', 75, slow=False), resnest('resnest50d', 224), resnest('resnest101e'),
    mobilenet_v1(1.0, 'mobilenetv1_100', slow=False), mobilenet_v1(1.25, 'mobilenetv1_125'),
    mobilenet_v2(1.0, slow=False), mobilenet_v2(0.35), mobilenet_v2(1.4),
    mobilenet_v3('small', (1, 3, 8, 11, 12), slow=False), mobilenet_v3('large', (1, 3, 6, 12, 15, 16)),
    ghostnet('ghostnet_100', slow=False), ghostnet('ghostnet_130'),
)
EVERY_CASE = CASES + test_parity_classic.CASES


@parametrize(CASES)
def test_parity(case):
    check(case)


def test_every_model_that_has_a_reference_is_compared_with_it():
    assert {case.name for case in EVERY_CASE} == set(models.names()) - WITHOUT_REFERENCE


def test_a_model_of_each_class_is_compared_in_the_default_run():
    def classes(cases):
        return {type(models.create(case.name)) for case in cases}
    assert classes(case for case in EVERY_CASE if not case.slow) == classes(EVERY_CASE)


@pytest.mark.slow
@pytest.mark.parametrize('name', REGNETS)
def test_regnet_parameters(name):
    variables, _ = shapes(models.create(name), 64)
    reference = timm_model(name)  # for ten classes
    width = reference.head.fc.in_features
    assert count(variables) == sum(p.numel() for p in reference.parameters()) + 990 * (width + 1)
