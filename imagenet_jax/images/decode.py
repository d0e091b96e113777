"""One image: encoded bytes -> uint8 RGB pixels -> crop of the size the model sees.

Everything here runs in data workers, on the CPU, and returns uint8; normalising is the device's work.
"""

import dataclasses
import functools
import io
import math

import cv2
import numpy as np
import simplejpeg
from PIL import Image, UnidentifiedImageError

from imagenet_jax.errors import UserError, unknown
from imagenet_jax.images import jpeg

# Parallelism is over images; OpenCV's own threads would only fight the workers for the same cores.
cv2.setNumThreads(0)

# A header may claim any size, and memory is taken before the first pixel is read. This is Pillow's own limit.
MAX_PIXELS = 89_478_485

# What Pillow may read. Not all it could: it hands EPS to another program.
FORMATS = ('JPEG', 'PNG', 'GIF', 'BMP', 'PPM', 'TIFF', 'WEBP', 'JPEG2000')


class DecodeError(Exception):
    """The image cannot be read; the message says why."""


def decode(image: bytes | np.ndarray, shrink: int = 1, rows: int | None = None) -> np.ndarray:
    """Decodes one image in any of FORMATS; JPEG goes the fast way.

    Args:
      image: encoded bytes, or pixels (uint8, HWC with 1 or 3 channels) that pass through.
      shrink: 1, 2, 4 or 8: a JPEG may be decoded at 1/shrink of its size, at no cost.
      rows: how many from the top are needed, counted at full size: a JPEG's others may be left out. Default: all.

    Returns:
      uint8 RGB pixels of shape (height, width, 3). 16-bit grey keeps its upper byte, alpha is dropped, palettes and
      CMYK are converted, EXIF rotation is ignored.

    Raises:
      DecodeError: truncated, unrecognised, or more than MAX_PIXELS pixels.
    """
    if isinstance(image, np.ndarray):
        return np.repeat(image, 3, axis=2) if image.shape[2] == 1 else image
    try:
        pixels = _decode_jpeg(image, shrink, rows) if image[:2] == b'\xff\xd8' else None
        return _decode_with_pillow(image) if pixels is None else pixels
    except DecodeError:
        raise
    except UnidentifiedImageError as error:
        raise DecodeError(f'{len(image)} bytes of no known image format') from error
    except (KeyError, IndexError) as error:  # what the decoders make of a header without its end
        raise DecodeError(f'{len(image)} bytes whose header is cut short or damaged') from error
    except Exception as error:  # decoders raise of every kind on hostile bytes: ValueError, OSError, SyntaxError, ...
        raise DecodeError(f'{type(error).__name__}: {error}') from error


def image_size(image: bytes | np.ndarray) -> tuple[int, int]:
    """(height, width) from the header alone. Raises DecodeError."""
    if isinstance(image, np.ndarray):
        return image.shape[:2]
    try:
        if image[:2] == b'\xff\xd8':
            return simplejpeg.decode_jpeg_header(image, strict=False)[:2]
        with Image.open(io.BytesIO(image), formats=FORMATS) as opened:
            return opened.height, opened.width
    except Exception as error:
        raise DecodeError(f'{type(error).__name__}: {error}') from error


def _refuse_bomb(height, width):
    if height * width > MAX_PIXELS:
        raise DecodeError(f'claims {width} x {height} pixels, more than the limit of {MAX_PIXELS}')


def _decode_jpeg(image: bytes, shrink: int, rows: int | None) -> np.ndarray | None:
    """None where Pillow has to decode: CMYK, and stray bytes between markers."""
    height, width, colorspace, _ = simplejpeg.decode_jpeg_header(image, strict=False)
    _refuse_bomb(height, width)
    if colorspace in ('CMYK', 'YCCK'):
        return None
    # Decoding is most of an image's cost, and as a stream cannot be entered in the middle, but it can be left early.
    # Some rows more, since chroma is interpolated between neighbours.
    if rows is not None and rows + 4 * shrink < height and (cut := _claim_rows(image, rows + 4 * shrink)):
        image, height = cut, rows + 4 * shrink
    pixels = np.empty((-(-height // shrink), -(-width // shrink), 3), np.uint8)
    try:
        return simplejpeg.decode_jpeg(image, 'RGB', min_height=pixels.shape[0], min_width=pixels.shape[1],
                                      min_factor=shrink, buffer=pixels)
    except ValueError as error:
        # Strict decoding, which alone notices a missing end, takes every warning for an error, and stops there. Stray
        # bytes ahead of the end come after the last pixel; elsewhere they cost none, but it has yet to be decoded.
        if 'extraneous bytes before marker 0xd9' in str(error):
            return pixels
        if 'extraneous bytes' in str(error):
            return None
        raise


def _claim_rows(image: bytes, rows: int) -> bytearray | None:
    """The same JPEG with only so many rows by its header; None unless it is sequential, without restart markers."""
    at, frame = 2, 0
    while image[at] == 0xff and image[at + 1] != 0xda:  # up to the start of the scan
        marker = image[at + 1]
        if marker in (0xc0, 0xc1):
            frame = at
        elif (0xc0 <= marker <= 0xcf and marker != 0xc4) or marker == 0xdd:
            return None
        at += 2 + int.from_bytes(image[at + 2:at + 4])
    if not frame:
        return None
    cut = bytearray(image)
    cut[frame + 5:frame + 7] = rows.to_bytes(2)
    return cut


def _decode_with_pillow(image: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(image), formats=FORMATS) as opened:
        _refuse_bomb(opened.height, opened.width)
        if opened.mode.startswith('I'):  # 16-bit grey, which Pillow's own conversion would clip to white
            grey = (np.asarray(opened).astype(np.int64) >> 8).clip(0, 255).astype(np.uint8)
            return np.repeat(grey[..., None], 3, axis=2)
        return np.asarray(opened.convert('RGB'))


def resize(pixels: np.ndarray, height: int, width: int) -> np.ndarray:
    """Training's resize: bilinear, antialiased as Pillow's is, to within a level on the mean."""
    # Not OpenCV's own integers, but a fourth faster and nearer to the true value; OpenCV keeps the setting by thread.
    cv2.ipp.setUseIPP_NotExact(True)
    down, across = _antialiasing(pixels.shape[0], height), _antialiasing(pixels.shape[1], width)
    if len(down) > 1 or len(across) > 1:
        pixels = cv2.sepFilter2D(pixels, -1, across, down, borderType=cv2.BORDER_REPLICATE)
    return cv2.resize(pixels, (width, height), interpolation=cv2.INTER_LINEAR)


@functools.lru_cache(4096)
def _antialiasing(size: int, to: int) -> np.ndarray:
    """What to filter one axis with before bilinear interpolation at a lower rate.

    Interpolation is a triangle of half-width 1, and antialiasing takes one of half-width s = size / to. With the
    triangle sampled at whole pixels between them they have the same variance: (s**2 - 1) / 6 + 1 / 6 = s**2 / 6; where
    s is not whole, with the mean of the two nearest that has it.
    """
    shrink = size / to
    if shrink < 1.15:  # such as 256 to 224, where it would cost a fourth more and change a tenth of a level
        return np.ones(1, np.float32)
    n = int(shrink)
    share = (shrink**2 - n**2) / (2 * n + 1)  # of the wider triangle
    narrow, wide = (np.maximum(0, m - np.abs(np.arange(-n, n + 1))) / m**2 for m in (n, n + 1))
    return ((1 - share) * narrow + share * wide).astype(np.float32)


def crop_box(height: int, width: int, scale, ratio, rng: np.random.Generator) -> tuple[int, int, int, int]:
    """(top, left, height, width) of a random-resized crop (arXiv 1409.4842), sampled as torchvision does.

    Area uniform in `scale` of the image's, log of width/height uniform in `ratio`; after ten misses the largest centre
    crop within `ratio`.
    """
    low, high = math.log(ratio[0]), math.log(ratio[1])
    for _ in range(10):
        area, aspect, down, across = rng.random(4).tolist()  # Python's numbers: numpy's scalars are slow
        area = height * width * (scale[0] + area * (scale[1] - scale[0]))
        aspect = math.exp(low + aspect * (high - low))
        w, h = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < w <= width and 0 < h <= height:
            return int(down * (height - h + 1)), int(across * (width - w + 1)), h, w
    w = min(width, max(1, round(height * ratio[1])))
    h = min(height, max(1, round(width / ratio[0])))
    return (height - h) // 2, (width - w) // 2, h, w


def random_resized_crop(image, size, scale, ratio, rng) -> np.ndarray:
    """Random crop of the image, resized to (size, size, 3); of a JPEG no more is decoded than the crop needs."""
    height, width = image_size(image)
    _refuse_bomb(height, width)
    top, left, h, w = crop_box(height, width, scale, ratio, rng)
    shrink = max(n for n in (1, 2, 4, 8) if n == 1 or n * size <= min(h, w))
    return resize(_decode_box(image, width, (top, left, top + h, left + w), shrink), size, size)


def _decode_box(image, width: int, box: tuple[int, int, int, int], shrink: int) -> np.ndarray:
    """Pixels of (top, left, bottom, right) of an image of that width, a JPEG's at 1/shrink of their size."""
    top, left, bottom, right = (round(edge / shrink) for edge in box)
    if isinstance(image, bytes) and image[:2] == b'\xff\xd8':
        pixels = jpeg.decode_crop(image, shrink, top, left, bottom - top, right - left)
        if pixels is not None:
            return pixels
    pixels = decode(image, shrink, box[2])
    if pixels.shape[1] == width:  # decoded in full
        top, left, bottom, right = box
    return pixels[top:bottom, left:right]


def pad_crop(image, size, pad, rng) -> np.ndarray:
    """CIFAR's crop: resize to `size` where it differs, zeros around, then a random window."""
    pixels = np.pad(resize(decode(image), size, size), ((pad, pad), (pad, pad), (0, 0)))
    top, left = rng.integers(2 * pad + 1, size=2)
    return pixels[top:top + size, left:left + size]


def color_jitter(pixels: np.ndarray, strength: float, rng: np.random.Generator) -> np.ndarray:
    """Brightness, contrast and saturation, in random order, each times U[1 - strength, 1 + strength]."""
    for kind in rng.permutation(3):
        factor = rng.uniform(max(0.0, 1 - strength), 1 + strength)
        if kind == 2:
            grey = cv2.cvtColor(cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
            pixels = cv2.addWeighted(pixels, factor, grey, 1 - factor, 0)
        else:
            anchor = 0.0 if kind == 0 else np.rint(cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY).mean())
            table = np.rint(anchor + factor * (np.arange(256) - anchor)).clip(0, 255).astype(np.uint8)
            pixels = cv2.LUT(pixels, table)
    return pixels


@dataclasses.dataclass(frozen=True)
class TrainTransform:
    """Augmentation of one training image to uint8 (size, size, 3).

    Attributes:
      size: side in pixels.
      crop: 'random_resized', 'pad' (CIFAR's) or 'none' (resize alone).
      scale: area of a random-resized crop, as a fraction of the image's.
      ratio: width over height of a random-resized crop.
      pad: pixels of zeros on each side, for 'pad'.
      flip: mirror left and right with probability one half.
      color_jitter: strength, 0 for none.
    """
    size: int
    crop: str = 'random_resized'
    scale: tuple[float, float] = (0.08, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    pad: int = 4
    flip: bool = True
    color_jitter: float = 0.0

    def __post_init__(self):
        if self.crop not in ('random_resized', 'pad', 'none'):
            raise unknown('augment.crop', self.crop, ('random_resized', 'pad', 'none'))
        if not (0 < self.scale[0] <= self.scale[1] <= 1 and 0 < self.ratio[0] <= self.ratio[1]):
            raise UserError(f'augment.scale {self.scale} and augment.ratio {self.ratio} must be (low, high), '
                            'scale in (0, 1]')

    def __call__(self, image: bytes | np.ndarray, rng: np.random.Generator) -> np.ndarray:
        if self.crop == 'random_resized':
            pixels = random_resized_crop(image, self.size, self.scale, self.ratio, rng)
        elif self.crop == 'pad':
            pixels = pad_crop(image, self.size, self.pad, rng)
        else:
            pixels = resize(decode(image), self.size, self.size)
        if self.flip and rng.random() < 0.5:
            pixels = cv2.flip(pixels, 1)
        if self.color_jitter:
            pixels = color_jitter(pixels, self.color_jitter, rng)
        return pixels


@dataclasses.dataclass(frozen=True)
class EvalTransform:
    """Evaluation's view of one image: shorter side to `resize`, then the centre crop, uint8 (size, size, 3).

    Decoded in full and filtered antialiased, as Pillow and torchvision do.
    """
    size: int
    resize: int

    def __post_init__(self):
        if not 0 < self.size <= self.resize:
            raise UserError(f'eval.size {self.size} must be at most eval.resize {self.resize}')

    def __call__(self, image: bytes | np.ndarray) -> np.ndarray:
        pixels = decode(image)
        height, width = pixels.shape[:2]
        short = min(height, width)
        to_height, to_width = int(self.resize * height / short), int(self.resize * width / short)
        top, left = round((to_height - self.size) / 2), round((to_width - self.size) / 2)
        if (to_height, to_width) == (height, width):
            return pixels[top:top + self.size, left:left + self.size]
        # One filter pass that computes the crop alone: the box is the crop in the image's own coordinates.
        down, across = height / to_height, width / to_width
        box = (left * across, top * down, (left + self.size) * across, (top + self.size) * down)
        return np.asarray(Image.fromarray(pixels).resize((self.size, self.size), Image.Resampling.BILINEAR, box=box))
