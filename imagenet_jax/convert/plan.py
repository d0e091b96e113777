"""What a conversion makes of what, and where it lies.

    OUT/.train.convert/plan.json          what is being made of what; other options are refused
    OUT/.train.convert/00003.json         a finished shard: its checksum, keys, labels, and what was left out
    OUT/train-00003-of-00016.array_record
    OUT/train.json                        the manifest; the folder above goes when it stands
"""

import dataclasses
import hashlib
import json
import os
import socket
from pathlib import Path

import numpy as np
import simplejpeg
from PIL import Image

from imagenet_jax.errors import UserError, unknown
from imagenet_jax.images import orientation
from imagenet_jax.images.decode import decode, image_size, stored_orientation
from imagenet_jax.images.eval_view import EvalView
from imagenet_jax.sources import Source, array_record
from imagenet_jax.sources.upright import as_stored


@dataclasses.dataclass(frozen=True)
class Encoding:
    """What is stored of an image. Without any size, it is what the source has, which is decoded as a check only.

    Attributes:
      resize_shorter: larger images are shrunk until the shorter side has so many pixels; 0: never.
      max_side: and until the longer side has no more than these; 0: any.
      quality: of the JPEGs that shrunk images become, 1..100.
      raw: instead of all that, uint8 pixels: shorter side to `raw`, then the centre square.
    """
    resize_shorter: int = 0
    max_side: int = 0
    quality: int = 90
    raw: int = 0

    def __post_init__(self):
        if min(self.resize_shorter, self.max_side, self.raw) < 0 or not 1 <= self.quality <= 100:
            raise UserError(f'sizes must not be negative, and quality must be in 1..100: {self}')
        if self.raw and (self.resize_shorter or self.max_side):
            raise UserError('--raw goes without --resize-shorter and --max-side')

    def __call__(self, image: bytes | np.ndarray) -> bytes | np.ndarray:
        """Encoded bytes, or uint8 pixels. Raises DecodeError."""
        if self.raw:
            return EvalView(self.raw, self.raw)(image)
        image = as_stored(image)  # whoever reads it may turn it
        pixels = decode(image)
        height, width = image_size(image)
        limits = (self.resize_shorter, min(height, width)), (self.max_side, max(height, width))
        scale = min([1.0, *(limit / side for limit, side in limits if limit)])
        if scale == 1:
            return image
        # The filter of evaluation: what is shrunk to eval.resize here is evaluated as if it were shrunk there.
        size = max(1, int(width * scale + 1e-6)), max(1, int(height * scale + 1e-6))
        pixels = np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.BILINEAR))
        shrunk = simplejpeg.encode_jpeg(pixels, quality=self.quality, colorsubsampling='420')
        turned = stored_orientation(image) if isinstance(image, bytes) else 1
        return shrunk if turned == 1 else shrunk[:2] + orientation.exif(turned) + shrunk[2:]


@dataclasses.dataclass(frozen=True)
class Plan:
    """One conversion.

    Attributes:
      source: what is read.
      origin: format, path, split and options that it was opened with, for the record.
      output: the folder written to.
      name: of the split there.
      encoding: what becomes of each image.
      shards: how many; 0: by the number of images.
      on_error: an image that cannot be decoded is left out ('skip') or ends the conversion ('raise').
      max_bad_fraction: of the images that may be left out.
    """
    source: Source
    origin: dict
    output: Path
    name: str
    encoding: Encoding = Encoding()
    shards: int = 0
    on_error: str = 'skip'
    max_bad_fraction: float = 0.1

    def __post_init__(self):
        if self.on_error not in ('skip', 'raise'):
            raise unknown('--on-error', self.on_error, ('skip', 'raise'))
        if not self.name or set(self.name) - set('abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-'):
            raise UserError(f'--name {self.name!r} must be of letters, digits, _ and -')

    @property
    def manifest(self) -> Path:
        """The file that says all of it is finished."""
        return self.output / f'{self.name}.json'

    @property
    def count(self) -> int:
        """Shards in all: by default of about 1250 images, but no more than a reader keeps open."""
        images = len(self.source)
        default = max(-(-images // 1250), min(16, -(-images // 32)))
        return min(self.shards or min(default, array_record.OPEN_SHARDS), images)

    @property
    def folder(self) -> Path:
        """What goes when the conversion is finished."""
        return self.output / f'.{self.name}.convert'

    def shard(self, number: int) -> Path:
        """A shard's file."""
        return self.output / f'{self.name}-{number:05d}-of-{self.count:05d}.array_record'

    def report(self, number: int) -> Path:
        """The file that says a shard is finished."""
        return self.folder / f'{number:05d}.json'

    def partial(self, name: str) -> Path:
        """Where this process writes what takes its name when it is whole: no other does, on any host."""
        return self.folder / f'{name}.{socket.gethostname()}.{os.getpid()}'

    def is_finished(self, number: int) -> bool:
        """Whether a shard stands."""
        report, shard = self.report(number), self.shard(number)
        if not (report.is_file() and shard.is_file()):
            return False
        try:
            return shard.stat().st_size == json.loads(report.read_text())['bytes']
        except (ValueError, KeyError, TypeError):  # a damaged report: the shard is made again
            return False

    def indices(self, number: int) -> range:
        """A shard's images."""
        images = len(self.source)
        return range(number * images // self.count, (number + 1) * images // self.count)

    def record(self) -> dict:
        """What decides every byte."""
        contents = hashlib.sha256(np.ascontiguousarray(self.source.labels))
        for i in range(len(self.source)):
            contents.update(os.fsencode(self.source.key(i)) + b'\0')
        origin = {name: value for name, value in self.origin.items() if name != 'path'}
        return {'source': origin, 'examples': len(self.source), 'class_names': list(self.source.class_names),
                'keys_and_labels': contents.hexdigest(), 'encoding': dataclasses.asdict(self.encoding),
                'shards': self.count}
