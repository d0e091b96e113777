"""Small images and data sets for tests, made on the spot."""

import io
import json
import struct
import zlib
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image


def scene(height: int, width: int, seed: int = 0) -> np.ndarray:
    """uint8 (height, width, 3) with what photographs have: slopes, edges, texture and a little noise."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    planes = []
    for _ in range(3):
        slope = 128 + 60 * np.sin(y / height * rng.uniform(2, 6) + x / width * rng.uniform(2, 6))
        texture = 25 * np.sin(y * rng.uniform(.2, .9) + x * rng.uniform(.2, .9))
        disc = 50 * ((y - height * rng.random()) ** 2 + (x - width * rng.random()) ** 2 < (min(height, width) / 4) ** 2)
        planes.append(slope + texture + disc + rng.normal(0, 3, (height, width)))
    return np.stack(planes, -1).clip(0, 255).astype(np.uint8)


def encode(pixels: np.ndarray | Image.Image, format: str = 'JPEG', **options) -> bytes:
    """Encoded with Pillow, which takes the options."""
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def jpeg(seed: int = 0, height: int = 10, width: int = 12) -> bytes:
    """A small JPEG; other seeds give other pixels."""
    return encode(scene(height, width, seed))


def with_pillow(data: bytes) -> np.ndarray:
    """RGB pixels as Pillow decodes them, uint8 (height, width, 3)."""
    return np.asarray(Image.open(io.BytesIO(data)).convert('RGB'))


def difference(a: np.ndarray, b: np.ndarray) -> float:
    """Mean absolute difference of two images, in levels."""
    assert a.shape == b.shape and a.dtype == b.dtype == np.uint8
    return np.abs(a.astype(int) - b).mean()


def png_claiming(height: int, width: int) -> bytes:
    """A PNG of a few bytes whose header claims this size."""
    def chunk(kind, data):
        return struct.pack('>I', len(data)) + kind + data + struct.pack('>I', zlib.crc32(kind + data))
    header = struct.pack('>IIBBBBB', width, height, 8, 2, 0, 0, 0)
    return (b'\x89PNG\r\n\x1a\n' + chunk(b'IHDR', header) + chunk(b'IDAT', zlib.compress(bytes(100)))
            + chunk(b'IEND', b''))


def jpeg_claiming(height: int, width: int) -> bytes:
    """A small JPEG whose frame header claims this size."""
    data = bytearray(jpeg())
    frame = data.index(b'\xff\xc0')
    data[frame + 5:frame + 9] = struct.pack('>HH', height, width)
    return bytes(data)


def sampled_jpeg(height: int, width: int, factors: list[tuple[int, int]], seed: int = 0) -> bytes:
    """A JPEG of flat blocks whose channels have these sampling factors (across, down), which Pillow cannot write."""
    def segment(marker, content):
        return bytes([0xff, marker]) + struct.pack('>H', len(content) + 2) + content

    def number(value):  # its length in four bits, the number, and that no other coefficient follows
        length = abs(value).bit_length()
        return f'{length:04b}' + (f'{value + (value < 0) * (2**length - 1):0{length}b}' if length else '') + '0'

    rng, last, bits = np.random.default_rng(seed), [0] * len(factors), ''
    blocks = factors if len(factors) > 1 else [(1, 1)]  # one channel has one block at a time, whatever its factors
    across, down = map(max, zip(*blocks, strict=True))
    for _ in range(-(-height // (8 * down)) * -(-width // (8 * across))):
        for channel, (h, v) in enumerate(blocks):
            for value in rng.integers(-90, 90, h * v).tolist():
                bits, last[channel] = bits + number(value - last[channel]), value
    data = int(bits + '1' * (-len(bits) % 8), 2).to_bytes(-(-len(bits) // 8)).replace(b'\xff', b'\xff\0')
    channels = range(1, len(factors) + 1)
    frame = struct.pack('>BHHB', 8, height, width, len(factors)) + b''.join(
        bytes([i, 16 * h + v, 0]) for i, (h, v) in zip(channels, factors, strict=True))
    return (b'\xff\xd8' + segment(0xdb, bytes([0] + [8] * 64)) + segment(0xc0, frame)
            + segment(0xc4, bytes([0, 0, 0, 0, 12] + [0] * 12 + [*range(12)]))
            + segment(0xc4, bytes([16, 1] + [0] * 15 + [0]))
            + segment(0xda, bytes([len(factors), *(x for i in channels for x in (i, 0)), 0, 63, 0]))
            + data + b'\xff\xd9')


def flip_bit(data: bytes, at: int) -> bytes:
    """The bytes with one bit of the byte at `at` inverted."""
    return data[:at] + bytes([data[at] ^ 4]) + data[at + 1:]


def image_folder(root: Path, files: dict[str, bytes]) -> Path:
    """Writes files, named relative to root, and returns the root."""
    for name, data in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data)
    return root


def class_tree(root: Path, count: int = 11, split: str = 'train', classes: tuple[str, ...] = ('ant', 'bee', 'cat'),
               ) -> Path:
    """An ImageFolder tree of `count` different JPEGs, dealt to the classes in turn."""
    return image_folder(root, {f'{split}/{classes[i % len(classes)]}/{i:03d}.JPEG': jpeg(i) for i in range(count)})


def parquet_file(file: Path, images: list[bytes | None], labels, names: tuple[str, ...] | None = None, *,
                 image: str = 'image', label: str = 'label', **options) -> Path:
    """A Parquet file as on the Hugging Face hub.

    Args:
      file: where; folders are made.
      images: encoded bytes, None for a null.
      labels: a list of ints, or an Arrow array.
      names: of the classes, for the schema's metadata; None leaves the metadata out.
      image: the image column's name.
      label: the label column's name.
      **options: for pyarrow.parquet.write_table.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    labels = labels if isinstance(labels, pa.Array) else pa.array(labels, pa.int64())
    structs = pa.array([{'bytes': data, 'path': f'{i}.jpg'} for i, data in enumerate(images)],
                       pa.struct([('bytes', pa.binary()), ('path', pa.string())]))
    table = pa.table({image: structs, label: labels})
    if names is not None:
        features = {image: {'_type': 'Image'}, label: {'names': list(names), '_type': 'ClassLabel'}}
        table = table.replace_schema_metadata({'huggingface': json.dumps({'info': {'features': features}})})
    pq.write_table(table, file, **options)
    return file
