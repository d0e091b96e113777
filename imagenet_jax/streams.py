"""The keys that random numbers on the device are drawn from, by a run's seed, the step, and who draws."""

import jax

# Whoever draws random numbers in a step has a stream of its own. The numbers never change, and a new one takes the
# next, so that what is drawn for one does not depend on which others there are. The first are the model's.
MODEL_STREAMS = {'dropout': 0, 'drop_path': 1, 'drop_block': 2}
STREAMS = {**MODEL_STREAMS, 'mix': 3, 'erase': 4, 'mix_choice': 5}


def seed_key(seed: int) -> jax.Array:
    """Of a run's seed, 0 to 2**63 - 1: `jax.random.key` takes its lower 32 bits alone."""
    key = jax.random.key(seed & 0xFFFFFFFF)
    return jax.random.fold_in(key, seed >> 32) if seed >> 32 else key


def step_key(key: jax.Array, step: int | jax.Array) -> jax.Array:
    """Of all that is drawn in a step, from the key of the run's seed."""
    return jax.random.fold_in(key, step)


def stream(key: jax.Array, name: str) -> jax.Array:
    """Of what is drawn for `name`, one of STREAMS, from a step's key."""
    return jax.random.fold_in(key, STREAMS[name])
