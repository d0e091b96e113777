"""torchvision's transforms, for comparing; a test that asks for them is skipped where they are not installed."""

import pytest


def transforms():
    """torchvision.transforms.v2"""
    pytest.importorskip('torch')
    from torch_reference import torchvision_models
    torchvision_models()
    return pytest.importorskip('torchvision.transforms.v2')


def functional():
    """torchvision.transforms.v2.functional"""
    return transforms().functional
