"""data.exif: how a camera was held."""

import io

import numpy as np
import pytest
from fixtures_images import encode, image_folder, scene
from PIL import Image, ImageFile, ImageOps

from imagenet_jax import sources
from imagenet_jax.convert import Encoding
from imagenet_jax.errors import UserError
from imagenet_jax.images.crops import RandomResized
from imagenet_jax.images.decode import decode, decode_box, image_size, stored_orientation
from imagenet_jax.images.eval_view import EvalView
from imagenet_jax.sources.upright import Upright

FORMATS = ('JPEG', 'PNG', 'TIFF', 'WEBP')


def held(number: int, format: str, height: int = 33, width: int = 50) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = number
    return encode(scene(height, width), format, exif=exif, **({'lossless': True} if format == 'WEBP' else {}))


@pytest.mark.parametrize('format', FORMATS)
@pytest.mark.parametrize('number', range(1, 9))
def test_it_is_ignored_or_applied_in_every_format(number, format):
    data = held(number, format)
    stored, upright = decode(data), decode(Upright(data))
    if format != 'JPEG':
        np.testing.assert_array_equal(stored, scene(33, 50))
    np.testing.assert_array_equal(stored, decode(held(1, format)))
    with Image.open(io.BytesIO(data)) as picture:
        np.testing.assert_array_equal(upright, np.asarray(ImageOps.exif_transpose(picture)))
    assert image_size(data) == (33, 50) and image_size(Upright(data)) == upright.shape[:2]
    height, width = upright.shape[:2]
    for box in ((0, 0, height, width), (3, 5, 20, 31), (height - 9, width - 4, height, width)):
        crop = decode_box(Upright(data), width, box)
        np.testing.assert_array_equal(crop, upright[box[0]:box[2], box[1]:box[3]])
    plain = encode(upright, 'PNG')
    for view in (EvalView(20, 24), lambda image: RandomResized()(image, 20, np.random.default_rng(0))):
        np.testing.assert_array_equal(view(Upright(data)), view(plain))


def test_a_source_gives_upright_images_where_asked(tmp_path):
    root = image_folder(tmp_path, {f'train/a/{i}.jpg': held(6, 'JPEG') for i in range(2)})
    as_stored, upright = (sources.create('folder', str(root), 'train', exif=exif) for exif in (False, True))
    assert decode(as_stored.image(0)).shape == (33, 50, 3)
    assert decode(upright.image(0)).shape == (50, 33, 3)
    assert upright.key(1) == as_stored.key(1) and upright.class_names == ('a',) and len(upright) == 2
    with pytest.raises(UserError, match=r'config\.data\.exif'):
        sources.create('folder', str(root), 'train', exif='yes')


@pytest.mark.parametrize('number', [1, 3, 6])
def test_what_is_shrunk_keeps_it(number):
    """So that it is decided where the data is read, as for images whose bytes are kept."""
    data = held(number, 'JPEG', 60, 90)
    plain = Encoding(resize_shorter=20, quality=95)(held(1, 'JPEG', 60, 90))
    for image in (data, Upright(data)):
        shrunk = Encoding(resize_shorter=20, quality=95)(image)
        np.testing.assert_array_equal(decode(shrunk), decode(plain))
        assert image_size(Upright(shrunk)) == ((30, 20) if number == 6 else (20, 30))
    assert (shrunk == plain) == (number == 1)


def test_stored_pixels_are_turned_for_good():
    data = held(6, 'JPEG')
    np.testing.assert_array_equal(Encoding(raw=20)(Upright(data)), EvalView(20, 20)(Upright(data)))
    assert (Encoding(raw=20)(data) != Encoding(raw=20)(Upright(data))).any()


@pytest.mark.parametrize('kind', ['PNG', 'WEBP', 'TIFF'])
def test_asking_decodes_no_pixels(kind, monkeypatch):
    """Else an image would be decoded before its size is looked at, and so often as it is asked."""
    exif = Image.Exif()
    exif[0x0112] = 6
    for given, turned in (({'exif': exif}, 6), ({}, 1)):
        data = encode(scene(20, 10), kind, **given)
        with monkeypatch.context() as patch:
            patch.setattr(ImageFile.ImageFile, 'load', None)
            assert stored_orientation(data) == turned
