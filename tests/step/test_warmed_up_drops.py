"""What the step tells a model of its training's progress, by which DropBlock warms up."""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from fixtures_step import Run, Tiny, batch

from imagenet_jax.models.layers import Layers
from imagenet_jax.models.network import ResidualNetwork

pytestmark = pytest.mark.numerics


class Drop(nn.Module):
    """DropBlock of a map, which notes the progress that its rate is multiplied by."""
    layers: Layers

    @nn.compact
    def __call__(self, x):
        told = self.layers.progress
        noted = self.variable('batch_stats', 'told', jnp.zeros, ())
        if self.layers.train:
            noted.value = noted.value * 0 + (-1 if told is None else told)
        return self.layers.drop_block(x)


class Told(ResidualNetwork):
    """A bias, and DropBlock in a block of its own."""

    @nn.compact
    def __call__(self, images, train=False):
        layers = self.layers(train)
        x = layers.block(Drop)(layers, name='block')(images)
        return x.mean((1, 2, 3))[:, None] * 0 + self.param('bias', nn.initializers.zeros, (4,))


def test_progress_multiplies_the_rate_of_drop_block():
    """At none of the training nothing is dropped, at half of it as with half the rate."""
    x = jnp.ones((2, 16, 16, 8))

    def dropped(rate, progress):
        layers = Layers(True, drop_block_rate=rate, progress=progress)
        return Drop(layers).apply({'batch_stats': {'told': jnp.zeros(())}}, x, mutable=['batch_stats'],
                                  rngs={'drop_block': jax.random.key(0)})[0]
    np.testing.assert_array_equal(jax.jit(partial(dropped, 0.4))(jnp.float32(0.5)), dropped(0.2, None))
    np.testing.assert_array_equal(jax.jit(partial(dropped, 0.4))(jnp.float32(0)), x)
    assert np.any(dropped(0.4, None) != dropped(0.2, None))


@pytest.mark.parametrize('remat', [False, True])
def test_train_step_tells_its_progress(remat):
    """The fraction of the steps that are over, by the step alone, in one compiled program; of accumulated parts too."""
    run = Run(Told(drop_block=0.3, remat=remat), devices=2, accumulation=2, steps=8)
    for at, fraction in ((0, 0), (2, 0.25), (8, 1), (99, 1), (2, 0.25)):
        run.set(step=jnp.int32(at))
        run.step(batch())
        assert run.state.batch_stats['block']['told'] == fraction
    assert run.train_step.compiled._cache_size() == 1


def test_without_the_number_of_steps_the_rate_is_the_same_throughout():
    run = Run(Told(drop_block=0.3))
    run.step(batch())
    assert run.state.batch_stats['block']['told'] == -1


def test_a_step_without_drop_block_is_told_nothing():
    def text(**options):
        run = Run(Tiny(), **options)
        return run.train_step.lower(run.state, batch()).as_text()
    assert text(steps=8) == text()
