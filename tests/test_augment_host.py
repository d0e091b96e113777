"""One image, from encoded bytes to the pixels a model sees."""

import io
import os

import cv2
import numpy as np
import pytest
from fixtures_images import encode, flip_bit, jpeg, jpeg_claiming, png_claiming, scene, with_pillow
from PIL import Image, ImageEnhance

from imagenet_jax.errors import UserError
from imagenet_jax.images import host
from imagenet_jax.images import jpeg as jpeg_reader
from imagenet_jax.images.host import DecodeError, EvalTransform, TrainTransform

SCALE, RATIO = (0.08, 1.0), (3 / 4, 4 / 3)


def difference(a, b):
    """Mean absolute difference in levels."""
    assert a.shape == b.shape and a.dtype == b.dtype == np.uint8
    return np.abs(a.astype(int) - b).mean()


# Decoding.

@pytest.mark.parametrize('options', [{'subsampling': 0}, {'subsampling': 2}, {'progressive': True}, {'quality': 30}])
@pytest.mark.parametrize('size', [(16, 16), (37, 53)])
def test_full_decode_of_a_jpeg_is_pillows_bit_for_bit(size, options):
    data = encode(scene(*size), **options)
    np.testing.assert_array_equal(host.decode(data), with_pillow(data))


def test_grey_jpeg_becomes_three_equal_channels():
    data = encode(scene(9, 13)[..., 0])
    pixels = host.decode(data)
    assert pixels.shape == (9, 13, 3)
    np.testing.assert_array_equal(pixels, with_pillow(data))


def test_cmyk_jpeg_is_converted():
    original = scene(16, 16)
    data = encode(Image.fromarray(original).convert('CMYK'), quality=95)
    assert Image.open(io.BytesIO(data)).mode == 'CMYK'
    assert difference(host.decode(data), original) < 15  # inverted inks would be off by a hundred


def test_16_bit_grey_png_keeps_its_upper_byte():
    grey = np.arange(0, 65536, 997, dtype=np.uint16)[:60].reshape(6, 10)
    pixels = host.decode(encode(grey, 'PNG'))
    np.testing.assert_array_equal(pixels, np.repeat((grey >> 8).astype(np.uint8)[..., None], 3, axis=2))


@pytest.mark.parametrize('mode', ['RGBA', 'LA'])
def test_alpha_is_dropped(mode):
    image = Image.fromarray(scene(6, 7)).convert(mode)
    image.putalpha(Image.fromarray(np.arange(42, dtype=np.uint8).reshape(6, 7)))
    expected = np.asarray(image)[..., :3] if mode == 'RGBA' else np.repeat(np.asarray(image)[..., :1], 3, axis=2)
    np.testing.assert_array_equal(host.decode(encode(image, 'PNG')), expected)


@pytest.mark.parametrize('format', ['PNG', 'GIF'])
def test_palette_is_looked_up(format):
    image = Image.fromarray(scene(6, 7)).quantize(8)
    np.testing.assert_array_equal(host.decode(encode(image, format)), np.asarray(image.convert('RGB')))


@pytest.mark.parametrize('format', ['PNG', 'BMP', 'PPM', 'TIFF'])
def test_other_formats_keep_every_pixel(format):
    np.testing.assert_array_equal(host.decode(encode(scene(6, 7), format)), scene(6, 7))


def test_exif_rotation_is_ignored_and_broken_exif_does_no_harm():
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees
    plain, turned = encode(scene(9, 13)), encode(scene(9, 13), exif=exif)
    broken = turned.replace(b'Exif\0\0', b'Exif\0\0\xff\xff\xff')
    assert broken != turned != plain
    for data in (turned, broken):
        np.testing.assert_array_equal(host.decode(data), host.decode(plain))
        assert host.image_size(data) == (9, 13)


def test_stray_bytes_between_markers_cost_nothing():
    data = jpeg()
    for marker in (b'\xff\xc0', b'\xff\xd9'):
        at = data.rindex(marker)
        stray = data[:at] + bytes(5) + data[at:]
        np.testing.assert_array_equal(host.decode(stray), host.decode(data))
        assert host.random_resized_crop(stray, 4, SCALE, RATIO, np.random.default_rng(0)).shape == (4, 4, 3)


def test_pixels_pass_through():
    pixels = scene(5, 6)
    assert host.decode(pixels) is pixels
    np.testing.assert_array_equal(host.decode(pixels[..., :1]), np.repeat(pixels[..., :1], 3, axis=2))
    assert host.image_size(pixels) == (5, 6)


@pytest.mark.parametrize('data', [b'', b'\xff\xd8', b'\x89PNG\r\n\x1a\n', b'<html>404</html>' * 9, jpeg()[:-2],
                                  jpeg(0, 40, 40)[:-100], encode(scene(40, 40), 'PNG')[:-100],
                                  png_claiming(0, 5)],
                         ids=['empty', 'soi', 'png', 'html', 'jpeg-end', 'jpeg-half', 'png-half', 'no-rows'])
@pytest.mark.parametrize('read', [host.decode, EvalTransform(4, 4),
                                  lambda data: TrainTransform(4)(data, np.random.default_rng(0))],
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
        host.decode(postscript)
    with pytest.raises(DecodeError):
        host.image_size(postscript)
    assert not (tmp_path / 'started').exists()


def test_the_reason_is_readable():
    with pytest.raises(DecodeError, match='2 bytes whose header is cut short or damaged'):
        host.decode(b'\xff\xd8')
    with pytest.raises(DecodeError, match='16 bytes of no known image format'):
        host.decode(b'<html>404</html>')
    with pytest.raises(DecodeError, match='Premature end'):
        host.decode(jpeg(0, 40, 40)[:-100])


@pytest.mark.filterwarnings('ignore::PIL.Image.DecompressionBombWarning')
@pytest.mark.parametrize('format', ['JPEG', 'PNG', 'GIF', 'BMP', 'WEBP'])
def test_hostile_bytes_raise_nothing_but_decode_errors(format):
    data, rng = encode(scene(12, 12), format), np.random.default_rng(0)
    refused = 0
    for at in range(0, min(len(data), 400), 5):
        for damaged in (flip_bit(data, at), data[:at]):
            for read in (lambda d: TrainTransform(4)(d, rng), EvalTransform(4, 4)):
                try:
                    assert read(damaged).shape == (4, 4, 3)
                except DecodeError:
                    refused += 1
    assert refused


@pytest.mark.filterwarnings('ignore::PIL.Image.DecompressionBombWarning')
@pytest.mark.parametrize('data', [png_claiming(60000, 60000), png_claiming(9500, 9500), jpeg_claiming(65000, 65000)],
                         ids=['png', 'smaller-png', 'jpeg'])
def test_a_decompression_bomb_is_refused(data):
    for read in (host.decode, EvalTransform(4, 4), lambda d: TrainTransform(4)(d, np.random.default_rng(0))):
        with pytest.raises(DecodeError, match=r'limit of|exceeds limit'):
            read(data)


@pytest.mark.parametrize('shrink', [1, 2, 4, 8])
def test_a_jpeg_is_decoded_as_small_as_asked(shrink):
    data = encode(scene(97, 145))
    assert host.decode(data, shrink).shape == (-(-97 // shrink), -(-145 // shrink), 3)
    assert host.decode(encode(scene(97, 145), 'PNG'), shrink).shape == (97, 145, 3)


@pytest.mark.parametrize('options', [{'subsampling': 0}, {'subsampling': 1}, {'subsampling': 2}, {'progressive': True},
                                     {'restart_marker_blocks': 5}])
@pytest.mark.parametrize('shrink', [1, 2, 4, 8])
def test_rows_decoded_alone_are_those_of_the_whole(options, shrink):
    data = encode(scene(200, 77), **options)
    whole = host.decode(data, shrink)
    for rows in (1, 16, 50, 121, 199, 200):
        some, count = host.decode(data, shrink, rows), -(-rows // shrink)
        np.testing.assert_array_equal(some[:count], whole[:count])
    assert (len(host.decode(data, shrink, 1)) < len(whole)) == ('subsampling' in options)


def test_a_missing_end_is_noticed_below_the_rows_that_are_decoded():
    data = jpeg(0, 90, 40)
    assert len(host.decode(data, rows=20)) < 90
    for end in (-2, -100):
        with pytest.raises(DecodeError, match='Premature end'):
            host.decode(data[:end], rows=20)


# The compiled reader of crops.

@pytest.fixture
def without_reader(monkeypatch):
    """As where it could not be built."""
    monkeypatch.setattr(jpeg_reader, '_decode_crop', None)


@pytest.mark.skipif(not jpeg_reader.BUILT, reason='the compiled JPEG reader is not built here')
@pytest.mark.parametrize('options', [{'subsampling': 0}, {'subsampling': 1}, {'subsampling': 2}, {'progressive': True},
                                     {'restart_marker_blocks': 5}, {'quality': 20}])
@pytest.mark.parametrize('shrink', [1, 2, 4, 8])
def test_the_compiled_reader_changes_no_pixel(options, shrink):
    for data in (encode(scene(203, 157), **options), encode(scene(203, 157)[..., 0], **options)):
        whole = host.decode(data, shrink)
        height, width = whole.shape[:2]
        for top, left, bottom, right in [(0, 0, height, width), (height - 1, width - 1, height, width), (0, 0, 1, 1),
                                         (3, 5, 9, 17), (height // 3, width // 2, height - 2, width - 3)]:
            crop = jpeg_reader.decode_crop(data, shrink, top, left, bottom - top, right - left)
            np.testing.assert_array_equal(crop, whole[top:bottom, left:right])


@pytest.mark.skipif(not jpeg_reader.BUILT, reason='the compiled JPEG reader is not built here')
def test_the_compiled_reader_leaves_to_others_what_it_cannot_answer_for():
    good, middle = jpeg(0, 60, 60), len(jpeg(0, 60, 60)) // 2
    cmyk = encode(Image.fromarray(scene(60, 60)).convert('CMYK'))
    for data in (b'', b'\xff\xd8', good[:middle], good[:-2], good[:middle] + b'\xff\xd9', cmyk,
                 encode(scene(60, 60), 'PNG')):
        assert jpeg_reader.decode_crop(data, 1, 52, 0, 8, 8) is None
    assert jpeg_reader.decode_crop(good[:-2], 1, 0, 0, 8, 8) is None  # the end is looked for below the crop too
    for box in ((-1, 0, 8, 8), (0, -1, 8, 8), (53, 0, 8, 8), (0, 53, 8, 8), (0, 0, 0, 8), (0, 0, 8, 0)):
        assert jpeg_reader.decode_crop(good, 1, *box) is None


def test_without_the_compiled_reader_nothing_changes(without_reader, monkeypatch):
    images, view = [encode(scene(150, 200)), encode(scene(600, 400), quality=60)], TrainTransform(32)
    plain = [view(image, np.random.default_rng(seed)) for image in images for seed in range(10)]
    monkeypatch.undo()
    for (image, seed), crop in zip(((image, seed) for image in images for seed in range(10)), plain, strict=True):
        np.testing.assert_array_equal(view(image, np.random.default_rng(seed)), crop)


# Evaluation's view.

def resized_then_cropped(pixels, size, resize):
    """What torchvision does: the whole image resized with Pillow, then the centre crop."""
    height, width = pixels.shape[:2]
    short = min(height, width)
    height, width = int(resize * height / short), int(resize * width / short)
    whole = Image.fromarray(pixels).resize((width, height), Image.Resampling.BILINEAR)
    top, left = round((height - size) / 2), round((width - size) / 2)
    return np.asarray(whole)[top:top + size, left:left + size]


@pytest.mark.parametrize('shape,size,resize', [
    ((37, 53), 16, 18), ((53, 37), 16, 18), ((101, 31), 24, 24), ((16, 203), 15, 17), ((64, 64), 28, 32),
    ((13, 11), 32, 36), ((375, 499), 224, 256)])
def test_eval_view_is_resize_then_centre_crop(shape, size, resize):
    pixels = scene(*shape)
    view = EvalTransform(size, resize)(encode(pixels, 'PNG'))
    assert difference(view, resized_then_cropped(pixels, size, resize)) < 0.5


def test_eval_view_without_resize_keeps_the_pixels():
    pixels = scene(20, 33)
    np.testing.assert_array_equal(EvalTransform(15, 20)(pixels), pixels[2:17, 9:24])


@pytest.mark.parametrize('shape', [(1, 300), (300, 1), (1, 1), (7, 3)])
def test_eval_view_of_extreme_shapes(shape):
    assert EvalTransform(8, 9)(scene(*shape)).shape == (8, 8, 3)


def test_eval_crop_larger_than_the_resized_image_is_refused():
    with pytest.raises(UserError, match=r'eval\.size 9 must be at most eval\.resize 8'):
        EvalTransform(9, 8)


# Training's view.

@pytest.mark.parametrize('shape,to', [((96, 128), (48, 60)), ((60, 70), (24, 24)), ((96, 60), (32, 70)),
                                      ((50, 40), (45, 33)), ((20, 24), (48, 64))])
def test_training_resize_is_close_to_pillows_antialiased_bilinear(shape, to):
    pixels = cv2.GaussianBlur(scene(*shape), (0, 0), 0.7)
    pillow = np.asarray(Image.fromarray(pixels).resize(to[::-1], Image.Resampling.BILINEAR))
    off, aliased = (difference(y, pillow) for y in (host.resize(pixels, *to), cv2.resize(pixels, to[::-1])))
    assert off < 0.7
    assert off <= aliased
    assert off < 0.25 * aliased or 1.5 * to[0] > shape[0]


def test_random_resized_crop_boxes_have_the_right_law():
    height, width, rng = 300, 400, np.random.default_rng(0)
    top, left, h, w = np.array([host.crop_box(height, width, SCALE, RATIO, rng) for _ in range(4000)]).T
    assert top.min() >= 0 and left.min() >= 0 and (top + h).max() <= height and (left + w).max() <= width
    area, log_aspect = h * w / (height * width), np.log(w / h)
    assert 0.078 < area.min() < 0.09 and 0.9 < area.max() <= 1
    assert np.abs(log_aspect).max() < np.log(4 / 3) + 0.02 and np.abs(log_aspect).max() > np.log(4 / 3) - 0.02
    small = area < 0.4  # boxes that fit whatever their aspect: nothing was drawn again
    assert abs(area[small].mean() - 0.24) < 0.01  # uniform
    assert abs(np.median(log_aspect[small])) < 0.02  # symmetric in the logarithm, as torchvision draws it
    centre = (top + h / 2).mean() / height, (left + w / 2).mean() / width
    np.testing.assert_allclose(centre, 0.5, atol=0.01)


@pytest.mark.parametrize('shape,box', [((10, 1000), (0, 493, 10, 13)), ((1000, 10), (493, 0, 13, 10)),
                                       ((1, 1), (0, 0, 1, 1))])
def test_random_resized_crop_falls_back_to_the_centre(shape, box):
    assert host.crop_box(*shape, (0.9, 1.0), RATIO, np.random.default_rng(0)) == box


def test_a_box_lies_inside_images_of_any_shape():
    rng = np.random.default_rng(1)
    for _ in range(500):
        height, width = rng.integers(1, 60, size=2)
        top, left, h, w = host.crop_box(height, width, SCALE, RATIO, rng)
        assert 0 <= top < top + h <= height and 0 <= left < left + w <= width
        pixels = host.random_resized_crop(np.zeros((height, width, 3), np.uint8), 8, SCALE, RATIO, rng)
        assert pixels.shape == (8, 8, 3)


def test_crop_of_a_scaled_jpeg_is_close_to_the_crop_of_the_whole():
    data = encode(cv2.GaussianBlur(scene(203, 261), (0, 0), 4), quality=95)
    whole = host.decode(data)
    for seed in range(12):
        crops = [host.random_resized_crop(image, 32, (0.3, 1.0), RATIO, np.random.default_rng(seed))
                 for image in (data, whole)]
        assert difference(*crops) < 2.5


def test_random_resized_crop_of_everything_is_a_resize():
    pixels = scene(24, 24)
    crop = host.random_resized_crop(pixels, 12, (1.0, 1.0), (1.0, 1.0), np.random.default_rng(0))
    np.testing.assert_array_equal(crop, host.resize(pixels, 12, 12))


def test_pad_crop_takes_every_window_of_the_padded_image():
    pixels, rng = scene(8, 8), np.random.default_rng(0)
    padded = np.zeros((12, 12, 3), np.uint8)
    padded[2:10, 2:10] = pixels
    windows = {padded[y:y + 8, x:x + 8].tobytes() for y in range(5) for x in range(5)}
    assert {host.pad_crop(pixels, 8, 2, rng).tobytes() for _ in range(400)} == windows


def test_flip_mirrors_half_of_the_images():
    pixels, rng = scene(8, 8), np.random.default_rng(0)
    seen = [TrainTransform(8, crop='none')(pixels, rng).tobytes() for _ in range(400)]
    assert set(seen) == {pixels.tobytes(), pixels[:, ::-1].tobytes()}
    assert 0.4 < seen.count(pixels.tobytes()) / 400 < 0.6
    assert {TrainTransform(8, crop='none', flip=False)(pixels, rng).tobytes() for _ in range(20)} == {pixels.tobytes()}


class OneJitter:
    """Stands in for a Generator: one of the three distortions, with a factor of choice."""

    def __init__(self, kind, factor):
        self.kind, self.factor, self.bounds = kind, factor, None

    def permutation(self, count):
        assert count == 3
        return [self.kind]

    def uniform(self, low, high):
        self.bounds = low, high
        return self.factor


@pytest.mark.parametrize('kind,pillow', [(0, ImageEnhance.Brightness), (1, ImageEnhance.Contrast),
                                         (2, ImageEnhance.Color)])
@pytest.mark.parametrize('factor', [0.5, 0.8, 1.0, 1.4])
def test_color_jitter_is_pillows_enhancement(kind, pillow, factor):
    pixels, rng = scene(16, 16), OneJitter(kind, factor)
    expected = np.asarray(pillow(Image.fromarray(pixels)).enhance(factor))
    assert np.abs(host.color_jitter(pixels, 0.4, rng).astype(int) - expected).max() <= 1
    np.testing.assert_allclose(rng.bounds, (0.6, 1.4))


def test_color_jitter_never_draws_a_negative_factor():
    rng = OneJitter(0, 1.0)
    host.color_jitter(scene(4, 4), 1.5, rng)
    assert rng.bounds == (0.0, 2.5)


def test_color_jitter_of_strength_near_zero_is_the_identity():
    pixels = scene(16, 16)
    np.testing.assert_array_equal(host.color_jitter(pixels, 1e-6, np.random.default_rng(0)), pixels)
    np.testing.assert_array_equal(TrainTransform(16, crop='none', flip=False)(pixels, np.random.default_rng(0)), pixels)


def test_color_jitter_stays_in_bounds_and_varies():
    grey = np.full((4, 4, 3), 100, np.uint8)  # contrast and saturation leave it alone
    levels = {int(host.color_jitter(grey, 0.4, np.random.default_rng(seed)).max()) for seed in range(200)}
    assert 60 <= min(levels) < 70 and 130 < max(levels) <= 140


@pytest.mark.parametrize('crop', ['random_resized', 'pad', 'none'])
@pytest.mark.parametrize('image', [jpeg(), scene(9, 5), scene(8, 8)[..., :1]], ids=['jpeg', 'rgb', 'grey'])
def test_every_crop_is_uint8_of_the_size_and_a_function_of_the_generator(crop, image):
    transform = TrainTransform(8, crop=crop, pad=2, color_jitter=0.4)
    first, again, other = (transform(image, np.random.default_rng(seed)) for seed in (3, 3, 4))
    assert first.shape == (8, 8, 3) and first.dtype == np.uint8
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


def test_wrong_augmentation_is_refused():
    with pytest.raises(UserError, match='did you mean random_resized'):
        TrainTransform(8, crop='random_resize')
    for wrong in ({'scale': (0.0, 1.0)}, {'scale': (0.5, 1.5)}, {'scale': (0.9, 0.1)}, {'ratio': (2.0, 1.0)}):
        with pytest.raises(UserError, match=r'augment\.scale'):
            TrainTransform(8, **wrong)
