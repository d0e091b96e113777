"""Encoded bytes -> pixels."""

import io
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from fixtures_images import difference, encode, flip_bit, jpeg, jpeg_claiming, png_claiming, scene, with_pillow
from PIL import Image, PngImagePlugin

from imagenet_jax.images.crops import RandomResized
from imagenet_jax.images.decode import DecodeError, decode, decode_box, image_size
from imagenet_jax.images.eval_view import EvalView
from imagenet_jax.images.pillow import FORMATS
from imagenet_jax.images.train_view import TrainView
from imagenet_jax.sources.listing import EXTENSIONS

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize('options', [{'subsampling': 0}, {'subsampling': 2}, {'progressive': True}, {'quality': 30}])
@pytest.mark.parametrize('size', [(16, 16), (37, 53)])
def test_full_decode_of_a_jpeg_is_pillows_bit_for_bit(size, options):
    data = encode(scene(*size), **options)
    np.testing.assert_array_equal(decode(data), with_pillow(data))


def test_grey_jpeg_becomes_three_equal_channels():
    data = encode(scene(9, 13)[..., 0])
    pixels = decode(data)
    assert pixels.shape == (9, 13, 3)
    np.testing.assert_array_equal(pixels, with_pillow(data))


def test_cmyk_jpeg_is_converted():
    original = scene(16, 16)
    data = encode(Image.fromarray(original).convert('CMYK'), quality=95)
    assert Image.open(io.BytesIO(data)).mode == 'CMYK'
    assert difference(decode(data), original) < 15  # inverted inks would be off by a hundred


def test_16_bit_grey_png_keeps_its_upper_byte():
    grey = np.arange(0, 65536, 997, dtype=np.uint16)[:60].reshape(6, 10)
    pixels = decode(encode(grey, 'PNG'))
    np.testing.assert_array_equal(pixels, np.repeat((grey >> 8).astype(np.uint8)[..., None], 3, axis=2))


def test_16_bit_grey_pgm_and_tiff_keep_it_too():
    grey = np.arange(0, 65536, 997, dtype=np.uint16)[:60].reshape(6, 10)
    expected = np.repeat((grey >> 8).astype(np.uint8)[..., None], 3, axis=2)
    np.testing.assert_array_equal(decode(encode(grey, 'TIFF')), expected)
    np.testing.assert_array_equal(decode(b'P5 10 6 65535\n' + grey.astype('>u2').tobytes()), expected)


@pytest.mark.parametrize(('pixels', 'kind'), [
    (np.linspace(0, 1, 60, dtype=np.float32), 'floats'), (np.linspace(0, 255, 60, dtype=np.float32), 'floats'),
    (np.arange(60, dtype=np.int32), 'signed, or of 32 bits'),
    (np.arange(60, dtype=np.int32) << 24, 'signed, or of 32 bits')])
def test_pixels_of_no_known_scale_are_refused(pixels, kind):
    with pytest.raises(DecodeError, match=f'pixels are {kind}.*convert them to 8 or 16 bits'):
        decode(encode(pixels.reshape(6, 10), 'TIFF'))


@pytest.mark.parametrize('notes', ['zTXt', 'iTXt', 'tEXt', 'iCCP'])
def test_notes_of_any_size_cost_no_png(notes):
    pixels, info = scene(9, 7), PngImagePlugin.PngInfo()
    if notes == 'iTXt':
        info.add_itxt('note', 'x' * 2_000_000, zip=True)
    elif notes != 'iCCP':
        info.add_text('note', 'x' * 2_000_000, zip=notes == 'zTXt')
    profile = {'icc_profile': bytes(2_000_000)} if notes == 'iCCP' else {}
    data = encode(Image.fromarray(pixels), 'PNG', pnginfo=info, **profile)
    assert notes.encode() in data
    np.testing.assert_array_equal(decode(data), pixels)
    assert image_size(data) == (9, 7)
    for cut in (40, len(data) - 60):
        with pytest.raises(DecodeError):
            decode(data[:cut])


def test_endings_are_pillows():
    """Those of what may be read, and some more of JPEG; an MPO is one too. AVIF's may be there without a reader."""
    known = {ending for ending, of in Image.registered_extensions().items() if of in (*FORMATS, 'MPO')}
    assert set(EXTENSIONS) == known | {'.avif', '.avifs', '.jif', '.jfi', '.pjpeg', '.pjp'}


@pytest.mark.parametrize('mode', ['RGBA', 'LA'])
def test_alpha_is_dropped(mode):
    image = Image.fromarray(scene(6, 7)).convert(mode)
    image.putalpha(Image.fromarray(np.arange(42, dtype=np.uint8).reshape(6, 7)))
    expected = np.asarray(image)[..., :3] if mode == 'RGBA' else np.repeat(np.asarray(image)[..., :1], 3, axis=2)
    np.testing.assert_array_equal(decode(encode(image, 'PNG')), expected)


@pytest.mark.parametrize('format', ['PNG', 'GIF'])
def test_palette_is_looked_up(format):
    image = Image.fromarray(scene(6, 7)).quantize(8)
    np.testing.assert_array_equal(decode(encode(image, format)), np.asarray(image.convert('RGB')))


@pytest.mark.parametrize('format', ['PNG', 'BMP', 'PPM', 'TIFF'])
def test_other_formats_keep_every_pixel(format):
    np.testing.assert_array_equal(decode(encode(scene(6, 7), format)), scene(6, 7))


def test_exif_rotation_is_ignored_and_broken_exif_does_no_harm():
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees
    plain, turned = encode(scene(9, 13)), encode(scene(9, 13), exif=exif)
    broken = turned.replace(b'Exif\0\0', b'Exif\0\0\xff\xff\xff')
    assert broken != turned != plain
    for data in (turned, broken):
        np.testing.assert_array_equal(decode(data), decode(plain))
        assert image_size(data) == (9, 13)


def test_stray_bytes_between_markers_cost_nothing():
    data = jpeg()
    for marker in (b'\xff\xc0', b'\xff\xd9'):
        at = data.rindex(marker)
        stray = data[:at] + bytes(5) + data[at:]
        np.testing.assert_array_equal(decode(stray), decode(data))
        assert RandomResized()(stray, 4, np.random.default_rng(0)).shape == (4, 4, 3)


def test_pixels_pass_through():
    pixels = scene(5, 6)
    assert decode(pixels) is pixels
    np.testing.assert_array_equal(decode(pixels[..., :1]), np.repeat(pixels[..., :1], 3, axis=2))
    assert image_size(pixels) == (5, 6)


@pytest.mark.parametrize('data', [b'', b'\xff\xd8', b'\x89PNG\r\n\x1a\n', b'<html>404</html>' * 9, jpeg()[:-2],
                                  jpeg(0, 40, 40)[:-100], encode(scene(40, 40), 'PNG')[:-100],
                                  png_claiming(0, 5)],
                         ids=['empty', 'soi', 'png', 'html', 'jpeg-end', 'jpeg-half', 'png-half', 'no-rows'])
@pytest.mark.parametrize('read', [decode, EvalView(4, 4),
                                  lambda data: TrainView(4)(data, np.random.default_rng(0))],
                         ids=['decode', 'eval', 'train'])
def test_what_cannot_be_decoded_is_a_decode_error(data, read):
    with pytest.raises(DecodeError):
        read(data)


def test_no_image_starts_a_program(tmp_path, monkeypatch):
    (tmp_path / 'gs').write_text(f'#!/bin/sh\ntouch {tmp_path}/started\n')
    (tmp_path / 'gs').chmod(0o755)
    monkeypatch.setenv('PATH', f'{tmp_path}:{os.environ["PATH"]}')
    postscript = b'%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n'
    with pytest.raises(DecodeError, match='of no known image format'):
        decode(postscript)
    with pytest.raises(DecodeError):
        image_size(postscript)
    assert not (tmp_path / 'started').exists()


def test_the_reason_is_readable():
    with pytest.raises(DecodeError, match='2 bytes whose header is cut short or damaged'):
        decode(b'\xff\xd8')
    with pytest.raises(DecodeError, match='16 bytes of no known image format'):
        decode(b'<html>404</html>')
    with pytest.raises(DecodeError, match='Premature end'):
        decode(jpeg(0, 40, 40)[:-100])


@pytest.mark.filterwarnings('ignore::PIL.Image.DecompressionBombWarning')
@pytest.mark.parametrize('format', ['JPEG', 'PNG', 'GIF', 'BMP', 'WEBP'])
def test_hostile_bytes_raise_nothing_but_decode_errors(format):
    data, rng = encode(scene(12, 12), format), np.random.default_rng(0)
    refused = 0
    for at in range(0, min(len(data), 400), 5):
        for damaged in (flip_bit(data, at), data[:at]):
            for read in (lambda d: TrainView(4)(d, rng), EvalView(4, 4)):
                try:
                    assert read(damaged).shape == (4, 4, 3)
                except DecodeError:
                    refused += 1
    assert refused


@pytest.mark.filterwarnings('ignore::PIL.Image.DecompressionBombWarning')
@pytest.mark.parametrize('data', [png_claiming(60000, 60000), png_claiming(9500, 9500), jpeg_claiming(65000, 65000)],
                         ids=['png', 'smaller-png', 'jpeg'])
def test_a_decompression_bomb_is_refused(data):
    for read in (decode, EvalView(4, 4), lambda d: TrainView(4)(d, np.random.default_rng(0))):
        with pytest.raises(DecodeError, match=r'limit of|exceeds limit'):
            read(data)


@pytest.mark.parametrize('shrink', [1, 2, 4, 8])
def test_a_jpeg_is_decoded_as_small_as_asked(shrink):
    data = encode(scene(97, 145))
    assert decode(data, shrink).shape == (-(-97 // shrink), -(-145 // shrink), 3)
    assert decode(encode(scene(97, 145), 'PNG'), shrink).shape == (97, 145, 3)


@pytest.mark.parametrize('options', [{'subsampling': 0}, {'subsampling': 1}, {'subsampling': 2}, {'progressive': True},
                                     {'restart_marker_blocks': 5}])
@pytest.mark.parametrize('shrink', [1, 2, 4, 8])
def test_rows_decoded_alone_are_those_of_the_whole(options, shrink):
    data = encode(scene(200, 77), **options)
    whole = decode(data, shrink)
    for rows in (1, 16, 50, 121, 199, 200):
        some, count = decode(data, shrink, rows), -(-rows // shrink)
        np.testing.assert_array_equal(some[:count], whole[:count])
    assert (len(decode(data, shrink, 1)) < len(whole)) == ('subsampling' in options)


def test_a_missing_end_is_noticed_below_the_rows_that_are_decoded():
    data = jpeg(0, 90, 40)
    assert len(decode(data, rows=20)) < 90
    for end in (-2, -100):
        with pytest.raises(DecodeError, match='Premature end'):
            decode(data[:end], rows=20)


@pytest.mark.parametrize('format', ['JPEG', 'PNG'])
@pytest.mark.parametrize('shrink', [1, 2])
def test_a_box_is_cut_from_what_is_decoded(format, shrink):
    data = encode(scene(80, 120), format)
    whole = decode(data, shrink)
    n = shrink if format == 'JPEG' else 1  # other formats come at full size
    np.testing.assert_array_equal(decode_box(data, 120, (8, 24, 40, 96), shrink),
                                  whole[8 // n:40 // n, 24 // n:96 // n])
    np.testing.assert_array_equal(decode_box(decode(data), 120, (8, 24, 40, 96), shrink), decode(data)[8:40, 24:96])


def test_decoding_alone_needs_no_augmentation():
    script = 'import imagenet_jax.inspection, imagenet_jax.convert, sys; print(*sys.modules)'
    modules = subprocess.check_output([sys.executable, '-c', script], cwd=ROOT, text=True).split()
    assert 'imagenet_jax.images.decode' in modules
    assert not {f'imagenet_jax.images.{name}' for name in ('train_view', 'crops', 'ops', 'batch')} & set(modules)
