"""What decoding may take is decided by the header."""

import threading

import numpy as np
import pytest
from fixtures_images import encode, png_claiming, scene

from imagenet_jax.images import decode as decoder
from imagenet_jax.images import jpeg_header, limits
from imagenet_jax.images.decode import DecodeError, decode, decode_box, image_size
from imagenet_jax.images.eval_view import EvalView


@pytest.fixture
def small(monkeypatch):
    """Limits that small images reach."""
    for module in (limits, jpeg_header, decoder):
        for name, value in (('MAX_WHOLE', 5000), ('MAX_PIXELS', 12000), ('MAX_SCANNED', 40000)):
            if hasattr(module, name):
                monkeypatch.setattr(module, name, value)
    monkeypatch.setattr(limits.refuse_bomb, '__defaults__', (5000,))


@pytest.mark.parametrize(('format', 'options'), [
    ('PNG', {}), ('WEBP', {}), ('GIF', {}), ('BMP', {}), ('TIFF', {}), ('PPM', {}), ('JPEG2000', {}),
    ('JPEG', {'progressive': True})])
def test_all_but_sequential_jpegs_are_refused_by_their_header(format, options, small):
    data = encode(scene(80, 90), format, **options)
    for read in (decode, image_size, EvalView(8, 8), lambda data: decode_box(data, 90, (0, 0, 8, 8))):
        with pytest.raises(DecodeError, match='claims 90 x 80 pixels, more than the limit of 5000 for all but'):
            read(data)


def test_a_large_sequential_jpeg_is_decoded_at_half_its_size(small):
    data = encode(scene(80, 90))
    np.testing.assert_array_equal(decode(data), decode(data, 2))
    assert decode(data).shape == (40, 45, 3)
    assert image_size(data) == (80, 90)
    assert EvalView(16, 20)(data).shape == (16, 16, 3)
    assert decode_box(data, 90, (8, 8, 40, 60)).shape == (32, 52, 3)
    with pytest.raises(DecodeError, match='limit of 12000: make it smaller'):
        decode(encode(scene(120, 120)))


def test_scans_are_counted(small):
    """Sequential ones as well, where colours come one after the other."""
    data = encode(scene(60, 70), progressive=True)
    with pytest.raises(DecodeError, match='has 10 scans of 70 x 60 pixels, more than the limit of 40000'):
        decode(data)
    assert decode(encode(scene(60, 60), progressive=True)).shape == (60, 60, 3)


def test_an_image_of_no_pixels_is_refused():
    with pytest.raises(DecodeError):
        image_size(png_claiming(0, 5))


def test_threads_take_turns_with_large_images():
    turns, inside, most = limits._Turns(2 * limits._SMALL + 2), [], []

    def take():
        with turns.take(limits._SMALL + 1):
            inside.append(1)
            most.append(len(inside))
            barrier.wait()  # both of a pair are inside at once
            inside.pop()
    barrier = threading.Barrier(2)
    threads = [threading.Thread(target=take) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert max(most) == 2 and not inside
