"""A batch on the device."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from fixtures_images import scene

from imagenet_jax.errors import UserError
from imagenet_jax.images.batch import Normalize


def test_normalising_is_by_channel():
    pixels = scene(4, 5)[None]
    mean, std = np.array((0.1, 0.2, 0.3)), np.array((0.4, 0.5, 0.6))
    normalised = Normalize(tuple(mean), tuple(std))(jnp.asarray(pixels))
    assert normalised.dtype == jnp.float32
    np.testing.assert_allclose(normalised, (pixels / 255 - mean) / std, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize('normalize', [Normalize(), Normalize((0.0, 0.5, 1.0), (1.0, 0.01, 3.0))])
@pytest.mark.parametrize('compiled', [True, False])
def test_undo_gives_every_level_back(normalize, compiled):
    levels = np.repeat(np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1), 3, axis=3)

    def there_and_back(images):
        return normalize.undo(normalize(images))
    function = jax.jit(there_and_back) if compiled else there_and_back
    np.testing.assert_array_equal(function(jnp.asarray(levels)), levels)


def test_undo_rounds_and_clips():
    normalize = Normalize((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    values = jnp.array([-9.0, -1.001, 2 * 99.6 / 255 - 1, 2 * 99.4 / 255 - 1, 1.001, 9.0])
    pixels = normalize.undo(jnp.repeat(values.reshape(1, 2, 3, 1), 3, axis=3))
    assert pixels.dtype == jnp.uint8
    np.testing.assert_array_equal(pixels[..., 0].ravel(), [0, 0, 100, 99, 255, 255])


def test_undo_takes_half_precision():
    images = jnp.asarray(scene(6, 6)[None])
    back = Normalize().undo(Normalize()(images).astype(jnp.bfloat16))
    assert np.abs(np.asarray(back).astype(int) - images).max() <= 1 + 255 * 2.7 * 0.23 / 256


@pytest.mark.parametrize('wrong', [{'std': (0.2, 0.0, 0.2)}, {'std': (0.2, -1.0, 0.2)}, {'mean': (0.5, np.inf, 0.5)}])
def test_wrong_normalising_is_refused(wrong):
    with pytest.raises(UserError, match=r'config\.normalize\.(mean|std)=.* must be finite, std above 0'):
        Normalize(**wrong)


@pytest.mark.parametrize('wrong', [{'std': (0.2, 0.2)}, {'mean': ()}, {'mean': (0.5,) * 4}])
def test_normalising_takes_a_value_for_each_channel_or_one(wrong):
    with pytest.raises(UserError, match=r'must have 3 values, or 1 for all'):
        Normalize(**wrong)
    assert Normalize((0.5,), (0.5,))(jnp.full((1, 2, 2, 3), 255, jnp.uint8)).tolist() == np.ones((1, 2, 2, 3)).tolist()
