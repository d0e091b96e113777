"""Norms: those that `config.model.norm` may name, and AlexNet's local response normalisation.

All keep their statistics, and compute them, in at least float32. Where a norm uses a batch's statistics it uses running
ones in evaluation, and in training too where the collection FROZEN has an entry for it.
"""

import dataclasses
import math
from collections.abc import Callable
from functools import partial

import flax.linen as nn
import flax.traverse_util
import jax
import jax.numpy as jnp

from imagenet_jax.models.layers.batch_norm import Activation, affine, batch_norm, finish
from imagenet_jax.models.layers.dtypes import at_least_float32

# Name of the mesh axis that the data is split over; synchronous BatchNorm averages over it.
DATA_AXIS = 'data'
# Collection of the norms that training leaves alone: {path of the norm: {'norm': ()}}.
FROZEN = 'frozen'


def frozen_norms(frozen: dict, stats: dict) -> dict:
    """The collection FROZEN: norms with statistics all of whose parameters are frozen, as a bool of each says."""
    flatten, norms = flax.traverse_util.flatten_dict, {}
    for path, still in flatten(frozen).items():
        norms.setdefault(path[:-1], []).append(still)
    return flax.traverse_util.unflatten_dict(
        {(*norm, 'norm'): () for norm in {path[:-1] for path in flatten(stats)} if all(norms.get(norm, [False]))})


class _Norm(nn.Module):
    """What the norms below share: (N, ..., C) -> the same shape, of `dtype`. Attributes are as of `nn.BatchNorm`."""
    train: bool = False
    momentum: float = 0.9
    epsilon: float = 1e-5
    scale_init: nn.initializers.Initializer = nn.initializers.ones
    dtype: jnp.dtype = jnp.float32
    param_dtype: jnp.dtype = jnp.float32

    @nn.nowrap
    def _affine(self, x, trained=True):
        """Each channel times its scale, plus its bias."""
        scale, bias = self._scale_and_bias(x)
        if not trained:
            scale, bias = jax.lax.stop_gradient((scale, bias))
        return (x * scale + bias).astype(self.dtype)

    @nn.nowrap
    def _scale_and_bias(self, x):
        return [self.param(name, init, x.shape[-1:], self.param_dtype)
                for name, init in (('scale', self.scale_init), ('bias', nn.initializers.zeros))]

    @nn.nowrap
    def _kept(self, name, shape):
        """A running statistic, 'mean' or 'var'."""
        return self.variable('batch_stats', name, {'mean': jnp.zeros, 'var': jnp.ones}[name], shape, jnp.float32)

    @nn.nowrap
    def _running(self, **batch):
        """What to normalise by: the batch's statistics, which move the running ones, or those where they are used."""
        kept = {name: self._kept(name, value.shape) for name, value in batch.items()}
        if self._by_running():
            return [variable.value for variable in kept.values()]
        self._move(kept, batch)
        return list(batch.values())

    @nn.nowrap
    def _by_running(self):
        """Whether to normalise by the running statistics."""
        return not self.train or self.has_variable(FROZEN, 'norm')

    @nn.nowrap
    def _move(self, kept, batch):
        """The running statistics towards the batch's, both by name."""
        if self.is_initializing():
            return
        for name, old in kept.items():
            new = self.momentum * old.value + (1 - self.momentum) * batch[name]
            old.value = new.astype(old.value.dtype)


class BatchNorm(_Norm):
    """Each channel's mean and variance over the batch (arXiv 1502.03167); variances are biased.

    Called as (x, shortcut): the shortcut, of x's shape, is added before the activation, which is ReLU then.

    Attributes:
      axis_name: of the mesh axis that a batch's statistics are averaged over; None: they are of the device's images.
      act: the activation that follows, or None.
      later: where it would normalise by a batch's statistics, answers what is still to do, an `Unnormalized`.
    """
    axis_name: str | None = None
    act: Activation | None = None
    later: bool = False

    @nn.compact
    def __call__(self, x, shortcut=None):
        scale, bias = self._scale_and_bias(x)
        kept = {name: self._kept(name, x.shape[-1:]) for name in ('mean', 'var')}
        if self._by_running():
            slope = scale * jax.lax.rsqrt(kept['var'].value + self.epsilon)
            return finish(affine(x, kept['mean'].value, slope, bias), normalized(shortcut), self.act, self.dtype)
        axis_name = None if self.is_initializing() else self.axis_name  # there no mesh is
        normalize = partial(batch_norm, act=self.act, epsilon=self.epsilon, axis_name=axis_name, dtype=self.dtype)
        here = Unnormalized(x, scale, bias, lambda mean, var: self._move(kept, {'mean': mean, 'var': var}), normalize)
        return here if self.later else here.normalized(shortcut)


@dataclasses.dataclass(frozen=True)
class Unnormalized:
    """A map that its BatchNorm has not normalised yet: that at the end of the branch beside it does both in one pass.

    Attributes:
      x: (N, ..., C).
      scale, bias: (C,).
      move: (mean, var) of the map, to be called with them once.
      normalize: `batch_norm` of lists of these.
    """
    x: jax.Array
    scale: jax.Array
    bias: jax.Array
    move: Callable[[jax.Array, jax.Array], None]
    normalize: Callable

    def normalized(self, shortcut: 'jax.Array | Unnormalized | None' = None) -> jax.Array:
        """The map, and what follows its norm."""
        both = (self, shortcut) if isinstance(shortcut, Unnormalized) else (self,)
        added = None if len(both) == 2 else shortcut
        maps, scales, biases = zip(*((one.x, one.scale, one.bias) for one in both), strict=True)
        y, means, variances = self.normalize(maps, added, scales, biases)
        for one, mean, var in zip(both, means, variances, strict=True):
            one.move(mean, var)
        return y


def normalized(x):
    """A map, whatever its norm has left to do."""
    return x.normalized() if isinstance(x, Unnormalized) else x


class FrozenBatchNorm(_Norm):
    """BatchNorm by its running statistics, in training too, none of whose numbers ever change; as torchvision's."""

    @nn.compact
    def __call__(self, x):
        mean, var = (self._kept(name, x.shape[-1:]).value for name in ('mean', 'var'))
        return self._affine((at_least_float32(x) - mean) * jax.lax.rsqrt(var + self.epsilon), trained=False)


class GroupNorm(_Norm):
    """Each image's mean and variance over groups of neighbouring channels (arXiv 1803.08494).

    There are 32 groups or, where that does not divide the channels, the greatest divisor that both have; and one where
    a group would be a single number.
    """

    @nn.compact
    def __call__(self, x):
        groups = math.gcd(32, x.shape[-1])
        groups = 1 if math.prod(x.shape[1:]) == groups else groups
        grouped = at_least_float32(x).reshape(*x.shape[:-1], groups, -1)
        axes = (*range(1, x.ndim - 1), x.ndim)
        mean, var = (f(grouped, axes, keepdims=True) for f in (jnp.mean, jnp.var))
        return self._affine(((grouped - mean) * jax.lax.rsqrt(var + self.epsilon)).reshape(x.shape))


class SwitchableNorm(_Norm):
    """Mean and variance mixed, by softmax of learned weights, of those of instance, layer and batch (arXiv 1806.10779).

    The weights, in that order, are of the whole layer, others for the mean than for the variance. Statistics of a batch
    are of the device's own images; variances are biased, as in the paper.
    """

    @nn.compact
    def __call__(self, x):
        wide, pixels = at_least_float32(x), tuple(range(1, x.ndim - 1))
        instance = jnp.mean(wide, pixels, keepdims=True), jnp.var(wide, pixels, keepdims=True)
        layer = _pooled(*instance, axis=-1)
        batch = self._running(**{name: value.reshape(-1) for name, value in
                                 zip(('mean', 'var'), _pooled(*instance, axis=0), strict=True)})
        mean, var = (
            sum(weight * part for weight, part in zip(
                jax.nn.softmax(self.param(f'{name}_weight', nn.initializers.ones, (3,), self.param_dtype)), parts,
                strict=True))
            for name, parts in zip(('mean', 'var'), zip(instance, layer, batch, strict=True), strict=True))
        return self._affine((wide - mean) * jax.lax.rsqrt(var + self.epsilon))


class EvoNormB0(_Norm):
    """x / max(deviation of the batch, v x + deviation of the instance), scaled and shifted (arXiv 2004.02967).

    That is a norm and an activation in one. Where no activation is to follow, `act=False` leaves the scale and the
    bias. Deviations of a batch are of the device's own images; variances are biased, as in the paper.

    Attributes:
      act: whether it stands for an activation as well.
    """
    act: bool = False

    @nn.compact
    def __call__(self, x):
        wide = at_least_float32(x)
        if self.act:
            batch, = self._running(var=jnp.var(wide, tuple(range(x.ndim - 1))))
            instance = jnp.var(wide, tuple(range(1, x.ndim - 1)), keepdims=True)
            v = self.param('v', nn.initializers.ones, x.shape[-1:], self.param_dtype)
            wide /= jnp.maximum(jnp.sqrt(batch + self.epsilon), v * wide + jnp.sqrt(instance + self.epsilon))
        return self._affine(wide)


def _pooled(mean, var, axis):
    """Mean and variance of the union of sets along `axis` that have these, and are equally large."""
    pooled = mean.mean(axis, keepdims=True)
    return pooled, (var + (mean - pooled)**2).mean(axis, keepdims=True)


# 'batch': statistics of the device's own images; 'sync': of the global batch.
NORMS = {'batch': BatchNorm, 'sync': partial(BatchNorm, axis_name=DATA_AXIS), 'group': GroupNorm,
         'switchable': SwitchableNorm, 'evonorm_b0': EvoNormB0, 'frozen': FrozenBatchNorm}
# Those that take the activation which follows as `act`, a shortcut before it, and `later`.
FUSING_NORMS = frozenset({'batch', 'sync'})
# Those that are another layer where an activation follows: that layer, which is the activation as well.
ACTIVATING_NORMS = {'evonorm_b0': partial(EvoNormB0, act=True)}


def local_response_norm(x: jax.Array, k: float, n: int, alpha: float, beta: float) -> jax.Array:
    """x / (k + alpha * sum of squares over n neighbouring channels)**beta; AlexNet's paper, section 3.3.

    At least in float32, whose range the squares need.

    PyTorch's LocalResponseNorm averages instead of summing: its alpha is n times this one.
    """
    wide = at_least_float32(x)
    squares = jnp.pad(wide * wide, ((0, 0), (0, 0), (0, 0), (n // 2, (n - 1) // 2)))
    total = sum(squares[..., i:i + x.shape[-1]] for i in range(n))
    return (wide * (k + alpha * total)**-beta).astype(x.dtype)
