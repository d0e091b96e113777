"""What `config.model.act` may name."""

import jax
import jax.numpy as jnp

# Each of any shape and dtype, which it keeps.
ACTIVATIONS = {
    'relu': jax.nn.relu,
    'relu6': jax.nn.relu6,
    'swish': jax.nn.swish,            # x * sigmoid(x), SiLU (arXiv 1710.05941)
    'hard_swish': jax.nn.hard_swish,  # x * relu6(x + 3) / 6 (arXiv 1905.02244)
    'mish': jax.nn.mish,              # x * tanh(softplus(x)) (arXiv 1908.08681)
}


def relu_of_sum(x: jax.Array) -> jax.Array:
    """ReLU, of a sum that a convolution reads and the next sum as well.

    max(x, 0) is of one map: XLA for CPUs computes that anew for each that reads it, and so the sum, in the end all sums
    of a stage. This is of two maps to it, which it computes once. A GPU's program has the maximum.
    """
    return jax.lax.platform_dependent(x, cpu=lambda x: jnp.where(x <= 0, jnp.zeros_like(x), x), default=jax.nn.relu)
