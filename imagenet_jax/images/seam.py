"""Seam carving (Avidan and Shamir, SIGGRAPH 2007): an image made square without losing its edges."""

import dataclasses

import numpy as np
from PIL import Image

from imagenet_jax.errors import UserError
from imagenet_jax.images.decode import decode
from imagenet_jax.images.eval_view import FILTERS, EvalView
from imagenet_jax.images.limits import DecodeError

# Of the longer side to the shorter one: of more, hardly a pixel would stand where it stood, and each takes its time.
_LONGEST = 4


@dataclasses.dataclass(frozen=True)
class SeamCarved(EvalView):
    """An `EvalView` of the image with seams taken out of its longer side until it is square."""

    def __post_init__(self):
        super().__post_init__()
        _library()

    def __call__(self, image: bytes | np.ndarray) -> np.ndarray:
        shorter = max(self.scales, default=self.shorter)
        return super().__call__(square(decode(image), shorter, self.interpolation))


def square(pixels: np.ndarray, side: int, interpolation: str = 'bilinear') -> np.ndarray:
    """uint8 (H, W, 3) -> (side, side, 3): the shorter side is resized to `side`, and the longer one carved to it.

    Seams are those that add least energy (forward energy; Rubinstein, Shamir and Avidan, SIGGRAPH 2008).

    Raises:
      DecodeError: one side is more than four times as long as the other.
      UserError: seam-carving is not installed.
    """
    height, width = pixels.shape[:2]
    if max(height, width) > _LONGEST * min(height, width):
        raise DecodeError(f'{width} x {height} pixels are too long to be carved to a square: one side may be '
                          f'{_LONGEST} times the other')
    to = max(side, side * width // height), max(side, side * height // width)
    pixels = np.asarray(Image.fromarray(pixels).resize(to, FILTERS[interpolation]))
    return _library().resize(pixels, size=(side, side), energy_mode='forward')


def _library():
    try:
        import seam_carving
    except ImportError as error:
        raise UserError("seam carving needs seam-carving: pip install 'imagenet_jax[seam]'") from error
    return seam_carving
