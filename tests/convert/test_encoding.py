"""In what form images are stored."""

import numpy as np
import pytest
from fixtures_convert import plan, reopened
from fixtures_images import encode, image_folder, scene, with_pillow
from PIL import Image

from imagenet_jax.convert import Encoding, convert
from imagenet_jax.errors import UserError
from imagenet_jax.images.eval_view import EvalView


@pytest.mark.parametrize(('options', 'shape'), [
    ({'resize_shorter': 20}, (20, 30)), ({'max_side': 45}, (30, 45)),
    ({'resize_shorter': 40, 'max_side': 30}, (20, 30))])
def test_larger_images_are_shrunk(options, shape):
    image = Encoding(quality=95, **options)(encode(scene(60, 90)))
    pixels = with_pillow(image)
    assert pixels.shape[:2] == shape
    expected = EvalView(min(shape), min(shape))(encode(scene(60, 90)))
    centre = EvalView(min(shape), min(shape))(image)
    assert np.abs(expected.astype(int) - centre).mean() < 6  # of JPEG; another filter or crop gives tens


def test_images_of_any_kind_are_shrunk_to_rgb():
    for image in (encode(Image.fromarray(scene(60, 90)).convert('CMYK')), encode(scene(60, 90)[..., 0]),
                  encode(Image.fromarray(scene(60, 90)).convert('P'), 'PNG'), scene(60, 90), scene(60, 90)[..., :1]):
        shrunk = Encoding(resize_shorter=20)(image)
        assert shrunk[:2] == b'\xff\xd8' and with_pillow(shrunk).shape == (20, 30, 3)


def test_quality():
    sizes = [len(Encoding(resize_shorter=40, quality=q)(encode(scene(60, 90)))) for q in (30, 90)]
    assert sizes[0] < 0.6 * sizes[1]


@pytest.mark.parametrize('options', [{'resize_shorter': 60}, {'max_side': 90}, {'resize_shorter': 99}])
def test_images_that_are_small_enough_keep_their_bytes(options):
    assert Encoding(**options)(encode(scene(60, 90))) == encode(scene(60, 90))


def test_raw_is_the_centre_square_as_evaluation_crops_it(tmp_path):
    tree = image_folder(tmp_path / 'tree', {'train/a/0.JPEG': encode(scene(60, 90))})
    convert(plan(tree, tmp_path / 'out', encoding=Encoding(raw=24)), workers=1)
    pixels = reopened(tmp_path / 'out').image(0)
    assert pixels.dtype == np.uint8
    np.testing.assert_array_equal(pixels, EvalView(24, 24)(encode(scene(60, 90))))


@pytest.mark.parametrize(('options', 'message'), [
    ({'resize_shorter': -1}, 'must not be negative'), ({'quality': 0}, 'quality must be in'),
    ({'raw': 8, 'resize_shorter': 8}, '--raw goes without')])
def test_wrong_encodings(options, message):
    with pytest.raises(UserError, match=message):
        Encoding(**options)
