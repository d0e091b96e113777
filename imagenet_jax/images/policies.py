"""What a policy makes of a crop, by name: config.policy.name. A policy reads its own options and no others.

Called with (pixels, rng), each gives uint8 pixels of the same shape. A new one is a class here and a line in POLICIES.
Operations, magnitudes and odds are torchvision's.
"""

import dataclasses
from functools import partial

import cv2
import numpy as np

from imagenet_jax.errors import UserError, unknown
from imagenet_jax.images.autoaugment import SUB_POLICIES
from imagenet_jax.images.ops import OPERATIONS
from imagenet_jax.options import refuse_above


@dataclasses.dataclass(frozen=True)
class Range:
    """The magnitudes of one operation.

    Attributes:
      weakest, strongest: the ends.
      signed: whether the way from the weakest is turned round half of the time.
      axis: where not None, the ends are fractions of the image's side along it.
    """
    weakest: float
    strongest: float
    signed: bool = True
    axis: int | None = None

    def magnitude(self, share: float, shape: tuple[int, ...], rng: np.random.Generator) -> float:
        """At `share`, 0 to 1, of the way from the weakest to the strongest."""
        way = share * (self.strongest - self.weakest)
        if self.signed and rng.random() < 0.5:
            way = -way
        return (self.weakest + way) * (1 if self.axis is None else shape[self.axis])


def _space(shear: float, translate: tuple[Range, Range], degrees: float, enhance: float, bits: tuple[int, int],
           ) -> dict[str, Range | None]:
    """What a policy chooses from: operation -> its range, None where it has no magnitude."""
    slope, factor = Range(0, shear), Range(1, 1 + enhance)
    return {'shear_x': slope, 'shear_y': slope, 'translate_x': translate[0], 'translate_y': translate[1],
            'rotate': Range(0, degrees), 'brightness': factor, 'saturation': factor, 'contrast': factor,
            'sharpness': factor, 'posterize': Range(*bits, signed=False), 'solarize': Range(255, 0, signed=False),
            'auto_contrast': None, 'equalize': None}


def _fraction(most: float) -> tuple[Range, Range]:
    """To the right and down, of the image's width and height."""
    return Range(0, most, axis=1), Range(0, most, axis=0)


SEARCHED = _space(0.3, _fraction(150 / 331), 30, 0.9, (8, 4)) | {'invert': None}  # on images of 331 pixels
RANDOM = {'identity': None} | _space(0.3, _fraction(150 / 331), 30, 0.9, (8, 4))
TRIVIAL = {'identity': None} | _space(0.99, (Range(0, 32),) * 2, 135, 0.99, (8, 2))
MIXED = _space(0.3, _fraction(1 / 3), 30, 0.9, (4, 0))

_OPERATIONS = OPERATIONS | {'identity': lambda pixels, _: pixels}
_SMOOTH = _OPERATIONS | {name: partial(OPERATIONS[name], smooth=True) for name in ('shear_x', 'shear_y', 'rotate')}


def _applied(name, space, share, pixels, rng, operations=_OPERATIONS):
    magnitudes = space[name]
    return operations[name](pixels, magnitudes.magnitude(share, pixels.shape, rng) if magnitudes else 0)


def _any_of(space, rng):
    return tuple(space)[rng.integers(len(space))]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Unchanged:
    """No policy."""

    def __call__(self, pixels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        return pixels


@dataclasses.dataclass(frozen=True, kw_only=True)
class AutoAugment:
    """One of 25 sub-policies (arXiv 1805.09501), whose two operations each have a probability.

    Attributes:
      dataset: that they were searched on.
    """
    dataset: str = 'imagenet'

    def __post_init__(self):
        if self.dataset not in SUB_POLICIES:
            raise unknown('config.policy.dataset', self.dataset, SUB_POLICIES)

    def __call__(self, pixels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        policies = SUB_POLICIES[self.dataset]
        for name, probability, magnitude in policies[rng.integers(len(policies))]:
            if rng.random() < probability:
                pixels = _applied(name, SEARCHED, (magnitude or 0) / 9, pixels, rng)
        return pixels


@dataclasses.dataclass(frozen=True, kw_only=True)
class RandAugment:
    """`count` operations in turn, any of fourteen, all at one magnitude (arXiv 1909.13719).

    timm's rand-m9-mstd0.5 counts magnitudes to 10 and applies every second operation: nearest to it are 27, a deviation
    of 1.5 and a probability of 0.5. It also has invert and a solarizing sum and no identity; an enhancement's factor
    grows from 0.1 to 1.9, and more magnitude posterizes and solarizes less; grey corners, bilinear or bicubic.

    Attributes:
      count: of operations.
      magnitude: 0 to 30, the strongest.
      deviation: of a normal draw for each operation around the magnitude, which ends at 0 and 30; 0: none.
      probability: of each operation being applied.
    """
    count: int = 2
    magnitude: int = 9
    deviation: float = 0.0
    probability: float = 1.0

    def __post_init__(self):
        if self.count < 1:
            raise UserError(f'config.policy.count={self.count} must be positive')
        refuse_above(self, 'config.policy', count=100, deviation=30)
        if not 0 <= self.magnitude <= 30:
            raise UserError(f'config.policy.magnitude={self.magnitude} must be in 0..30')
        if self.deviation < 0:
            raise UserError(f'config.policy.deviation={self.deviation} must not be negative')
        if not 0 < self.probability <= 1:
            raise UserError(f'config.policy.probability={self.probability} must be in (0, 1]')

    def __call__(self, pixels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        for _ in range(self.count):
            if self.probability < 1 and rng.random() >= self.probability:
                continue
            magnitude = self.magnitude
            if self.deviation:
                magnitude = min(30.0, max(0.0, rng.normal(magnitude, self.deviation)))
            pixels = _applied(_any_of(RANDOM, rng), RANDOM, magnitude / 30, pixels, rng)
        return pixels


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrivialAugment:
    """One operation, any of fourteen, at any of 31 magnitudes of a wide range (TA Wide, arXiv 2103.10158)."""

    def __call__(self, pixels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        return _applied(_any_of(TRIVIAL, rng), TRIVIAL, rng.integers(31) / 30, pixels, rng)


@dataclasses.dataclass(frozen=True, kw_only=True)
class AugMix:
    """The image mixed with what chains of operations make of it (arXiv 1912.02781); interpolated bilinearly.

    Attributes:
      severity: 1 to 10, from how many of the 10 magnitudes, the weakest first, one is drawn.
      width: chains.
      depth: operations of each; -1: any of 1 to 3.
      alpha: of the Dirichlet that the chains' weights are drawn from, and of the Beta of the image's own.
    """
    severity: int = 3
    width: int = 3
    depth: int = -1
    alpha: float = 1.0

    def __post_init__(self):
        if not 1 <= self.severity <= 10:
            raise UserError(f'config.policy.severity={self.severity} must be in 1..10')
        if self.width < 1:
            raise UserError(f'config.policy.width={self.width} must be positive')
        if self.depth < 1 and self.depth != -1:
            raise UserError(f'config.policy.depth={self.depth} must be positive, or -1 for 1 to 3')
        if self.alpha <= 0:
            raise UserError(f'config.policy.alpha={self.alpha} must be positive')
        refuse_above(self, 'config.policy', width=100, depth=100, alpha=1000)

    def __call__(self, pixels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        total = rng.beta(self.alpha, self.alpha)  # of the weights so far: the image's own is the first
        weights = (1 - total) * rng.dirichlet([self.alpha] * self.width)
        mean = pixels.astype(np.float32)
        for weight in weights:
            chain = pixels
            for _ in range(self.depth if self.depth > 0 else rng.integers(1, 4)):
                chain = _applied(_any_of(MIXED, rng), MIXED, rng.integers(self.severity) / 9, chain, rng, _SMOOTH)
            total += weight
            cv2.accumulateWeighted(chain, mean, weight / total if total else 0)
        return cv2.convertScaleAbs(mean)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ThreeAugment:
    """One of three: grey, solarized, or blurred with a deviation of U[0.1, 2] pixels (DeiT III, arXiv 2204.07118)."""

    def __call__(self, pixels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        name = ('grey', 'solarize', 'blur')[rng.integers(3)]
        return OPERATIONS[name](pixels, rng.uniform(0.1, 2) if name == 'blur' else 128)


POLICIES = {'none': Unchanged, 'autoaugment': AutoAugment, 'randaugment': RandAugment,
            'trivialaugment': TrivialAugment, 'augmix': AugMix, 'three_augment': ThreeAugment}
