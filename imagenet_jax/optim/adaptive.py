"""Optimizers that divide by a running mean of the squared gradient."""

import dataclasses

import optax

from imagenet_jax.optim.base import Optimizer, Parts
from imagenet_jax.optim.paths import kernels


@dataclasses.dataclass(frozen=True, kw_only=True)
class Adam(Optimizer):
    """arXiv 1412.6980, with coupled weight decay: decay times the parameter is added to the gradient, as in PyTorch.

    Attributes:
      beta1: what the running mean of gradients keeps at each update.
      beta2: what that of their squares keeps.
      epsilon: added to the root of the second.
    """
    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-8

    def __post_init__(self):
        super().__post_init__()
        self._require_fraction('beta1', 'beta2')
        self._require_positive('epsilon')

    def _parts(self):
        return self._decay() + self._centralize() + self._moments()

    def _moments(self) -> Parts:
        return [('moments', optax.scale_by_adam(self.beta1, self.beta2, self.epsilon))]


@dataclasses.dataclass(frozen=True, kw_only=True)
class AdamW(Adam):
    """Adam with decoupled weight decay (arXiv 1711.05101): rate times decay times the parameter is taken from it, and
    no moment sees the decay; as in PyTorch."""

    def _parts(self):
        return self._centralize() + self._moments() + self._decay()


@dataclasses.dataclass(frozen=True, kw_only=True)
class LAMB(AdamW):
    """AdamW whose direction, decay included, gets the norm of the parameter (arXiv 1904.00962); as in timm.

    Where a norm is 0 the direction stays. Parameters that are not decayed by `decay_bias_and_norm` keep AdamW's
    direction. With weight_decay=0 norms still count: timm's always_adapt. timm clips too, here only clip_norm does.
    """
    epsilon: float = 1e-6

    def _parts(self):
        ratio = optax.scale_by_trust_ratio()
        ratio = ratio if self.decay_bias_and_norm else optax.masked(ratio, kernels)
        return [*super()._parts(), ('trust', ratio)]


@dataclasses.dataclass(frozen=True, kw_only=True)
class RMSprop(Optimizer):
    """As TensorFlow's, of MobileNet V1 and V3: epsilon inside the root, and the mean of squares starts at one; timm's
    RMSpropTF with lr_in_momentum=False. Weight decay is coupled.

    The momentum gathers gradients divided by their roots, and the rate multiplies last. In TensorFlow the momentum
    holds the rate, so that a change of rate shows with a delay of some updates; while it stays the two are the same.

    Attributes:
      rho: what the running mean of squared gradients keeps at each update.
      momentum: what the running sum of divided gradients keeps; 0 for none.
      epsilon: added to the mean of squares before the root.
    """
    rho: float = 0.9
    momentum: float = 0.9
    epsilon: float = 1e-3

    def __post_init__(self):
        super().__post_init__()
        self._require_fraction('rho', 'momentum')
        self._require_positive('epsilon')

    def _parts(self):
        squares = optax.scale_by_rms(self.rho, self.epsilon, initial_scale=1.0, eps_in_sqrt=True)
        momentum = [('momentum', optax.trace(self.momentum))] if self.momentum else []
        return [*self._decay(), *self._centralize(), ('squares', squares), *momentum]
