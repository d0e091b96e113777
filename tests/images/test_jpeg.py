"""The compiled reader of crops."""

import numpy as np
import pytest
from fixtures_images import encode, jpeg, sampled_jpeg, scene, with_pillow
from PIL import Image

from imagenet_jax.images import jpeg as jpeg_reader
from imagenet_jax.images import jpeg_header
from imagenet_jax.images.crops import RandomResized
from imagenet_jax.images.decode import DecodeError, decode, decode_box, image_size
from imagenet_jax.images.eval_view import EvalView
from imagenet_jax.images.train_view import TrainView


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
        whole = decode(data, shrink)
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
    images, view = [encode(scene(150, 200)), encode(scene(600, 400), quality=60)], TrainView(32)
    plain = [view(image, np.random.default_rng(seed)) for image in images for seed in range(10)]
    monkeypatch.undo()
    for (image, seed), crop in zip(((image, seed) for image in images for seed in range(10)), plain, strict=True):
        np.testing.assert_array_equal(view(image, np.random.default_rng(seed)), crop)


@pytest.mark.parametrize('marker', [b'\xff\xe0', b'\xff\xdb', b'\xff\xc0', b'\xff\xc4', b'\xff\xda'])
@pytest.mark.parametrize('reader', ['compiled', 'none'])
def test_filling_before_a_marker_costs_no_image(marker, reader, monkeypatch):
    """Of a whole image, of its upper rows and of a crop, with the compiled reader and without."""
    if reader == 'none':
        monkeypatch.setattr(jpeg_reader, '_decode_crop', None)
    data = encode(scene(80, 64))
    at = data.index(marker)
    for count in (1, 3):
        filled = data[:at] + b'\xff' * count + data[at:]
        np.testing.assert_array_equal(decode(filled), decode(data))
        np.testing.assert_array_equal(decode(filled, rows=20), decode(data, rows=20))
        box = (4, 8, 30, 40)
        np.testing.assert_array_equal(decode_box(filled, 64, box), decode_box(data, 64, box))


# 4:1:0, 3:1:1, 2 x 4, 4:4:1, mixed, chroma larger than luma, all alike, usual ones; CMYK whole and subsampled.
SAMPLINGS = [[(4, 2), (1, 1), (1, 1)], [(3, 1), (1, 1), (1, 1)], [(2, 4), (1, 1), (1, 1)], [(1, 4), (1, 1), (1, 1)],
             [(2, 2), (1, 1), (2, 1)], [(1, 1), (2, 2), (2, 2)], [(2, 1), (2, 1), (2, 1)], [(2, 2), (1, 1), (1, 1)],
             [(4, 1), (1, 1), (1, 1)], [(2, 2)], [(1, 1)] * 4, [(2, 1), (1, 1), (1, 1), (1, 1)],
             [(1, 1), (2, 1), (2, 1), (1, 1)]]


@pytest.mark.parametrize('factors', SAMPLINGS, ids=str)
def test_any_sampling_is_read_alike_by_all(factors, monkeypatch):
    data = sampled_jpeg(90, 70, factors)
    pixels = with_pillow(data)
    for _ in range(2):
        assert image_size(data) == (90, 70)
        np.testing.assert_array_equal(decode(data), pixels)
        np.testing.assert_array_equal(decode_box(data, 70, (10, 20, 40, 50)), pixels[10:40, 20:50])
        for view in (EvalView(30, 40), lambda data: RandomResized()(data, 60, np.random.default_rng(0))):
            np.testing.assert_array_equal(view(data), view(encode(pixels, 'PNG')))
        monkeypatch.setattr(jpeg_reader, '_decode_crop', None)


@pytest.mark.parametrize('reader', ['compiled', 'none'])
@pytest.mark.parametrize('factors', SAMPLINGS, ids=str)
def test_missing_data_is_noticed_in_any_sampling(factors, reader, monkeypatch):
    """The end marker is kept; the crop's rows are those that are missing."""
    if reader == 'none':
        monkeypatch.setattr(jpeg_reader, '_decode_crop', None)
    data = sampled_jpeg(90, 70, factors)
    start = jpeg_header.read(data).segments[-1].end
    for share in (0, 0.5, 0.95):
        cut = data[:start + int((len(data) - 2 - start) * share)] + b'\xff\xd9'
        for read in (decode, EvalView(30, 40), lambda cut: decode_box(cut, 70, (80, 0, 90, 70))):
            with pytest.raises(DecodeError):
                read(cut)
    with pytest.raises(DecodeError, match='Premature end'):
        decode(data[:-2])


@pytest.mark.parametrize('options', [{}, {'progressive': True}, {'restart_marker_blocks': 3}, {'subsampling': 2}])
def test_missing_data_is_noticed_in_cmyk(options):
    data = encode(Image.fromarray(scene(60, 60)).convert('CMYK'), **options)
    np.testing.assert_array_equal(decode(data), with_pillow(data))
    start = data.index(b'\xff\xda') + 12
    for share in (0.3, 0.6, 0.99):
        with pytest.raises(DecodeError):
            decode(data[:start + int((len(data) - 2 - start) * share)].removesuffix(b'\xff') + b'\xff\xd9')
    if 'restart_marker_blocks' in options:  # one interval is shorter than it should be
        second, third = (data.index(bytes([0xff, marker])) for marker in (0xd1, 0xd2))
        with pytest.raises(DecodeError, match='premature end'):
            decode(data[:second + 8] + data[third:])


def test_notes_of_any_size_cost_no_jpeg_of_odd_sampling():
    data = sampled_jpeg(40, 40, SAMPLINGS[0])
    notes = b''.join(bytes([0xff, marker, 0xff, 0xfe]) + bytes(65532) for marker in (0xe1, 0xe2, 0xed, 0xfe) * 9)
    np.testing.assert_array_equal(decode(data[:2] + notes + data[2:]), decode(data))


@pytest.mark.skipif(not jpeg_reader.BUILT, reason='the compiled JPEG reader is not built here')
@pytest.mark.parametrize('options', [{'subsampling': 0}, {'subsampling': 2}, {'progressive': True},
                                     {'restart_marker_blocks': 4}])
def test_a_damaged_jpeg_is_read_or_refused_alike_with_the_reader_and_without(options, monkeypatch):
    """Crops anywhere, of files cut anywhere whose end is kept, or with a changed byte."""
    data, rng, refused = encode(scene(120, 100), **options), np.random.default_rng(0), 0

    def crop(damaged, box, shrink):
        try:
            return decode_box(damaged, 100, box, shrink).tolist()
        except DecodeError as error:
            return str(error)
    compiled = jpeg_reader._decode_crop
    for _ in range(60):
        at, top = int(rng.integers(data.index(b'\xff\xda') + 12, len(data) - 2)), int(rng.integers(118))
        box, shrink = (top, 10, int(rng.integers(top + 1, 121)), 90), int(rng.choice([1, 2]))
        for damaged in (data[:at] + b'\xff\xd9', data[:at] + rng.bytes(1) + data[at + 1:]):
            monkeypatch.setattr(jpeg_reader, '_decode_crop', compiled)
            with_reader = crop(damaged, box, shrink)
            monkeypatch.setattr(jpeg_reader, '_decode_crop', None)
            assert crop(damaged, box, shrink) == with_reader
            refused += isinstance(with_reader, str)
    assert 10 < refused < 110
