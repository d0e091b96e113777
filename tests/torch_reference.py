"""Comparing a model with its PyTorch reference: same weights, logits and every named activation, and back."""

import importlib.util
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

import jax
import numpy as np
import pytest

from imagenet_jax import models, weights

torch = pytest.importorskip('torch')


def torchvision_models():
    """torchvision.models; its compiled operators, which a CPU torch may lack, need only be declared."""
    if 'torchvision' not in sys.modules:
        for name in ('nms', 'qnms'):
            if not hasattr(torch.ops.torchvision, name):
                torch.library.define(f'torchvision::{name}',
                                     '(Tensor dets, Tensor scores, float iou_threshold) -> Tensor')
    return pytest.importorskip('torchvision.models', exc_type=Exception)


def timm_model(name, **options):
    """A timm model; timm imports torchvision."""
    torchvision_models()
    return pytest.importorskip('timm').create_model(name, num_classes=10, **options)


def timm_file(path):
    """A module of timm's that needs nothing else of it: all of timm takes seconds to import."""
    found = importlib.util.find_spec('timm')
    if found is None:
        pytest.skip('timm is not installed')
    spec = importlib.util.spec_from_file_location(Path(path).stem, Path(found.origin).parent / path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class CifarBlock(torch.nn.Module):
    """Two 3x3 convolutions; the shortcut is option A's, or B's as `downsample`."""

    def __init__(self, inputs, width, stride, shortcut):
        super().__init__()
        self.extra, self.stride = (width - inputs) // 2, stride
        self.conv1, self.bn1 = torch.nn.Conv2d(inputs, width, 3, stride, 1, bias=False), torch.nn.BatchNorm2d(width)
        self.conv2, self.bn2 = torch.nn.Conv2d(width, width, 3, 1, 1, bias=False), torch.nn.BatchNorm2d(width)
        self.downsample = None
        if shortcut == 'B' and self.extra:
            self.downsample = torch.nn.Sequential(torch.nn.Conv2d(inputs, width, 1, stride, bias=False),
                                                  torch.nn.BatchNorm2d(width))

    def forward(self, x):
        y = self.bn2(self.conv2(self.bn1(self.conv1(x)).relu()))
        if self.downsample:
            return (y + self.downsample(x)).relu()
        shortcut = x[:, :, ::self.stride, ::self.stride]
        return (y + torch.nn.functional.pad(shortcut, (0, 0, 0, 0, self.extra, self.extra))).relu()


class CifarResNet(torch.nn.Module):
    """The 6n+2-layer ResNet of arXiv 1512.03385, section 4.2."""

    def __init__(self, n, shortcut='A'):
        super().__init__()
        self.conv1, self.bn1 = torch.nn.Conv2d(3, 16, 3, 1, 1, bias=False), torch.nn.BatchNorm2d(16)

        def stage(inputs, width, stride):
            first = CifarBlock(inputs, width, stride, shortcut)
            return torch.nn.Sequential(first, *(CifarBlock(width, width, 1, shortcut) for _ in range(n - 1)))

        self.layer1, self.layer2, self.layer3 = stage(16, 16, 1), stage(16, 32, 2), stage(32, 64, 2)
        self.linear = torch.nn.Linear(64, 10)

    def forward(self, x):
        x = self.bn1(self.conv1(x)).relu()
        return self.linear(self.layer3(self.layer2(self.layer1(x))).mean((2, 3)))


class Case(NamedTuple):
    """A model beside its reference.

    Attributes:
      name, options: of ours.
      build: answers the reference, for ten classes.
      size: side of the images.
      stages: state_dict paths whose outputs are compared.
      slow: whether for the slow tests.
      contrast: deviation of the images; where LRN must show, activations must be large.
    """
    name: str
    build: Callable[[], torch.nn.Module]
    size: int
    stages: tuple[str, ...]
    slow: bool = False
    contrast: float = 1.0
    options: Mapping = MappingProxyType({})


def parametrize(cases):
    return pytest.mark.parametrize('case', [
        pytest.param(case, id='-'.join([case.name, *map(str, case.options.values()), str(case.size)]),
                     marks=pytest.mark.slow if case.slow else ()) for case in cases])


def randomise(reference, seed=0):
    """Draws every weight and every BatchNorm statistic, so that nothing is at a value that hides a mistake."""
    draw = torch.Generator().manual_seed(seed)
    for module in reference.modules():
        if isinstance(module, (torch.nn.Conv2d, torch.nn.Linear)):
            fan_in = module.weight[0].numel()
            module.weight.data.normal_(0, fan_in**-0.5, generator=draw)
            if module.bias is not None:
                module.bias.data.normal_(0, 0.3, generator=draw)
        elif isinstance(module, (torch.nn.BatchNorm1d, torch.nn.BatchNorm2d)):
            for value in module.weight.data, module.running_var:
                value.uniform_(0.5, 1.5, generator=draw)
            for value in module.bias.data, module.running_mean:
                value.normal_(0, 0.3, generator=draw)
        elif isinstance(module, torch.nn.GroupNorm):
            module.weight.data.uniform_(0.5, 1.5, generator=draw)
            module.bias.data.normal_(0, 0.3, generator=draw)
    return reference.eval()


def channels_last(x):
    """An NCHW tensor as an NHWC array."""
    return x.detach().permute(0, 2, 3, 1).numpy().copy()


def outputs(reference, images, names):
    """Logits and, by module path, activations, NHWC."""
    maps = {}
    hooks = [reference.get_submodule(name).register_forward_hook(
        lambda _module, _inputs, output, name=name: maps.update({name: channels_last(output)})) for name in names]
    with torch.no_grad():
        logits = reference(images).numpy()
    for hook in hooks:
        hook.remove()
    return {'logits': logits, **maps}


def check(case):
    """Asserts that logits and all stages agree, relative to the largest value, and that the weights go back."""
    model, reference = models.create(case.name, num_classes=10, **case.options), randomise(case.build())
    images = torch.randn(2, 3, case.size, case.size, generator=torch.Generator().manual_seed(1)) * case.contrast
    variables = weights.from_torch(model, reference.state_dict())
    check_state_dict(weights.to_torch(model, variables), reference)
    logits, maps = jax.jit(lambda v, x: model.apply(v, x, features=True))(variables, channels_last(images))
    assert set(maps) == set(case.stages)
    single = outputs(reference, images, case.stages)
    double = outputs(reference.double(), images.double(), case.stages)
    errors = {}
    for name, ours in {'logits': logits, **maps}.items():
        assert ours.shape == single[name].shape, name
        error, theirs = (np.abs(value - double[name]).max() / np.abs(double[name]).max()
                         for value in (np.asarray(ours), single[name]))
        errors[name] = float(error), max(2e-5, 10 * float(theirs))
    assert all(error <= tolerance for error, tolerance in errors.values()), errors


def check_state_dict(ours, reference):
    """Asserts that the exported weights are the reference's to the bit; the counts of batches start again."""
    theirs = {name: value.numpy() for name, value in reference.state_dict().items()}
    assert ours.keys() == theirs.keys()
    for name, value in ours.items():
        assert value.dtype == theirs[name].dtype, name
        expected = np.zeros((), np.int64) if name.endswith('num_batches_tracked') else theirs[name]
        np.testing.assert_array_equal(value, expected, err_msg=name)
