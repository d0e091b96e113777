"""The choice of layers that a model makes once for all its blocks."""

import dataclasses
import itertools
import operator
from collections.abc import Callable, Sequence
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp

from imagenet_jax.errors import UserError, unknown
from imagenet_jax.models.layers import gpu_convs, pools
from imagenet_jax.models.layers.activations import ACTIVATIONS, relu_of_sum
from imagenet_jax.models.layers.deformable import DeformableConv
from imagenet_jax.models.layers.drops import DropBlock, DropPath
from imagenet_jax.models.layers.dtypes import FLOAT32
from imagenet_jax.models.layers.norms import ACTIVATING_NORMS, FUSING_NORMS, NORMS, normalized

dense_init = nn.initializers.normal(0.01)


def he_init(groups: int = 1):
    """Kaiming normal by fan-out (arXiv 1502.01852), a grouped kernel's fan-out divided by its groups."""
    return nn.initializers.variance_scaling(2.0 * groups, 'fan_out', 'normal')


@dataclasses.dataclass(frozen=True)
class Layers:
    """What a model's blocks are made of, in one call of the model.

    Its methods that take a `name` make a module, to be called inside a compact method.

    Attributes:
      train: norms use the batch's statistics, and dropout drops.
      dtype: of convolutions and activations. Norms compute statistics in float32 whatever it is.
      param_dtype: of parameters.
      norm_kind: one of `NORMS`.
      act_kind: one of `ACTIVATIONS`. What computes a weight and no feature (squeeze and excitation, the attention of
        ResNeSt) has its paper's own, whatever this is.
      zero_gamma: norms that end a residual branch start at scale 0 (arXiv 1706.02677).
      momentum, epsilon: of the norms, momentum being what the running statistics keep at each step.
      remat: the gradient computes a block's activations anew instead of keeping them (arXiv 1604.06174).
      dropout_rate: of `dropout`.
      drop_path_rate, drop_block_rate: see `DropPath` and `DropBlock`; of the whole model or, in what `by_block`
        answers, of one block.
      progress: what DropBlock's rate is multiplied by, a traced number; None: by nothing.
      antialias: in a residual block, and in a max-pool, what would stride is blurred instead (arXiv 1904.11486).
      lip: pools with learned weights stand for strides (`lip.strided`).
      deformable_stages: of the model, the last resolutions at which 3x3 convolutions are deformable, at most 3.
      deforms: those of this block are; for `by_block` to set.
    """
    train: bool = False
    dtype: jnp.dtype = FLOAT32
    param_dtype: jnp.dtype = FLOAT32
    norm_kind: str = 'batch'
    act_kind: str = 'relu'
    _: dataclasses.KW_ONLY
    zero_gamma: bool = False
    momentum: float = 0.9
    epsilon: float = 1e-5
    remat: bool = False
    dropout_rate: float = 0.0
    drop_path_rate: float = 0.0
    drop_block_rate: float = 0.0
    progress: jax.Array | None = None
    antialias: bool = False
    lip: bool = False
    deformable_stages: int = 0
    deforms: bool = False

    def __post_init__(self):
        for option, kind, known in ('norm', self.norm_kind, NORMS), ('act', self.act_kind, ACTIVATIONS):
            if kind not in known:
                raise unknown(f'model.{option}', kind, known)
        if self.zero_gamma and self.norm_kind == 'frozen':
            raise UserError('model.zero_gamma=True starts scales at 0, and model.norm=frozen would leave them there')
        if not 0 <= self.deformable_stages <= 3:
            raise UserError(f'model.deformable={self.deformable_stages} must be from 0 to 3')

    @property
    def _drops_paths(self) -> bool:
        return self.train and self.drop_path_rate > 0

    @property
    def _drops_blocks(self) -> bool:
        return self.train and self.drop_block_rate > 0

    def conv(self, features: int, kernel: int, stride: int = 1, groups: int = 1, *, name: str,
             padding: int | None = None, use_bias: bool = False, init=None,
             bias_init=nn.initializers.zeros) -> nn.Module:
        """A convolution: padded by half its kernel, without bias and He-initialised unless said otherwise.

        A 3x3 of a block that `deforms` is deformable, and takes none of the last four.
        """
        if self.deforms and kernel == 3:
            return DeformableConv(features, kernel, stride, groups, he_init(groups), self.dtype, self.param_dtype,
                                  name=name)
        # Symmetric padding: 'SAME' pads a strided convolution on one side only and differs from published weights.
        padding = kernel // 2 if padding is None else padding
        return nn.Conv(features, (kernel, kernel), (stride, stride), padding=padding, feature_group_count=groups,
                       use_bias=use_bias, kernel_init=init or he_init(groups), bias_init=bias_init, dtype=self.dtype,
                       param_dtype=self.param_dtype, conv_general_dilated=gpu_convs.conv, name=name)

    def dense(self, features: int, *, name: str, use_bias: bool = True, bias_init=nn.initializers.zeros) -> nn.Dense:
        """A dense layer that starts at N(0, .01)."""
        return nn.Dense(features, use_bias=use_bias, kernel_init=dense_init, bias_init=bias_init, dtype=self.dtype,
                        param_dtype=self.param_dtype, name=name)

    @property
    def _fuses_ends(self) -> bool:
        """Whether the last norm of a branch takes in all that comes after it in a block."""
        return self.norm_kind in FUSING_NORMS and self.act_kind == 'relu' and not self._drops_paths

    def norm(self, name: str, *, ends_branch: bool = False, ends_shortcut: bool = False) -> nn.Module:
        """A norm that no activation follows.

        Args:
          name: of the module.
          ends_branch: it is the last of a residual branch.
          ends_shortcut: it is the last of the way beside one; its answer is for `norm_join_act` or `join` alone.
        """
        later = {'later': True} if ends_shortcut and self._fuses_ends else {}
        return self._norm(NORMS, name, self._scale_init(ends_branch), **later)

    def _scale_init(self, ends_branch):
        return nn.initializers.zeros if ends_branch and self.zero_gamma else nn.initializers.ones

    def norm_act(self, x, name, *, drops: bool = False):
        """A norm and the activation, of a map; or of a pair of maps, the second of which may be None, by two names.

        With `drops`, DropBlock stands between them, or comes last where the norm is an activation as well. To be called
        inside a compact method: it makes the norm there.
        """
        joined = self.norm_kind in ACTIVATING_NORMS
        fused = self.norm_kind in FUSING_NORMS and not (drops and self._drops_blocks)
        norm = partial(self._norm, ACTIVATING_NORMS if joined else NORMS,
                       **{'act': ACTIVATIONS[self.act_kind]} if fused else {})
        x = jax.tree.map(lambda name, x: None if x is None else norm(name)(x), name, x)
        x = self.drop_block(x) if drops else x
        return x if joined or fused else self.act(x)

    def norm_join_act(self, x: jax.Array, y: jax.Array, name: str) -> jax.Array:
        """The end of a residual block: `y`, of its branch, through its last norm, `join` with `x`, the activation.

        To be called once in a compact method: it makes the norm there, and what `join` makes.
        """
        if self._fuses_ends:
            return self._norm(NORMS, name, self._scale_init(ends_branch=True), act=ACTIVATIONS['relu'])(y, x)
        return self.join_act(x, self.norm(name, ends_branch=True)(y))

    def _norm(self, registry, name, scale_init=nn.initializers.ones, **more):
        return registry[self.norm_kind](train=self.train, momentum=self.momentum, epsilon=self.epsilon,
                                        scale_init=scale_init, dtype=self.dtype, param_dtype=self.param_dtype,
                                        name=name, **more)

    def act(self, x):
        """The activation, of a map or of a pair of them; not after a norm, where `norm_act` is it."""
        return jax.tree.map(ACTIVATIONS[self.act_kind], x)

    def conv_stride(self, stride: int) -> int:
        """What a convolution strides whose output goes through `blur` or, if it is a 1x1, whose input does."""
        return 1 if self.antialias else stride

    def blur(self, x: jax.Array, stride: int) -> jax.Array:
        """With `antialias` the map strided by blur-pool, else as it is: then the convolution has strided."""
        return pools.blur(x, stride) if self.antialias and stride > 1 else x

    def max_pool(self, x: jax.Array, window: int, stride: int, padding: int, *, ceil: bool = False) -> jax.Array:
        """See `pools.max_pool`; with `antialias` it does not stride, and a blur-pool follows."""
        return self.blur(pools.max_pool(x, window, self.conv_stride(stride), padding, ceil), stride)

    def dropout(self) -> nn.Dropout:
        """Dropout, which in evaluation does nothing; to be made inside a compact method."""
        return nn.Dropout(self.dropout_rate, deterministic=not self.train)

    def join(self, x, y):
        """The end of a residual block: shortcut `x` plus residual branch `y`, maps of one shape, or pairs of maps.

        To be called once in a compact method: it makes DropPath there, as `drop_path`, where there is a rate.
        """
        if self._drops_paths:
            y = DropPath(self.drop_path_rate, name='drop_path')(y)
        return jax.tree.map(operator.add, normalized(x), y)

    def join_act(self, x, y):
        """`join` and the activation."""
        act = relu_of_sum if self.act_kind == 'relu' else ACTIVATIONS[self.act_kind]
        return jax.tree.map(act, self.join(x, y))

    def drop_block(self, x):
        """DropBlock of a map, or of a pair of maps, where it does not come with `norm_act`.

        To be called once in a compact method: it makes the module there, as `drop_block`, where there is a rate.
        """
        if not self._drops_blocks:
            return x
        rate = self.drop_block_rate if self.progress is None else self.drop_block_rate * self.progress
        return DropBlock(rate, name='drop_block')(x)

    def by_block(self, strides: Sequence[int]) -> tuple['Layers', ...]:
        """These layers for each residual block of a model, with the rates of that block; `strides`: of the blocks.

        The rate of DropPath grows linearly from 0 at the first block; DropBlock is on at the last two resolutions,
        which are a ResNet's last two stages.
        """
        last = max(1, len(strides) - 1)
        after = [sum(stride > 1 for stride in strides[i + 1:]) for i in range(len(strides))]
        return tuple(dataclasses.replace(
            self, drop_path_rate=self.drop_path_rate * i / last,
            drop_block_rate=self.drop_block_rate if strides_left < 2 else 0.0,
            deforms=strides_left < self.deformable_stages)
            for i, strides_left in enumerate(after))

    def by_stage(self, depths: Sequence[int]) -> list[tuple['Layers', ...]]:
        """`by_block`, stage by stage, for a model whose every stage but the first begins with a stride."""
        blocks = iter(self.by_block([2 if i == 0 else 1 for depth in depths for i in range(depth)]))
        return [tuple(itertools.islice(blocks, depth)) for depth in depths]

    def block(self, constructor: Callable[..., nn.Module]) -> Callable[..., nn.Module]:
        """The constructor of a block called as (x): itself, or with `remat` that of a rematerialised one.

        The block's name must be given: a module's default name, unlike its parameters, follows from its class.
        """
        if not self.remat:
            return constructor
        if isinstance(constructor, partial):
            return partial(self.block(constructor.func), *constructor.args, **constructor.keywords)
        return nn.remat(constructor)
