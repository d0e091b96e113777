"""Optimizers that go down the gradient itself, with momentum."""

import dataclasses

import jax
import jax.numpy as jnp
import optax

from imagenet_jax.optim.base import Optimizer, Parts
from imagenet_jax.optim.paths import kernels, others


@dataclasses.dataclass(frozen=True, kw_only=True)
class SGD(Optimizer):
    """With momentum and coupled weight decay: decay times the parameter is added to the gradient, as in PyTorch.

    Attributes:
      momentum: what the running sum of gradients keeps at each update; 0 for none.
      nesterov: look ahead by one momentum step.
    """
    momentum: float = 0.9
    nesterov: bool = True

    def __post_init__(self):
        super().__post_init__()
        self._require_fraction('momentum')

    def _parts(self):
        return self._decay() + self._centralize() + self._momentum()

    def _momentum(self) -> Parts:
        return [('momentum', optax.trace(self.momentum, self.nesterov))] if self.momentum else []


@dataclasses.dataclass(frozen=True, kw_only=True)
class LARS(SGD):
    """SGD in which each kernel has a rate of its own (arXiv 1708.03888), by its norm |w| and that of its gradient |g|.

    trust_coefficient * |w| / (|g| + weight_decay * |w|), or 1 where a norm is 0, multiplies gradient and decay of a
    kernel; biases and norms go as in SGD. The momentum gathers what this answers and the schedule's rate multiplies
    last, as in timm; in the paper the momentum holds the rate, which differs only while the rate changes.

    Attributes:
      trust_coefficient: the paper's eta.
    """
    nesterov: bool = False
    trust_coefficient: float = 0.001

    def __post_init__(self):
        super().__post_init__()
        self._require_positive('trust_coefficient')

    def _parts(self):
        rest = optax.add_decayed_weights(self.weight_decay if self.decay_bias_and_norm else 0.0)
        local = optax.stateless(lambda gradients, params: jax.tree.map(self._local, gradients, params))
        return [('local', optax.masked(local, kernels)), ('decay', optax.masked(rest, others)),
                *self._centralize(), *self._momentum()]

    def _local(self, gradient, kernel):
        """Not optax.scale_by_trust_ratio: that divides by the norm of the sum of gradient and decay."""
        of_gradient, of_kernel = jnp.linalg.norm(gradient), jnp.linalg.norm(kernel)
        ratio = self.trust_coefficient * of_kernel / (of_gradient + self.weight_decay * of_kernel)
        return (gradient + self.weight_decay * kernel) * jnp.where((of_gradient > 0) & (of_kernel > 0), ratio, 1.0)
