"""What is missing of an image, and was not noticed by what decodes it."""

import zlib

import numpy as np
import pytest
from fixtures_images import encode, scene
from PIL import Image

from imagenet_jax.images.decode import DecodeError, decode, image_size
from imagenet_jax.images.eval_view import EvalView

FORMATS = ('PNG', 'GIF', 'WEBP', 'JPEG2000', 'TIFF', 'BMP', 'PPM', 'JPEG')


def tiff(pixels: np.ndarray, compression: int, data: bytes, numbers: int = 1, bits: int = 8, white: int = 1) -> bytes:
    """Grey, of one strip, which stands after the directory."""
    height, width = pixels.shape
    tags = [(256, 4, width), (257, 4, height), (258, 3, bits), (259, 3, compression), (262, 3, white), (273, 4, 134),
            (277, 3, 1), (278, 4, height), (279, 4, len(data)), (339, 3, numbers)]
    entries = b''.join(tag.to_bytes(2, 'little') + kind.to_bytes(2, 'little') + (1).to_bytes(4, 'little')
                       + value.to_bytes(4, 'little') for tag, kind, value in tags)
    return b'II*\0\x08\0\0\0' + len(tags).to_bytes(2, 'little') + entries + bytes(4) + data


@pytest.mark.parametrize('format', FORMATS)
@pytest.mark.parametrize('share', [0.5, 0.97])
def test_a_cut_file_is_bad(format, share):
    data = encode(scene(60, 70), format)
    for read in (decode, EvalView(8, 8)):
        with pytest.raises(DecodeError):
            read(data[:int(len(data) * share)])


@pytest.mark.parametrize('format', FORMATS)
def test_zeros_at_the_end_are_bad(format):
    data = encode(scene(60, 70), format)
    for share in (0.4, 0.71):
        cut = data[:int(len(data) * share)]
        with pytest.raises(DecodeError):
            decode(cut + bytes(len(data) - len(cut)))


def test_zeros_at_the_end_of_a_compressed_tiff_are_bad():
    pixels = scene(60, 70)[..., 0]
    data = zlib.compress(pixels.tobytes())
    np.testing.assert_array_equal(decode(tiff(pixels, 8, data))[..., 0], pixels)
    stored = zlib.compress(pixels.tobytes(), 0)  # whose last rows might as well be black
    with pytest.raises(DecodeError, match='zeros stand there'):
        decode(tiff(pixels, 8, stored[:3000] + bytes(len(stored) - 3000)))


@pytest.mark.parametrize('place', [20, 200, -30, -5])
def test_a_changed_byte_of_a_png_is_noticed(place):
    data = bytearray(encode(scene(60, 70), 'PNG'))
    data[place] ^= 4
    with pytest.raises(DecodeError):
        decode(bytes(data))


@pytest.mark.parametrize('format', ['TIFF', 'BMP', 'PPM', 'WEBP', 'PNG', 'GIF'])
def test_black_parts_are_no_damage(format):
    band, disc, black = scene(60, 70), scene(60, 70), np.zeros((300, 300, 3), np.uint8)
    band[40:] = band[:10] = 0
    disc[np.hypot(*(np.mgrid[:60, :70] - 30)) > 20] = 0  # a stroke on a black ground, such as digits
    for pixels in (band, disc, black):
        assert decode(encode(pixels, format)).shape == pixels.shape


def test_grey_of_other_depths_keeps_its_range():
    ramp = np.linspace(0, 65535, 70).astype('<u2')[None].repeat(2, 0)
    data, upper = ramp.tobytes(), (ramp >> 8).astype(np.uint8)
    np.testing.assert_array_equal(decode(tiff(ramp, 1, data, bits=16))[..., 0], upper)
    np.testing.assert_array_equal(decode(tiff(ramp, 1, data, bits=16, white=0))[..., 0], 255 - upper)
    bits = ''.join(f'{v >> 4:012b}' for v in ramp.ravel().tolist())
    twelve = int(bits, 2).to_bytes(len(bits) // 8)
    np.testing.assert_array_equal(decode(tiff(ramp, 1, twelve, bits=12))[..., 0], upper)


@pytest.mark.parametrize(('bits', 'numbers', 'reason'), [
    (8, 2, 'signed'), (16, 2, 'signed'), (32, 1, '32 bits'), (32, 3, 'floats'), (64, 3, 'floats'), (16, 3, 'floats')])
def test_tiffs_of_no_known_scale_are_refused_as_what_they_are(bits, numbers, reason):
    pixels = np.ones((4, 6))
    with pytest.raises(DecodeError, match=reason):
        decode(tiff(pixels, 1, bytes(range(24)) * (bits // 8), numbers, bits))


def test_a_pfm_is_refused_as_floats():
    with pytest.raises(DecodeError, match='floats'):
        decode(b'Pf\n6 4\n-1.0\n' + np.ones(24, '<f4').tobytes())


def test_palettes_with_alpha_and_one_bit():
    image = Image.fromarray(scene(6, 7)).quantize(8)
    image.info['transparency'] = bytes(range(8))
    np.testing.assert_array_equal(decode(encode(image, 'PNG')), np.asarray(image.convert('RGB')))
    bits = Image.fromarray(scene(6, 7)).convert('1')
    for format in ('PNG', 'TIFF', 'PPM', 'BMP'):
        np.testing.assert_array_equal(decode(encode(bits, format)), np.asarray(bits.convert('RGB')))


@pytest.mark.parametrize('marker', [0xc9, 0xca, 0xcb])
def test_the_arithmetic_code_is_refused_by_name(marker):
    """A part of it that is missing would be taken for zeros that it left out."""
    data = encode(scene(24, 24))
    at = data.index(b'\xff\xc0') + 1
    for read in (decode, image_size, EvalView(8, 8)):
        with pytest.raises(DecodeError, match='a JPEG in the arithmetic code'):
            read(data[:at] + bytes([marker]) + data[at + 1:])
