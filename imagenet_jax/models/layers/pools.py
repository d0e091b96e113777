"""Layers shared by the families, and the choice of them that a model makes once for all its blocks."""

import dataclasses
from collections.abc import Callable
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from imagenet_jax.errors import UserError, unknown

# Name of the mesh axis that the data is split over; synchronous BatchNorm averages over it.
DATA_AXIS = 'data'
FLOAT32 = jnp.dtype(jnp.float32)
# Collection of the norms that training leaves alone: {path of the norm: {'norm': ()}}.
FROZEN = 'frozen'
_NORM_AXIS = {'batch': None, 'sync': DATA_AXIS}

dense_init = nn.initializers.normal(0.01)


def he_init(groups: int = 1):
    """Kaiming normal by fan-out (arXiv 1502.01852), a grouped kernel's fan-out divided by its groups."""
    return nn.initializers.variance_scaling(2.0 * groups, 'fan_out', 'normal')


@dataclasses.dataclass(frozen=True)
class Layers:
    """What a model's blocks are made of.

    Attributes:
      dtype: of convolutions and activations. Norms compute statistics in float32 whatever it is.
      param_dtype: of parameters.
      norm: 'batch' (statistics of the device's own images) or 'sync' (of the global batch).
      zero_gamma: norms that end a residual branch start at scale 0 (arXiv 1706.02677).
      momentum, epsilon: of the norms, momentum being what the running statistics keep at each step.
      remat: the gradient computes a block's activations anew instead of keeping them (arXiv 1604.06174).
    """
    dtype: jnp.dtype = FLOAT32
    param_dtype: jnp.dtype = FLOAT32
    norm: str = 'batch'
    zero_gamma: bool = False
    momentum: float = 0.9
    epsilon: float = 1e-5
    remat: bool = False

    def __post_init__(self):
        if self.norm not in _NORM_AXIS:
            raise unknown('model.norm', self.norm, _NORM_AXIS)

    def __call__(self, train: bool):
        """Answers (conv, norm, act) for one call of a block."""
        return self.conv, partial(self._norm, train), nn.relu

    def conv(self, features: int, kernel: int, stride: int = 1, groups: int = 1, *, name: str,
             padding: int | None = None, use_bias: bool = False, init=None,
             bias_init=nn.initializers.zeros) -> nn.Conv:
        """A convolution: padded by half its kernel, without bias and He-initialised unless said otherwise."""
        # Symmetric padding: 'SAME' pads a strided convolution on one side only and differs from published weights.
        padding = kernel // 2 if padding is None else padding
        return nn.Conv(features, (kernel, kernel), (stride, stride), padding=padding, feature_group_count=groups,
                       use_bias=use_bias, kernel_init=init or he_init(groups), bias_init=bias_init, dtype=self.dtype,
                       param_dtype=self.param_dtype, name=name)

    def dense(self, features: int, *, name: str, use_bias: bool = True, bias_init=nn.initializers.zeros) -> nn.Dense:
        """A dense layer that starts at N(0, .01)."""
        return nn.Dense(features, use_bias=use_bias, kernel_init=dense_init, bias_init=bias_init, dtype=self.dtype,
                        param_dtype=self.param_dtype, name=name)

    def block(self, constructor: Callable[..., nn.Module]) -> Callable[..., nn.Module]:
        """The constructor of a block called as (x, train): itself, or with `remat` that of a rematerialised one.

        The block's name must be given: a module's default name, unlike its parameters, follows from its class.
        """
        if not self.remat:
            return constructor
        if isinstance(constructor, partial):
            return partial(self.block(constructor.func), *constructor.args, **constructor.keywords)
        return nn.remat(constructor, static_argnums=2)  # train; self is 0

    def _norm(self, train: bool, name: str, ends_branch: bool = False) -> nn.BatchNorm:
        scale_init = nn.initializers.zeros if ends_branch and self.zero_gamma else nn.initializers.ones
        return BatchNorm(train=train, momentum=self.momentum, epsilon=self.epsilon, scale_init=scale_init,
                         axis_name=_NORM_AXIS[self.norm], dtype=self.dtype, param_dtype=self.param_dtype, name=name)


class BatchNorm(nn.BatchNorm):
    """Flax's; uses and keeps its running statistics in training too where the collection FROZEN has an entry for it."""
    train: bool = False

    def __call__(self, x):
        return super().__call__(x, use_running_average=not self.train or self.has_variable(FROZEN, 'norm'))


class ConvNorm(nn.Module):
    """Convolution, norm and, where there is one, activation.

    Attributes:
      features, kernel, stride, groups: of the convolution.
      layers: what it is made of.
      act: the activation, or None.
      ends_branch: see `Layers.zero_gamma`.
      names: of the convolution and the norm.
    """
    features: int
    kernel: int
    stride: int = 1
    groups: int = 1
    _: dataclasses.KW_ONLY
    layers: Layers
    act: Callable[[jax.Array], jax.Array] | None = None
    ends_branch: bool = False
    names: tuple[str, str] = ('0', '1')

    @nn.compact
    def __call__(self, x, train):
        conv, norm, _ = self.layers(train)
        x = conv(self.features, self.kernel, self.stride, self.groups, name=self.names[0])(x)
        x = norm(self.names[1], ends_branch=self.ends_branch)(x)
        return self.act(x) if self.act else x


class Sequential(nn.Module):
    """Blocks, given as constructors, one after the other and named by number.

    `every=True` answers the output of each, not only of the last.
    """
    blocks: tuple[Callable[..., nn.Module], ...]
    every: bool = False

    @nn.compact
    def __call__(self, x, train):
        outputs = []
        for i, block in enumerate(self.blocks):
            x = block(name=str(i))(x, train)
            outputs.append(x)
        return outputs if self.every else x


def divisible(width: float, divisor: int = 8) -> int:
    """The nearest multiple of `divisor`, but never less than 0.9 of `width`; as the MobileNets round widths."""
    nearest = max(divisor, int(width + divisor / 2) // divisor * divisor)
    return nearest if nearest >= 0.9 * width else nearest + divisor


def at_least_float32(x: jax.Array) -> jax.Array:
    """Half precision as float32; float64 stays."""
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def global_mean(x: jax.Array, keepdims: bool = False) -> jax.Array:
    """(N, H, W, C) -> (N, C), or (N, 1, 1, C) with `keepdims`: means over all pixels, at least float32."""
    return jnp.mean(at_least_float32(x), axis=(1, 2), keepdims=keepdims)


class SqueezeExcite(nn.Module):
    """Scales each channel by a gate computed from all channels' global means (arXiv 1709.01507).

    Attributes:
      features_reduced: width of the hidden layer.
      layers: what it is made of.
      act, gate: activations of the hidden and of the last layer (`nn.hard_sigmoid` is relu6(x + 3) / 6).
      names: of the two 1x1 convolutions, which have biases.
    """
    features_reduced: int
    layers: Layers
    act: Callable[[jax.Array], jax.Array] = nn.relu
    gate: Callable[[jax.Array], jax.Array] = nn.sigmoid
    names: tuple[str, str] = ('fc1', 'fc2')

    @nn.compact
    def __call__(self, x):
        conv = partial(self.layers.conv, kernel=1, use_bias=True)
        y = global_mean(x, keepdims=True).astype(x.dtype)
        y = self.act(conv(self.features_reduced, name=self.names[0])(y))
        return x * self.gate(conv(x.shape[-1], name=self.names[1])(y))


def local_response_norm(x: jax.Array, k: float, n: int, alpha: float, beta: float) -> jax.Array:
    """x / (k + alpha * sum of squares over n neighbouring channels)**beta; AlexNet's paper, section 3.3.

    At least in float32, whose range the squares need.

    PyTorch's LocalResponseNorm averages instead of summing: its alpha is n times this one.
    """
    wide = at_least_float32(x)
    squares = jnp.pad(wide * wide, ((0, 0), (0, 0), (0, 0), (n // 2, (n - 1) // 2)))
    total = sum(squares[..., i:i + x.shape[-1]] for i in range(n))
    return (wide * (k + alpha * total)**-beta).astype(x.dtype)


def adaptive_mean_pool(x: jax.Array, size: int) -> jax.Array:
    """(N, H, W, C) -> (N, size, size, C): means over PyTorch's adaptive windows, which may overlap or repeat."""
    if 0 in x.shape:
        raise UserError('images too small for this model: its convolutions and pools leave no pixel of them')
    if x.shape[1:3] == (size, size):
        return x
    wide = at_least_float32(x)
    rows, columns = (_adaptive_windows(side, size).astype(wide.dtype) for side in x.shape[1:3])
    return jnp.einsum('ih,nhwc,jw->nijc', rows, wide, columns, precision='highest').astype(x.dtype)


def _adaptive_windows(side: int, size: int) -> np.ndarray:
    """(size, side): row i averages the pixels from floor(i * side / size) up to ceil((i + 1) * side / size)."""
    weights = np.zeros((size, side))
    for i in range(size):
        start, stop = i * side // size, -(-(i + 1) * side // size)
        weights[i, start:stop] = 1 / (stop - start)
    return weights


def halve(x: jax.Array) -> jax.Array:
    """Means of 2x2 pixels, one for each pair of rows and columns; at an odd edge, of the pixels that there are."""
    edge = [(0, side % 2) for side in x.shape[1:3]]
    return nn.avg_pool(x, (2, 2), (2, 2), edge, count_include_pad=False)


def max_pool(x: jax.Array, window: int, stride: int, padding: int, ceil: bool = False) -> jax.Array:
    """Max-pool of (N, H, W, C), padded with -inf; with `ceil`, a last window that is only partly inside counts too.

    Its gradient goes to the first maximum of each window, as in PyTorch. XLA's own, select-and-scatter, has no
    deterministic form on a GPU; this one is a sum of shifted selections.
    """
    if ceil:
        extra = [-(side + 2 * padding - window) % stride for side in x.shape[1:3]]
        x = jnp.pad(x, ((0, 0), *((0, more) for more in extra), (0, 0)), constant_values=-jnp.inf)
    return _max_pool(x, window, stride, padding)


@partial(jax.custom_vjp, nondiff_argnums=(1, 2, 3))
def _max_pool(x, window, stride, padding):
    return nn.max_pool(x, (window, window), (stride, stride), ((padding, padding),) * 2)


def _max_pool_forward(x, window, stride, padding):
    y = _max_pool(x, window, stride, padding)
    return y, (x, y)


def _max_pool_backward(window, stride, padding, saved, g):
    x, y = saved
    n, height, width, c = x.shape
    rows, columns = y.shape[1:3]
    edge = ((0, 0), (padding, padding), (padding, padding), (0, 0))
    padded = jnp.pad(x, edge, constant_values=-jnp.inf)
    size_h, size_w = padded.shape[1:3]
    free = jnp.ones(y.shape, bool)
    total = jnp.zeros(padded.shape, g.dtype)
    zero = jnp.zeros((), g.dtype)
    for i in range(window):
        for j in range(window):
            last = (i + stride * (rows - 1) + 1, j + stride * (columns - 1) + 1)
            hit = free & (jax.lax.slice(padded, (0, i, j, 0), (n, *last, c), (1, stride, stride, 1)) == y)
            free &= ~hit
            # The transpose of a strided slice: zeros between the values and around them.
            total += jax.lax.pad(jnp.where(hit, g, zero), zero, (
                (0, 0, 0), (i, size_h - last[0], stride - 1), (j, size_w - last[1], stride - 1), (0, 0, 0)))
    return (total[:, padding:padding + height, padding:padding + width],)


_max_pool.defvjp(_max_pool_forward, _max_pool_backward)
