"""AlexNet, ZFNet, VGG and every ResNet against PyTorch's, by the same random weights."""

import os
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from runs import ROOT
from torch_reference import Case, CifarResNet, check, parametrize, timm_model, torch, torchvision_models

from imagenet_jax import models, sources, weight_files, weights
from imagenet_jax.images.batch import Normalize
from imagenet_jax.images.decode import decode

pytestmark = pytest.mark.numerics

nn = torch.nn


class TwoSequentials(nn.Module):
    """`features`, averaged to 6x6, which at 224 pixels they are, and flattened; then `classifier`."""

    def __init__(self, features, classifier):
        super().__init__()
        self.features, self.classifier = nn.Sequential(*features), nn.Sequential(*classifier)

    def forward(self, x):
        return self.classifier(nn.functional.adaptive_avg_pool2d(self.features(x), 6).flatten(1))


def alexnet_v1(groups=2):
    # The paper's alpha, 1e-4, multiplies a sum; PyTorch's multiplies a mean over 5.
    def lrn():
        return nn.LocalResponseNorm(5, alpha=5e-4, beta=0.75, k=2.0)
    return TwoSequentials(
        [nn.Conv2d(3, 96, 11, 4, 2), nn.ReLU(), lrn(), nn.MaxPool2d(3, 2),
         nn.Conv2d(96, 256, 5, 1, 2, groups=groups), nn.ReLU(), lrn(), nn.MaxPool2d(3, 2),
         nn.Conv2d(256, 384, 3, 1, 1), nn.ReLU(),
         nn.Conv2d(384, 384, 3, 1, 1, groups=groups), nn.ReLU(),
         nn.Conv2d(384, 256, 3, 1, 1, groups=groups), nn.ReLU(), nn.MaxPool2d(3, 2)],
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


def zfnet():
    return pytest.importorskip('pytorchcv.model_provider').get_model('zfnet', num_classes=10)


def torchvision(name):
    return getattr(torchvision_models(), name)(num_classes=10)


def resnet_v1():
    """torchvision's ResNet-50 with the paper's strides, in the first 1x1 convolution."""
    reference = torchvision('resnet50')
    for stage in (reference.layer2, reference.layer3, reference.layer4):
        stage[0].conv1.stride, stage[0].conv2.stride = (2, 2), (1, 1)
    return reference


class BlurredConv(nn.Conv2d):
    """A 1x1 convolution that a blur-pool strides, as the paper has shortcuts; timm leaves them their stride."""

    def forward(self, x):
        return nn.functional.conv2d(blur_pool().to(x.dtype)(x), self.weight)


def blur_pool():
    return pytest.importorskip('timm.layers').BlurPool2d(stride=2)


def blurred(name, shortcuts=True):
    """timm's, where `shortcuts` with blurred shortcuts."""
    reference = timm_model(name)
    for stage in (reference.layer2, reference.layer3, reference.layer4) if shortcuts else ():
        conv = stage[0].downsample[0]
        stage[0].downsample[0] = BlurredConv(conv.in_channels, conv.out_channels, 1, bias=False)
    return reference


def blurred_d(name):
    """Of timm's ResNet-D, whose shortcuts average."""
    torchvision_models()
    return timm_model(name, aa_layer=pytest.importorskip('timm.layers').BlurPool2d)


def vgg(name, slow=True):
    """The last layer of each stage is a pool, two or more convolutions apart."""
    convolutions = {'vgg11': (1, 1, 2, 2, 2), 'vgg13': (2,) * 5, 'vgg16': (2, 2, 3, 3, 3), 'vgg19': (2, 2, 4, 4, 4)}
    ends, layers = [], 3 if name.endswith('_bn') else 2
    for depth in convolutions[name.removesuffix('_bn')]:
        ends.append((ends[-1] + 1 if ends else 0) + layers * depth)
    return Case(name, partial(torchvision, name), 96, tuple(f'features.{end}' for end in ends), slow)


def residual(name, build, slow=True, size=64, **options):
    return Case(name, build, size, tuple(f'layer{i}' for i in range(1, 5)), slow, options=options)


def resnet_v2(name, slow=True, size=64, **options):
    build = partial(timm_model, f'resnetv2_{name[6:-2]}', avg_down=options.get('shortcut') == 'avgpool')
    return Case(name, build, size, tuple(f'stages.{i}' for i in range(4)), slow, options=options)


def cifar(n, shortcut='A', slow=True):
    return Case(f'resnet{6 * n + 2}_cifar', partial(CifarResNet, n, shortcut), 32, ('layer1', 'layer2', 'layer3'), slow,
                options={'shortcut': shortcut})


ALEXNET = ('features.2', 'features.5', 'features.12')
ALEXNET_V1 = ('features.3', 'features.7', 'features.14')
CASES = (
    Case('alexnet_v1', alexnet_v1, 224, ALEXNET_V1, contrast=50.0),
    Case('alexnet_v1', partial(alexnet_v1, groups=1), 127, ALEXNET_V1, slow=True, options={'groups': 1}),
    Case('alexnet_bn', alexnet_bn, 224, ('features.3', 'features.7', 'features.17')),
    Case('alexnet', partial(torchvision, 'alexnet'), 127, ALEXNET),
    Case('alexnet', partial(torchvision, 'alexnet'), 224, ALEXNET, slow=True),
    Case('zfnet', zfnet, 224, ('features.stage1', 'features.stage2', 'features.stage3'), contrast=50.0),
    vgg('vgg11_bn', slow=False),
    *map(vgg, ('vgg11', 'vgg13', 'vgg13_bn', 'vgg16', 'vgg16_bn', 'vgg19', 'vgg19_bn')),
    *(residual(name, partial(torchvision, name), slow=name not in ('resnet18', 'resnet50', 'resnext50_32x4d'))
      for name in ('resnet18', 'resnet34', 'resnet50', 'resnet101', 'resnet152', 'resnext50_32x4d', 'resnext101_32x8d',
                   'wide_resnet50_2')),
    residual('resnet50', resnet_v1, stride_in_1x1=True),
    residual('resnet18d', partial(blurred_d, 'resnet18d'), size=75, antialias=True),
    residual('resnet18', partial(blurred, 'resnetblur18'), size=75, antialias=True),
    residual('resnet50', partial(blurred, 'resnetblur50'), antialias=True),
    residual('resnet50d', partial(blurred, 'resnetblur50d', shortcuts=False), antialias=True),
    residual('resnet50', partial(timm_model, 'resnet50_gn'), norm='group'),
    residual('resnet50', partial(timm_model, 'seresnet50'), squeeze_excite=True),
    *(residual(name, partial(timm_model, name), size=75) for name in (
        'resnet18d', 'resnet34d', 'resnet50d', 'resnet101d', 'resnet152d')),
    residual('resnet50', partial(torchvision, 'resnet50'), size=224),
    *(residual(name, partial(timm_model, name), slow=name != 'seresnet18')
      for name in ('seresnet18', 'seresnet34', 'seresnet50', 'seresnet101')),
    *(resnet_v2(name, slow='18' not in name) for name in (
        'resnet18v2', 'resnet34v2', 'resnet50v2', 'resnet101v2', 'resnet152v2')),
    # An odd map at each stage: 75 pixels, then 38, 19, 10, 5, 3.
    resnet_v2('resnet50v2', size=75, slow=False, shortcut='avgpool'),
    cifar(1, slow=False), cifar(3), cifar(3, 'B', slow=False), cifar(5), cifar(7), cifar(9), cifar(18),
)


@parametrize(CASES)
def test_parity(case):
    check(case)


@pytest.mark.slow
def test_published_weights_classify_cifar10_as_in_pytorch():
    """All 10,000 test images, in float32 on both sides: the same classes but where two logits tie."""
    shared = Path(os.environ.get('IMAGENET_JAX_SHARED', ROOT.parent / 'shared')) / 'data'
    if not (shared / 'cifar10').exists():
        pytest.skip(f'no {shared}/cifar10')
    source = sources.create('parquet', str(shared / 'cifar10'), 'test', 10, 32)
    images = np.array(Normalize()(jnp.asarray(np.stack([decode(source.image(i)) for i in range(len(source))]))))
    state_dict = weight_files.read(shared / 'weights' / 'resnet20_cifar10.th')
    model, reference = models.create('resnet20_cifar'), CifarResNet(3).eval()
    reference.load_state_dict({n.removeprefix('module.'): v for n, v in state_dict['state_dict'].items()})
    forward = jax.jit(partial(model.apply, weights.from_torch(model, state_dict)))
    batches = np.split(images, 20)
    ours = np.concatenate([forward(batch) for batch in batches])
    with torch.no_grad():
        theirs = np.concatenate([reference(torch.from_numpy(batch).permute(0, 3, 1, 2)).numpy() for batch in batches])
    best, second = np.sort(theirs)[:, :-3:-1].T
    differ = ours.argmax(1) != theirs.argmax(1)
    assert len(source) == 10_000 and (best - second)[differ].max(initial=0) < 1e-4
    accuracies = [(logits.argmax(1) == source.labels).mean() for logits in (ours, theirs)]
    print(f'{differ.sum()} differ; accuracy of ours and of PyTorch: {accuracies}')
    assert min(accuracies) > 0.8  # trained on pixels that no JPEG has changed


def test_option_b_of_an_odd_image():
    check(cifar(3, 'B')._replace(size=29))
