"""Plain networks on images larger than their own: dense layers that slide over the last map."""

import jax
import numpy as np
import pytest

from imagenet_jax import models
from imagenet_jax.models.plain import flatten


def windows(x, size):
    """Every size x size pixels of (N, H, W, C), row by row, flattened."""
    return [x[:, i:i + size, j:j + size].reshape(len(x), -1)
            for i in range(x.shape[1] - size + 1) for j in range(x.shape[2] - size + 1)]


def test_each_window_is_flattened_as_a_map_of_its_size():
    x = np.random.default_rng(0).normal(size=(2, 5, 7, 3)).astype(np.float32)
    found = flatten(x, 4, True)
    assert found.shape == (2, 2, 4, 48)
    np.testing.assert_array_equal(np.asarray(found).reshape(2, 8, 48), np.stack(windows(x, 4), 1))
    whole = x[:, :4, :4]
    np.testing.assert_array_equal(flatten(whole, 4, True).reshape(2, -1), flatten(whole, 4, False))
    small = x[:, :3]
    np.testing.assert_array_equal(flatten(small, 4, True), flatten(small, 4, False))  # pooled, as without


@pytest.mark.slow
@pytest.mark.parametrize(('name', 'side', 'size', 'dense'), [
    ('alexnet', 256, 6, ('classifier', ('1', '4', '6'))), ('alexnet_bn', 256, 6, None),
    ('zfnet', 256, 6, ('output', (('fc1', 'fc'), ('fc2', 'fc'), 'fc3'))), ('vgg11', 256, 7, ('classifier', '036')),
])
def test_the_answer_is_the_mean_of_those_to_every_window_of_the_last_map(name, side, size, dense):
    model = models.create(name, num_classes=5)
    images = jax.random.normal(jax.random.key(0), (2, side, side, 3))
    variables = jax.jit(model.init)(jax.random.key(1), images[:, :224, :224])
    sliding = jax.jit(model.clone(fully_convolutional=True).apply)
    pooled, maps = jax.jit(lambda *given: model.apply(*given, features=True))(variables, images)
    found = sliding(variables, images)
    assert not np.allclose(found, pooled, rtol=1e-3)
    np.testing.assert_allclose(sliding(variables, images[:, :224, :224]),
                               jax.jit(model.apply)(variables, images[:, :224, :224]), atol=1e-5)
    if dense:
        last = np.asarray(max(maps.items(), key=lambda item: (len(item[0]), item[0]))[1])
        room, layers = dense
        weights = [variables['params'][room][first] for first in (
            layer if isinstance(layer, str) else layer[0] for layer in layers)]
        weights = [layer.get('fc', layer) for layer in weights]

        def answer(x):
            for number, layer in enumerate(weights):
                x = x @ layer['kernel'] + layer['bias']
                x = np.maximum(x, 0) if number < 2 else x
            return x
        np.testing.assert_allclose(found, np.mean([answer(x) for x in windows(last, size)], 0), atol=2e-4)
