"""Comparing a model with its PyTorch reference: same weights, logits and every named activation."""

import sys

import jax
import numpy as np
import pytest

from imagenet_jax import weights

torch = pytest.importorskip('torch')


def torchvision_models():
    """torchvision.models; its compiled operators, which a CPU torch may lack, need only be declared."""
    if 'torchvision' not in sys.modules:
        for name in ('nms', 'qnms'):
            if not hasattr(torch.ops.torchvision, name):
                torch.library.define(f'torchvision::{name}',
                                     '(Tensor dets, Tensor scores, float iou_threshold) -> Tensor')
    return pytest.importorskip('torchvision.models')


def timm_model(name, **options):
    """A timm model; timm imports torchvision."""
    torchvision_models()
    return pytest.importorskip('timm').create_model(name, **options)


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
    return reference.eval()


def outputs(reference, images, names):
    """Logits and, by module path, activations: NCHW becomes NHWC."""
    maps = {}
    hooks = [reference.get_submodule(name).register_forward_hook(
        lambda _module, _inputs, output, name=name: maps.update({name: output.permute(0, 2, 3, 1).numpy().copy()}))
        for name in names]
    with torch.no_grad():
        logits = reference(images).numpy()
    for hook in hooks:
        hook.remove()
    return {'logits': logits, **maps}


def check(model, reference, size, stages, batch=2):
    """Asserts that logits and all of `stages` agree: name -> (error, tolerance), relative to the largest value."""
    randomise(reference)
    images = np.random.default_rng(0).normal(size=(batch, size, size, 3)).astype(np.float32)
    variables = weights.from_torch(model, reference.state_dict())
    logits, maps = jax.jit(lambda v, x: model.apply(v, x, features=True))(variables, images)
    assert set(maps) == set(stages)
    nchw = torch.from_numpy(images.transpose(0, 3, 1, 2).copy())
    single = outputs(reference, nchw, stages)
    double = outputs(reference.double(), nchw.double(), stages)
    errors = {}
    for name, ours in {'logits': logits, **maps}.items():
        assert ours.shape == single[name].shape, name
        largest = np.abs(double[name]).max()
        tolerance = max(2e-5, 10 * np.abs(single[name] - double[name]).max() / largest)
        errors[name] = (float(np.abs(ours - single[name]).max() / largest), float(tolerance))
    assert all(error <= tolerance for error, tolerance in errors.values()), errors
    print({name: f'{error:.1e}' for name, (error, _) in errors.items()})
    return errors
