"""What the step draws depends on the seed, the step and the stream alone."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from fixtures_step import CLASSES, SIZE, Norm, Run, Tiny, batch

from imagenet_jax import streams
from imagenet_jax.models.layers import FLOAT32

pytestmark = pytest.mark.numerics


def frozen(**options):
    """Nothing moves, so that only the dropout mask changes the loss."""
    return Run(Tiny(norm='none', dropout=0.5), rate=0.0, momentum=0.0, decay=0.0, **options)


def test_dropout_is_drawn_from_seed_and_step():
    run, data = frozen(), batch()
    first, second = run.step(data)['loss'], run.step(data)['loss']
    assert first != second
    run.set(step=jnp.int32(0))
    assert run.step(data)['loss'] == first
    run.set(step=jnp.int32(0), key=jax.random.key_data(jax.random.key(1)))
    assert run.step(data)['loss'] not in (first, second)


@pytest.mark.parametrize('options', [{'devices': 2}, {'accumulation': 2}])
def test_dropout_differs_between_devices_and_between_parts(options):
    """Two shares of the same images: with one mask for both, their mean loss would be that of one share alone."""
    half = batch(8)
    twice = jax.tree.map(lambda x: np.concatenate([x, x]), half)
    assert frozen(**options).step(twice)['loss'] != pytest.approx(frozen().step(half)['loss'], rel=1e-6)


def test_one_program_makes_the_states_of_all_seeds():
    train_step = Run(Norm()).train_step
    states = [train_step.init(seed, SIZE) for seed in (0, 1)]
    assert train_step._make._cache_size() == 1  # else each seed would be compiled anew
    for seed, state in enumerate(states):
        np.testing.assert_array_equal(state.key, jax.random.key_data(jax.random.key(seed)))
    one, other = (state.params['Dense_0']['kernel'] for state in states)
    assert (one != other).any()


def test_seeds_that_differ_past_32_bits_draw_otherwise():
    seeds = (1, 2**32 - 1, 2**32, 2**32 + 1, 2**33 + 1, 2**63 - 1)
    assert len({tuple(jax.random.key_data(streams.seed_key(seed)).tolist()) for seed in (0, *seeds)}) == 1 + len(seeds)
    for seed in seeds[:2]:
        assert streams.seed_key(seed) == jax.random.key(seed)


class Draws(nn.Module):
    """Answers what each stream gives, as a constant that a loss of the classifier's bias can be read from."""
    dtype: jnp.dtype = FLOAT32

    @nn.compact
    def __call__(self, images, train=False):
        bias = self.param('bias', nn.initializers.zeros, (CLASSES,))
        seen = self.variable('batch_stats', 'seen', jnp.zeros, (len(streams.MODEL_STREAMS),))
        if train:
            seen.value = jnp.stack([jax.random.uniform(self.scope.rngs[name].rng) for name in streams.MODEL_STREAMS])
        return jnp.zeros((len(images), CLASSES)) + bias


def test_streams_are_fixed():
    """Each is its own fold of the step's key: by its number, then the device, then the part."""
    run = Run(Draws(), rate=0.0)
    for at in range(2):
        run.step(batch(seed=at))
        key = jax.random.fold_in(jax.random.key(0), at)
        expected = []
        for number in (0, 1, 2):  # dropout, drop_path, drop_block: for good
            stream = jax.random.fold_in(jax.random.fold_in(jax.random.fold_in(key, number), 0), 0)
            expected.append(jax.random.uniform(stream))
        np.testing.assert_array_equal(run.state.batch_stats['seen'], np.array(expected))
    assert streams.STREAMS == {'dropout': 0, 'drop_path': 1, 'drop_block': 2, 'mix': 3, 'erase': 4, 'mix_choice': 5}
