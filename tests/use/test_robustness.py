"""ImageNet's sets of harder images, found and measured: against a plain loop over the files."""

import json
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from fixtures_images import encode, image_folder, scene

from imagenet_jax import class_names, step
from imagenet_jax.errors import UserError
from imagenet_jax.evaluation import Evaluator
from imagenet_jax.images.eval_view import EvalView
from imagenet_jax.input_pipeline import BadSamples
from imagenet_jax.task import Softmax
from imagenet_jax.use import imagenet, robustness
from imagenet_jax.use.classifier import _Views
from imagenet_jax.workers import Workers

WNIDS = list(class_names.imagenet())
SETS = {name: [WNIDS[number] for number in robustness._sets()[name]] for name in ('imagenet-a', 'imagenet-r')}
WEIGHTS = np.random.default_rng(0).normal(size=(4 * 4 * 3, 1000)).astype(np.float32)
OUTPUTS = [*WNIDS[500:], *WNIDS[:500]]  # a model that has them in an order of its own
VIEW, WHOLE = EvalView(4, 5), EvalView(4, 4)
CORRUPTIONS = {'noise/gaussian_noise': 5, 'fog': 5, 'blur/zoom_blur': 4, 'extra/spatter': 5}


def answer_of(variables, images):
    return normalize(images).reshape(len(images), -1) @ jnp.asarray(WEIGHTS)


def normalize(images):
    return images / np.float32(255)


def image(seed):
    return encode(scene(5, 6, seed), 'PNG')


def answer(data, view, names):
    """Names of classes as the model has them in order, of these alone."""
    logits = (normalize(view(data)).reshape(-1) @ WEIGHTS)[[OUTPUTS.index(name) for name in names]]
    return [names[at] for at in np.argsort(-logits)]


def placed(kind, count, names, view=VIEW):
    """Images by wnid: of some the first answer is right, of some the third or the last."""
    for seed in range(count):
        data = image(seed)
        yield answer(data, view, names)[(0, 2, -1)[seed % 3]], f'{kind}-{seed}.png', data


def on_disk(root):
    """Some images of each set, one of them unreadable."""
    files = {f'{name}/{wnid}/{file}': data for name, names in SETS.items()
             for wnid, file, data in placed(name, 9, names)}
    files |= {f'imagenet-sketch/sketch/{wnid}/{file}': data for wnid, file, data in placed('s', 20, OUTPUTS)}
    files |= {f'v2/{WNIDS.index(wnid)}/{file}': data for wnid, file, data in placed('v', 9, OUTPUTS)}
    for name, severities in CORRUPTIONS.items():
        files |= {f'c/{name}/{severity}/{wnid}/{file}': data for severity in range(1, severities + 1)
                  for wnid, file, data in placed(severity, 2 + severity % 2, OUTPUTS, WHOLE)}
    files['imagenet-a/README.txt'] = files['notes/README.txt'] = b'text'
    image_folder(root, files)
    torn, = (root / 'imagenet-a').glob('*/imagenet-a-0.png')
    torn.write_bytes(b'torn')
    return root


@pytest.fixture(scope='module')
def measured(tmp_path_factory):
    """(the folder, the sets by name)"""
    root = on_disk(tmp_path_factory.mktemp('sets'))
    opened = [robustness.open_set(one, OUTPUTS, 1000, exif=False) for one in robustness.find(root)]
    evaluator = Evaluator(
        answer=answer_of, task=Softmax(), view=VIEW, source=None, batch_size=8,
        workers=Workers(), bad_samples=partial(BadSamples, max_bad_fraction=1), remedy='',
        mesh=step.make_mesh(jax.devices()[:1]))
    found = robustness.measure(opened, evaluator, {}, lambda name, each: iter, robustness.uncropped(VIEW))
    return root, {one['set']: one for one in found}


def plainly(folder, view, name_of, names=OUTPUTS):
    """Top-1 and top-5 of every image below class folders, one by one."""
    hits = []
    for data, name in ((file.read_bytes(), name_of(file)) for file in sorted(folder.rglob('*.png'))):
        said = answer(data, view, names)[:5] if data != b'torn' else [None]
        hits.append([name == said[0], name in said])
    return np.mean(hits, 0)


@pytest.mark.parametrize(('name', 'folder', 'images'), [
    ('imagenet-a', 'imagenet-a', 9), ('imagenet-r', 'imagenet-r', 9), ('imagenet-sketch', 'imagenet-sketch/sketch', 20),
    ('imagenet-v2', 'v2', 9)])
def test_each_is_measured_as_its_authors_do(measured, name, folder, images):
    """Right would be a third of them; over other classes or of another view it is not."""
    root, found = measured
    top1, top5 = plainly(root / folder, VIEW, lambda file: WNIDS[int(file.parent.name)] if name == 'imagenet-v2' else (
        file.parent.name), SETS.get(name, OUTPUTS))
    assert (found[name]['top1'], found[name]['top5']) == pytest.approx((top1, top5)) and 0.2 < top1 < top5 < 0.8
    assert found[name]['images'] == images and found[name]['bad_samples'] == (name == 'imagenet-a')
    assert found[name]['restricted_to'] == (200 if name in SETS else None)
    assert found[name]['path'] == str(root / folder)


def test_corruptions_by_severity(measured):
    """Shown whole: they are crops already."""
    root, found = measured
    table = found['imagenet-c']['corruptions']
    for folder, severities in CORRUPTIONS.items():
        expected = {str(severity): 1 - plainly(root / 'c' / folder / str(severity), WHOLE, lambda at: at.parent.name)[0]
                    for severity in range(1, severities + 1)}
        assert table[folder.split('/')[-1]]['errors'] == pytest.approx(expected)
        assert sorted(set(expected.values())) == pytest.approx([1 / 2, 2 / 3])
    assert found['imagenet-c']['images'] == 3 * (3 + 2 + 3 + 2 + 3) + (3 + 2 + 3 + 2) and found.keys() == {
        'imagenet-a', 'imagenet-r', 'imagenet-sketch', 'imagenet-v2', 'imagenet-c'}


def test_views_of_several_models_are_cropped_no_more():
    ten = EvalView(4, 5, views='ten_crop')
    both = robustness.uncropped(_Views([EvalView(4, 5, crop_ratio=0.5), ten]))
    assert both.views == [WHOLE, ten] and both.shape == _Views([VIEW, ten]).shape
    scales = EvalView(4, 5, scales=(4, 8))
    assert robustness.uncropped(scales) == scales


def test_mean_corruption_error_by_hand():
    alexnet = robustness._sets()['alexnet_errors']
    errors = {(name, severity): error * severity / 3 / 2 for name, error in alexnet.items() for severity in range(1, 6)}
    whole = robustness.corruption_errors(errors)
    assert whole['mean_corruption_error'] == pytest.approx(0.5) and whole['corruptions_counted'] == 15
    assert whole['corruptions']['fog']['error'] == pytest.approx(0.819324 / 2)
    part = {key: value for key, value in errors.items() if key != ('fog', 3) and key[0] in ('fog', 'snow')}
    found = robustness.corruption_errors(part | {('spatter', severity): 0.5 for severity in range(1, 6)})
    assert [row['corruption_error'] for row in found['corruptions'].values()] == [None, pytest.approx(0.5), None]
    assert (found['mean_corruption_error'], found['corruptions_counted']) == (pytest.approx(0.5), 1)
    none = robustness.corruption_errors({('fog', 1): 0.5})
    assert none['mean_corruption_error'] is None and none['corruptions_counted'] == 0


@pytest.mark.parametrize(('folder', 'classes', 'expected'), [
    ('x', SETS['imagenet-a'], 'imagenet-a'), ('y', SETS['imagenet-r'], 'imagenet-r'), ('x', WNIDS, 'imagenet'),
    ('ImageNet-Sketch', WNIDS, 'imagenet-sketch'), ('imagenet_r', SETS['imagenet-r'][:3], 'imagenet-r'),
    ('x', WNIDS[:10], 'imagenet'), ('imagenet-a', SETS['imagenet-a'][:3], 'imagenet-a'),
    ('x', ['5', '999'], 'imagenet-v2')])
def test_sets_are_told_by_what_they_hold(folder, classes, expected, tmp_path):
    for name in classes:
        (tmp_path / folder / name).mkdir(parents=True)
        (tmp_path / folder / name / '0.png').touch()
    (tmp_path / 'run' / 'checkpoints' / '7' / 'default').mkdir(parents=True)
    for where in (tmp_path / folder, tmp_path):
        assert [(one.name, one.path) for one in robustness.find(where)] == [(expected, tmp_path / folder)]


@pytest.mark.parametrize(('folder', 'classes', 'message'), [
    ('x', ['cats', 'dogs'], 'holds x. *$|x holds cats, dogs'), ('x', [], 'no set of images there'),
    ('x', ['999', '1000'], "not ImageNet's 0 to 999"), ('x', [WNIDS[0], 'cats'], 'beside others: cats'),
    ('x', SETS['imagenet-a'][:3], 'call the folder imagenet-a'),
    ('imagenet-a', [WNIDS[0], *SETS['imagenet-a']], f'classes that imagenet-a has not: {WNIDS[0]}'),
    ('c', ['blur/fog/1/n01440764', 'fog/1/n01440764'], 'the same corruption')])
def test_what_is_none_is_refused(folder, classes, message, tmp_path):
    (tmp_path / folder).mkdir()
    for name in classes:
        (tmp_path / folder / name).mkdir(parents=True)
        (tmp_path / folder / name / '0.png').touch()
    with pytest.raises(UserError, match=message):
        robustness.find(tmp_path / folder)


WORDS = list(class_names.imagenet().values())


@pytest.mark.parametrize('names', [(), OUTPUTS, WORDS, [words.split(',')[0].replace(' ', '_') for words in WORDS],
                                   [*map(str, range(1000))]], ids=['none', 'ids', 'words', 'first', 'numbers'])
def test_models_name_imagenets_classes_in_many_ways(names):
    """Two share 'crane', two 'maillot'."""
    wanted = [0, 134, 517, 638, 639, 999]
    expected = [(number + 500) % 1000 if names is OUTPUTS else number for number in wanted]
    assert list(imagenet.outputs(names, 1000, wanted)) == expected


def test_a_model_of_other_classes_is_refused(tmp_path):
    image_folder(tmp_path, {'imagenet-r/n01443537/0.png': image(0)})
    one, = robustness.find(tmp_path)
    for names, classes, message in (
            (['cats', 'dogs'], 2, "the model's are others: 'cats', 'dogs'"), ((), 10, '10 outputs without names'),
            (WNIDS[:10], 10, 'no output for 19. of the 200')):
        with pytest.raises(UserError, match=message):
            robustness.open_set(one, names, classes, exif=False)
    found = robustness.open_set(one, (), 1000, exif=False)
    assert json.dumps(found.outputs) == json.dumps(robustness._sets()['imagenet-r'])
