"""torchvision's files: names, models and views are those of its own metadata."""

import pytest

from imagenet_jax import catalog
from imagenet_jax.pretrained import torchvision

# Of earlier versions of torchvision, whose metadata no longer has them.
EARLIER = {'alexnet-owt-4df8aa71', 'resnet18-5c106cde', 'resnet34-333f7ec4', 'resnet50-19c8e357', 'resnet101-5d3b4d8f',
           'resnet152-b121ed2d', 'vgg11-bbd30ac9', 'vgg13-c768596a'}


def test_files_are_of_models_that_are_here():
    assert {known.model for known in torchvision.FILES.values()} <= catalog.sizes().keys()


@pytest.mark.parametrize(('name', 'sha256', 'file', 'warns'), [
    ('resnet50-0676ba61.pth', '0676ba61' + 56 * '0', 'resnet50-0676ba61', False),
    ('mine.pt', '11ad3fa6' + 56 * '0', 'resnet50-11ad3fa6', False),
    ('resnet50-11ad3fa6.pth', 64 * '0', 'resnet50-11ad3fa6', True),
    ('resnet50-11ad3fa6.safetensors', 64 * '0', 'resnet50-11ad3fa6', False)])
def test_a_file_is_known_by_its_bytes_or_its_name(tmp_path, caplog, name, sha256, file, warns):
    assert torchvision.published(tmp_path / name, sha256).file == file
    assert ("is not torchvision's file of that name" in caplog.text) == warns


def test_other_files_are_not_known(tmp_path):
    assert torchvision.published(tmp_path / 'resnet50.pth', 64 * '0') is None


@pytest.mark.slow
def test_the_table_is_torchvisions():
    models = pytest.importorskip('torch_reference').torchvision_models()
    theirs = {}
    for name in models.list_models(module=models):
        for weights in models.get_model_weights(name):
            view = weights.transforms()
            assert weights.url.endswith('.pth')
            theirs[weights.url.rsplit('/', 1)[1].removesuffix('.pth')] = (
                *view.crop_size, *view.resize_size, view.interpolation.value, len(weights.meta['categories'] or ()),
                *view.mean, *view.std)
    assert torchvision.FILES.keys() - EARLIER <= theirs.keys()
    for file, known in torchvision.FILES.items():
        if file not in EARLIER:
            assert theirs[file] == (224, known.resize, 'bilinear', 1000, 0.485, 0.456, 0.406, 0.229, 0.224, 0.225)
