"""A trained model, or several, from Python: whatever form images have, whatever the batch, and the views of each."""

import jax
import numpy as np
import pytest
from fixtures_images import encode, scene
from fixtures_trained import imported
from PIL import Image

import imagenet_jax
from imagenet_jax.errors import UserError

NAMES = tuple('abcdefghij')


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    return imported(tmp_path_factory.mktemp('one'), class_names=NAMES)


@pytest.fixture(scope='module')
def other(tmp_path_factory):
    """The same classes in another order, other weights, another view."""
    return imported(tmp_path_factory.mktemp('two'), seed=5, class_names=NAMES[::-1],
                    eval={'size': 24, 'resize': 28, 'flip': True})


@pytest.fixture(scope='module')
def model(folder):
    return imagenet_jax.load(folder)


def pictures(count=5):
    return [scene(30 + 7 * i, 60 - 6 * i) for i in range(count)]


def test_an_image_may_come_in_any_form(model, tmp_path):
    pixels = scene(40, 50)
    path = tmp_path / 'é.png'
    path.write_bytes(encode(pixels, 'PNG'))
    rows = model.predict([path, str(path), path.read_bytes(), pixels, Image.fromarray(pixels)])
    assert rows.shape == (5, 10) and rows.dtype == np.float32
    for row in rows[1:]:
        np.testing.assert_array_equal(row, rows[0])
    np.testing.assert_allclose(rows.sum(1), 1, rtol=1e-6)


def test_the_batch_changes_no_answer(model):
    images = pictures()
    rows = model.predict(images)
    for size in (1, 2, 9):
        np.testing.assert_allclose(model.predict(images, size), rows, atol=1e-6)
    assert model.predict([]).shape == (0, 10)


def test_what_cannot_be_read_is_named(model, tmp_path):
    (tmp_path / 'torn.jpg').write_bytes(b'\xff\xd8')
    with pytest.raises(UserError, match=r'2 of 3 images have no answer: .*torn\.jpg, .*none\.png; the first cannot'):
        model.predict([scene(9, 9), tmp_path / 'torn.jpg', tmp_path / 'none.png'])
    for wrong in (np.zeros((8, 8)), np.zeros((8, 8, 3), np.float32), np.zeros((8, 8, 4), np.uint8)):
        with pytest.raises(UserError, match='must be uint8'):
            model.predict([wrong])


def test_features_are_what_the_head_sees_or_a_stage(model):
    images = pictures()
    pixels = np.stack([model.preprocess(image) for image in images])
    normalized = model.members[0].normalize(pixels)
    logits, maps = model.model.apply(model.variables, normalized, features=True)
    stages = list(maps)
    assert model.stages == tuple(stages) == ('layer1', 'layer2', 'layer3')
    np.testing.assert_allclose(model.features(images, stages[0]), np.asarray(maps[stages[0]]).mean((1, 2)),
                               rtol=1e-4, atol=1e-5)
    head = model.variables['params']['linear']
    np.testing.assert_allclose(model.features(images) @ head['kernel'] + head['bias'], logits, rtol=1e-4, atol=1e-4)
    with pytest.raises(UserError, match='no stage'):
        model.features(images, 'layer9')


def by_hand(model, crops):
    """Mean of the softmaxes of crops, one call each."""
    only = model.members[0]
    rows = [jax.nn.softmax(only.model.apply(only.variables, only.normalize(crop[None]))[0]) for crop in crops]
    return np.mean(rows, 0)


def resized(image, shorter):
    height, width = image.shape[:2]
    size = int(shorter * width / min(height, width)), int(shorter * height / min(height, width))
    return np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BILINEAR))


def crop(image, size, at=None):
    height, width = image.shape[:2]
    top, left = at or (round((height - size) / 2), round((width - size) / 2))
    return image[top:top + size, left:left + size]


def corners(image, size):
    down, right = image.shape[0] - size, image.shape[1] - size
    return [crop(image, size, at) for at in ((0, 0), (0, right), (down, 0), (down, right), None)]


def mirrored(crops):
    return [*crops, *(each[:, ::-1] for each in crops)]


@pytest.mark.parametrize(('view', 'crops'), [
    ({'size': 32, 'resize': 36, 'views': 'five_crop'}, lambda image: corners(resized(image, 36), 32)),
    ({'size': 32, 'resize': 36, 'views': 'ten_crop'}, lambda image: mirrored(corners(resized(image, 36), 32))),
    ({'size': 32, 'crop_ratio': 0.875, 'flip': True}, lambda image: mirrored([crop(resized(image, 36), 32)])),
    ({'scales': (24, 40)}, lambda image: [crop(resized(image, side), side) for side in (24, 40)]),
    ({'resize': 40, 'views': 'fully_convolutional'}, lambda image: [crop(resized(image, 40), 40)]),
], ids=['five', 'ten', 'flip', 'scales', 'whole'])
def test_views_are_averaged_as_a_plain_loop_does(folder, view, crops):
    model, images = imagenet_jax.load(folder, view=view), pictures(3)
    # A whole image is resized and then cropped here, and there in one pass, which may round a pixel the other way.
    np.testing.assert_allclose(model.predict(images), [by_hand(model, crops(image)) for image in images], atol=2e-3)


def test_an_ensemble_is_the_mean_of_its_members_by_class_name(folder, other):
    images = pictures(3)
    together = imagenet_jax.load(folder, other)
    one, two = imagenet_jax.load(folder), imagenet_jax.load(other)
    expected = (one.predict(images) + two.predict(images)[:, ::-1]) / 2
    np.testing.assert_allclose(together.predict(images), expected, atol=1e-6)
    assert together.class_names == NAMES
    with pytest.raises(UserError, match='2 models have no common variables'):
        together.features(images)


@pytest.mark.parametrize(('changes', 'message'), [
    ({'class_names': NAMES[1:]}, '10 and 9 classes'), ({'class_names': (*NAMES[1:], 'x')}, 'none of the 10'),
    ({}, 'one has class names and another has none'), ({'class_names': NAMES, 'loss': 'sigmoid'}, 'several'),
    ({'class_names': NAMES, 'data': {'exif': True}}, '--no-exif'),
])
def test_models_that_cannot_answer_together_are_refused(folder, tmp_path, changes, message):
    with pytest.raises(UserError, match=message):
        imagenet_jax.load(folder, imported(tmp_path, **changes))


def test_what_would_hold_instead_of_what_is_asked_for_is_left_out(tmp_path):
    folder = imported(tmp_path, eval={'size': 32, 'resize': 40, 'scales': (24, 40)})
    assert imagenet_jax.load(folder).view.crops == ((24, 1), (40, 1))
    assert imagenet_jax.load(folder, view={'resize': 36}).view.crops == ((32, 1),)
    assert imagenet_jax.load(folder, view={'views': 'five_crop'}).view.crops == ((32, 5),)
    with pytest.raises(UserError, match='which size and resize do not change'):
        imagenet_jax.load(folder, view={'scales': (8,), 'size': 8, 'resize': 8})


def test_a_picture_of_pillows_is_read_as_its_file_is(model, tmp_path):
    deep = Image.fromarray((np.arange(1600, dtype=np.uint16) * 30).reshape(40, 40))
    deep.save(tmp_path / 'deep.png')
    file, = model.predict([tmp_path / 'deep.png'])
    with Image.open(tmp_path / 'deep.png') as opened:
        np.testing.assert_array_equal(model.predict([opened])[0], file)
    with pytest.raises(UserError, match='images must be a list'):
        model.predict('deep.png')
