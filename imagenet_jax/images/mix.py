"""Each image of a batch mixed with its partner, of the same place in the batch reversed, and its targets likewise."""

import dataclasses
from typing import ClassVar, NamedTuple

import jax
import jax.numpy as jnp

from imagenet_jax.errors import UserError
from imagenet_jax.images.boxes import around_any_pixel
from imagenet_jax.images.ending import Ending
from imagenet_jax.options import refuse_above


class Mixing(NamedTuple):
    """How one batch is mixed: what an image keeps of its own, the rest being its partner's.

    Attributes:
      share: float32 in 0..1, of targets.
      pixels: float32 in 0..1, of pixels: the same, or (H, W, 1), 0 where the partner is pasted.
    """
    share: jax.Array
    pixels: jax.Array

    def images(self, own: jax.Array, partners: jax.Array) -> jax.Array:
        """float (N, H, W, 3) of either -> the same."""
        return _mixed(self.pixels, own, partners)

    def targets(self, own: jax.Array, partners: jax.Array) -> jax.Array:
        """(N, K) of either -> the same. NaN, of a class that is not counted, stays NaN in a mixture, but what has no
        part in it brings none."""
        mixture = jnp.where(self.share < 1, _mixed(self.share, own, partners), own)
        return jnp.where(self.share > 0, mixture, partners)


def _mixed(share, own, partners):
    return share * own + (1 - share) * partners


@dataclasses.dataclass(frozen=True)
class Mix(Ending):
    """mixup or CutMix, one share or one box for the batch; where both are on, each batch takes one of the two.

    mixup (arXiv 1710.09412): images and targets times a share, and those of their partners times the rest. CutMix
    (arXiv 1905.04899): a box of the partner is pasted over each image, its area, before it is clipped at the edges, 1
    minus a share; targets are weighed by the area that was pasted.

    Attributes:
      mixup: alpha of the Beta(alpha, alpha) that mixup's share is drawn from; 0: no mixup.
      cutmix: alpha of CutMix's share, 1 in the paper; 0: no CutMix.
      probability: of a batch being mixed at all.
      switch: where both are on, the probability of CutMix for a batch that is mixed.
    """
    mixup: float = 0.0
    cutmix: float = 0.0
    probability: float = 1.0
    switch: float = 0.5
    where: ClassVar[str] = 'config.mix'

    def __post_init__(self):
        super().__post_init__()
        for name in ('mixup', 'cutmix'):
            if getattr(self, name) < 0:
                raise UserError(f'config.mix.{name}={getattr(self, name)} must not be negative')
        refuse_above(self, 'config.mix', mixup=1000, cutmix=1000)
        if not 0 < self.probability <= 1:
            raise UserError(f'config.mix.probability={self.probability} must be in (0, 1]')
        if not 0 < self.switch < 1:
            raise UserError(f'config.mix.switch={self.switch} must be in (0, 1)')
        for name, default in (('probability', 1), ('off_epochs', 0)):
            if getattr(self, name) != default and not self:
                raise UserError(f'config.mix.{name}={getattr(self, name)} is read where config.mix.mixup or cutmix is '
                                'not 0')
        if self.switch != 0.5 and not (self.mixup and self.cutmix):
            raise UserError(f'config.mix.switch={self.switch} is read where neither config.mix.mixup nor cutmix is 0')

    def __bool__(self) -> bool:
        return self.mixup > 0 or self.cutmix > 0

    def share(self, key: jax.Array) -> jax.Array:
        """mixup's: float32 in 0..1."""
        return jax.random.beta(key, self.mixup, self.mixup)

    def draw(self, key: jax.Array, choices: jax.Array, step: jax.Array, size: tuple[int, int]) -> Mixing:
        """How the batch of a step is mixed.

        Args:
          key: of mixup's share, which is the same whatever else is on.
          choices: key of all else: whether, which of the two, the box.
          step: of the run.
          size: height and width of the images.
        """
        whether, which, box = jax.random.split(choices, 3)
        mixing = Mixing(*[self.share(key)] * 2) if self.mixup else None
        if self.cutmix:
            pasted = self._paste(box, size)
            cut = jax.random.uniform(which) < self.switch
            mixing = _either(cut, pasted, mixing) if mixing else pasted
        if self.probability < 1 or self.off_epochs:
            mixed = (jax.random.uniform(whether) < self.probability) & self.on(step)
            mixing = _either(mixed, mixing, Mixing(1.0, 1.0))
        return mixing

    def _paste(self, key, size) -> Mixing:
        of_share, of_place = jax.random.split(key)
        side = jnp.sqrt(1 - jax.random.beta(of_share, self.cutmix, self.cutmix))
        pasted = around_any_pixel(of_place, (side * jnp.array(size)).astype(jnp.int32), size)
        return Mixing(1 - pasted.mean(dtype=jnp.float32), (~pasted).astype(jnp.float32))


def _either(first: jax.Array, one: Mixing, other: Mixing) -> Mixing:
    return Mixing(*(jnp.where(first, *pair) for pair in zip(one, other, strict=True)))
