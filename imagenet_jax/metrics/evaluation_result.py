"""What an evaluation found."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

import numpy as np

from imagenet_jax.metrics.calibration import Calibration


class Result(NamedTuple):
    """Of one pass over a split.

    Attributes:
      scalars: name -> number, of the whole split.
      per_class: name -> float64 (K,), NaN where a class has no image; {} where the task measures none.
      confusion: int (K, K), rows the label, columns the prediction; None where an image may have several classes.
      calibration: None there too.
      images: of each image, in no order; {} where nobody asked:
        index: int32 (N,), in the source; -1 is padding, of which the rest means nothing.
        classes: int32 (N, top), likeliest first; -1 where there is no answer: unreadable, or not finite.
        probabilities: float32 (N, top), of these.
        rank: int32 (N,), of the image's class among all, 1 the likeliest, equals by number; of several classes the
          one that is placed best; 0 where there is no answer or no class.
        readable: bool (N,).
    """
    scalars: dict[str, float]
    per_class: dict[str, np.ndarray]
    confusion: np.ndarray | None = None
    calibration: Calibration | None = None
    images: Mapping[str, np.ndarray] = MappingProxyType({})
