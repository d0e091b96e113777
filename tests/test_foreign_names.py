"""Weights whose names are those of the other library: the answers are the same."""

import re

import jax
import numpy as np
import pytest
from fixtures_weights import random_variables

from imagenet_jax import foreign_names, models, weights


def test_names_of_ours_stay():
    model = models.create('resnet20_cifar')
    state_dict = weights.to_torch(model, random_variables(model))
    assert foreign_names.renamed(state_dict, state_dict.keys()) == state_dict


def test_vgg_of_timm():
    """Convolutions of a whole map are dense layers."""
    found = {'features.0.weight': np.ones((4, 3, 3, 3)), 'pre_logits.fc1.weight': np.arange(24.).reshape(2, 3, 2, 2),
             'pre_logits.fc1.bias': np.ones(2), 'pre_logits.fc2.weight': np.ones((2, 2, 1, 1)),
             'head.fc.weight': np.ones((5, 2))}
    ours = foreign_names.renamed(found, {'classifier.0.weight'})
    assert {name: value.shape for name, value in ours.items()} == {
        'features.0.weight': (4, 3, 3, 3), 'classifier.0.weight': (2, 12), 'classifier.0.bias': (2,),
        'classifier.3.weight': (2, 2), 'classifier.6.weight': (5, 2)}
    np.testing.assert_array_equal(ours['classifier.0.weight'], np.arange(24.).reshape(2, 12))


def test_regnet_of_torchvision():
    found = {'stem.0.weight': 0, 'trunk_output.block1.block1-0.f.a.0.weight': 1, 'fc.bias': 2,
             'trunk_output.block4.block4-11.f.b.1.running_var': 3, 'trunk_output.block2.block2-1.f.se.fc2.bias': 4,
             'trunk_output.block3.block3-0.proj.1.weight': 5}
    assert foreign_names.renamed(found, {'s1.b1.conv1.conv.weight'}) == {
        'stem.conv.weight': 0, 's1.b1.conv1.conv.weight': 1, 'head.fc.bias': 2, 's4.b12.conv2.bn.running_var': 3,
        's2.b2.se.fc2.bias': 4, 's3.b1.downsample.bn.weight': 5}


@pytest.mark.slow
@pytest.mark.numerics
@pytest.mark.parametrize(('theirs', 'ours', 'options'), [
    ('timm/mobilenetv2_100', 'mobilenet_v2', {}), ('timm/mobilenetv2_140', 'mobilenet_v2', {'width': 1.4}),
    ('timm/mobilenetv2_050', 'mobilenet_v2', {'width': 0.5}),
    ('timm/mobilenetv3_small_100', 'mobilenet_v3_small', {}), ('timm/mobilenetv3_large_100', 'mobilenet_v3_large', {}),
    ('timm/vgg11', 'vgg11', {}), ('timm/vgg16_bn', 'vgg16_bn', {}), ('timm/resnetv2_50', 'resnet50v2', {}),
    ('timm/mobilenetv1_125', 'mobilenet_v1', {'width': 1.25}),
    *((f'torchvision/regnet_{name}', f'regnet{ours}', {}) for name, ours in (
        ('x_800mf', 'x_008'), ('x_1_6gf', 'x_016'), ('x_3_2gf', 'x_032'), ('y_400mf', 'y_004'),
        ('y_1_6gf', 'y_016'), ('y_3_2gf', 'y_032')))])
def test_answers_agree(theirs, ours, options):
    reference = pytest.importorskip('torch_reference')
    library, name = theirs.split('/')
    built = (reference.timm_model(name) if library == 'timm' else
             getattr(reference.torchvision_models(), name)(num_classes=10))
    theirs, model = reference.randomise(built), models.create(ours, num_classes=10, **options)
    in_any_order = dict(sorted(theirs.state_dict().items(), key=lambda pair: re.sub(r'\d', '', pair[0])))
    variables = weights.from_torch(model, in_any_order)
    images = reference.torch.randn(2, 3, 224, 224, generator=reference.torch.Generator().manual_seed(1))
    expected = reference.outputs(theirs, images, ())['logits']
    found = jax.jit(model.apply)(variables, reference.channels_last(images))
    np.testing.assert_allclose(found, expected, atol=1e-4 * np.abs(expected).max())
