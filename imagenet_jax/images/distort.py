"""The random distortions of a training image, each an option of config.augment that is off until it is set."""

import dataclasses
import math

import numpy as np

from imagenet_jax.errors import UserError
from imagenet_jax.images.ops import OPERATIONS
from imagenet_jax.options import refuse_above

_JITTER = ('brightness', 'contrast', 'saturation', 'hue')


@dataclasses.dataclass(frozen=True, kw_only=True)
class Distort:
    """(pixels, rng) -> uint8 pixels of the same shape; what is set is done in this order.

    Attributes:
      rotation: U[-rotation, rotation] degrees, bilinear, with black corners.
      color_jitter: strength on brightness, contrast and saturation, which come in random order, each times
        U[1 - strength, 1 + strength]; as in torchvision it may be above 1, and factors then start at 0.
      hue: joins them: U[-hue, hue] of the colour circle.
      jitter_probability: of all four.
      hsv: S and V, in the HSV form of the colours, each times a U[low, high] of its own.
      lighting: deviation of the multiples of ImageNet's principal components that are added (AlexNet, NIPS 2012: 0.1).
      grey: probability.
      blur: probability of a Gaussian one, of a deviation of U[0.1, 2] pixels.
      solarize: probability, from level 128 on.
    """
    rotation: float = 0.0
    color_jitter: float = 0.0
    hue: float = 0.0
    jitter_probability: float = 1.0
    hsv: tuple[float, float] = (1.0, 1.0)
    lighting: float = 0.0
    grey: float = 0.0
    blur: float = 0.0
    solarize: float = 0.0

    def __post_init__(self):
        for name in ('color_jitter', 'lighting'):
            if not 0 <= getattr(self, name) < math.inf:
                raise UserError(f'config.augment.{name}={getattr(self, name)} must be finite and not negative')
        refuse_above(self, 'config.augment', color_jitter=100, lighting=100)
        for name in ('jitter_probability', 'grey', 'blur', 'solarize'):
            if not 0 <= getattr(self, name) <= 1:
                raise UserError(f'config.augment.{name}={getattr(self, name)} must be in 0..1')
        if not 0 <= self.hue <= 0.5:
            raise UserError(f'config.augment.hue={self.hue} must be in 0..0.5')
        if not 0 <= self.rotation <= 180:
            raise UserError(f'config.augment.rotation={self.rotation} must be in 0..180 degrees')
        if not 0 <= self.hsv[0] <= self.hsv[1] <= 100 or not self.hsv[1]:
            raise UserError(f'config.augment.hsv={self.hsv} must be (low, high), in 0..100, high above 0')
        if self.jitter_probability != 1 and not (self.color_jitter or self.hue):
            raise UserError(f'config.augment.jitter_probability={self.jitter_probability} is of '
                            'config.augment.color_jitter and hue, and neither is set')

    def __call__(self, pixels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        if self.rotation:
            pixels = OPERATIONS['rotate'](pixels, rng.uniform(-self.rotation, self.rotation), smooth=True)
        if (self.color_jitter or self.hue) and _happens(self.jitter_probability, rng):
            pixels = jitter(pixels, self.color_jitter, self.hue, rng)
        if self.hsv != (1, 1):
            pixels = OPERATIONS['saturation_value'](pixels, rng.uniform(*self.hsv, size=2))
        if self.lighting:
            pixels = OPERATIONS['lighting'](pixels, rng.normal(0, self.lighting, size=3))
        if _happens(self.grey, rng):
            pixels = OPERATIONS['grey'](pixels, 0)
        if _happens(self.blur, rng):
            pixels = OPERATIONS['blur'](pixels, rng.uniform(0.1, 2))
        if _happens(self.solarize, rng):
            pixels = OPERATIONS['solarize'](pixels, 128)
        return pixels


def _happens(probability: float, rng: np.random.Generator) -> bool:
    """Draws only where there is a choice: an option that is off moves no other's draws."""
    return probability == 1 or (probability > 0 and rng.random() < probability)


def jitter(pixels: np.ndarray, strength: float, hue: float, rng: np.random.Generator) -> np.ndarray:
    """What `Distort` says of color_jitter and hue, of which at least one is not 0."""
    kinds = _JITTER[0 if strength else 3:4 if hue else 3]
    for kind in rng.permutation(len(kinds)):
        low, high = (-hue, hue) if kinds[kind] == 'hue' else (max(0.0, 1 - strength), 1 + strength)
        pixels = OPERATIONS[kinds[kind]](pixels, rng.uniform(low, high))
    return pixels
