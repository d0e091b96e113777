"""The options that every model has, and those of the models made of residual blocks."""

import inspect

import flax.linen as nn
import jax.numpy as jnp

from imagenet_jax import runtime
from imagenet_jax.errors import UserError
from imagenet_jax.models.layers import ACTIVATING_NORMS, FLOAT32, PROGRESS, Layers, floating
from imagenet_jax.options import refuse_above


class Network(nn.Module):
    """A model: (N, H, W, 3) float images -> (N, num_classes) logits, at least float32.

    Called as `model.apply(variables, images, train=False, features=False)`; `features=True` answers
    (logits, {path of a stage: its map, (N, h, w, c) of `dtype`}). A family overrides a default by declaring it again.
    All fields are given by name.

    Attributes:
      num_classes: 0 answers the features that the classifier would see.
      dtype: of the computation, as a dtype or its name.
      param_dtype: of parameters, likewise.
      norm: one of `layers.NORMS`: 'batch' (statistics of the device's own images), 'sync' (of the global batch),
        'group', 'switchable', 'evonorm_b0' (which is the activation as well, where one follows a norm) or 'frozen'
        (statistics, scale and bias stay as they start; `finetune.frozen_norms` tells an optimizer).
      act: one of `layers.ACTIVATIONS`, the family's own by default.
      dropout: rate before the classifier, or before or after its hidden layers, as the family says.
    """
    num_classes: int = 1000
    dtype: jnp.dtype = FLOAT32
    param_dtype: jnp.dtype = FLOAT32
    norm: str = 'batch'
    act: str = 'relu'
    dropout: float = 0.0

    def __init_subclass__(cls, **kwargs):
        # By name alone: fields without a default may follow the ones above.
        super().__init_subclass__(kw_only=True, **kwargs)
        # What `inspect` tells of the class, and so what an option may be called: Flax's own two fields are none.
        signature = inspect.signature(cls.__init__)
        cls.__signature__ = signature.replace(parameters=[
            p for name, p in signature.parameters.items() if name not in ('self', 'parent', 'name')])

    def __post_init__(self):
        self.dtype, self.param_dtype = (floating(f'model.{option}', getattr(self, option))
                                        for option in ('dtype', 'param_dtype'))
        if self.num_classes < 0:
            raise UserError(f'model.num_classes={self.num_classes} must not be negative')
        refuse_above(self, 'model', num_classes=10**6)
        refuse_outside_unit('dropout', self.dropout)
        if self.dtype.itemsize == 2:
            runtime.guard_half_precision()
        self.layers(train=False)  # refuses names that it does not know
        if self.norm != 'batch' and not getattr(self, 'batch_norm', True):
            raise UserError(f'model.norm={self.norm}: this model has no norms')
        if self.norm in ACTIVATING_NORMS and self.act != type(self).act:
            raise UserError(f'model.act={self.act} cannot be with model.norm={self.norm}, which is an activation of '
                            'its own; leave out one of them')
        super().__post_init__()

    @nn.nowrap
    def layers(self, train: bool, **more) -> Layers:
        """What this model's blocks are made of; `more` are those of `Layers`' attributes that are no option here."""
        return Layers(train, self.dtype, self.param_dtype, self.norm, self.act, dropout_rate=self.dropout, **more)


class ResidualNetwork(Network):
    """A model of residual blocks, which are made of what `Layers.by_block`, or `by_stage`, answers for each.

    Attributes:
      remat: see `layers.Layers`.
      drop_path: probability that training drops the branch of the last block, for an image; it grows linearly from 0
        at the first. All blocks count, though in the MobileNets some have no shortcut, and so nothing to drop.
      drop_block: fraction of the pixels, in squares, that training drops at the last two resolutions, after the norm
        of the middle convolution of a block, or where a family's block says. It is multiplied by the variable
        `fraction` of the collection `layers.PROGRESS`, which the train step gives, where there is one.
    """
    remat: bool = False
    drop_path: float = 0.0
    drop_block: float = 0.0

    def __post_init__(self):
        refuse_outside_unit('drop_path', self.drop_path)
        refuse_outside_unit('drop_block', self.drop_block)
        super().__post_init__()

    @nn.nowrap
    def layers(self, train: bool, **more) -> Layers:
        if train and self.drop_block and self.has_variable(PROGRESS, 'fraction'):
            more['progress'] = self.get_variable(PROGRESS, 'fraction')
        return super().layers(train, remat=self.remat, drop_path_rate=self.drop_path, drop_block_rate=self.drop_block,
                              **more)


class NormedResidualNetwork(ResidualNetwork):
    """A model of residual blocks whose branches end in a norm.

    Attributes:
      zero_gamma: see `layers.Layers`.
    """
    zero_gamma: bool = False

    @nn.nowrap
    def layers(self, train: bool, **more) -> Layers:
        return super().layers(train, zero_gamma=self.zero_gamma, **more)


def refuse_outside_unit(option: str, value: float) -> None:
    """Raises UserError unless 0 <= value < 1."""
    if not 0 <= value < 1:
        raise UserError(f'model.{option}={value} must be in [0, 1)')


def refuse_no_width(option: str, value: float) -> None:
    """Raises UserError unless 0 < value <= 100."""
    if not 0 < value <= 100:
        raise UserError(f'model.{option}={value} must be above 0 and at most 100')


def refuse_beside_lip(**given: bool) -> None:
    """Raises UserError where an option that says how blocks stride is given: with `lip` none of them does."""
    for option in (option for option, is_given in given.items() if is_given):
        raise UserError(f'model.lip pools where blocks would stride, so that model.{option} has no meaning: unset one')
