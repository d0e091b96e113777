"""What `config.model.act` may name."""

import jax

# Each of any shape and dtype, which it keeps.
ACTIVATIONS = {
    'relu': jax.nn.relu,
    'relu6': jax.nn.relu6,
    'swish': jax.nn.swish,            # x * sigmoid(x), SiLU (arXiv 1710.05941)
    'hard_swish': jax.nn.hard_swish,  # x * relu6(x + 3) / 6 (arXiv 1905.02244)
    'mish': jax.nn.mish,              # x * tanh(softplus(x)) (arXiv 1908.08681)
}
