"""ImageNet's sets of harder images, found and measured: against a plain loop over the files."""

import json
from functools import partial

import flax.linen as nn
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
from imagenet_jax.use import robustness
from imagenet_jax.workers import Workers

WNIDS = list(class_names.imagenet())
SETS = {name: [WNIDS[number] for number in robustness._sets()[name]] for name in ('imagenet-a', 'imagenet-r')}
WEIGHTS = np.random.default_rng(0).normal(size=(4 * 4 * 3, 1000)).astype(np.float32)
OUTPUTS = [*WNIDS[500:], *WNIDS[:500]]  # a model that has them in an order of its own


class Projection(nn.Module):
    """A model without variables."""

    @nn.compact
    def __call__(self, images, train):
        return images.reshape(len(images), -1) @ jnp.asarray(WEIGHTS)


def normalize(images):
    return images / np.float32(255)


def image(seed):
    return encode(scene(5, 6, seed), 'PNG')


def on_disk(root):
    """Some images of each set, one of them unreadable."""
    files = {f'imagenet-{kind}/{wnid}/{i}.png': image(i) for kind in 'ar'
             for i, wnid in enumerate(SETS[f'imagenet-{kind}'][:9])}
    files |= {f'imagenet-sketch/sketch/{wnid}/{i}.png': image(i) for i, wnid in enumerate(WNIDS[40:60])}
    files |= {f'v2/{number}/{number}.png': image(number) for number in (999, 7, 10, 100, 55)}
    for name, severities in (('noise/gaussian_noise', 5), ('fog', 5), ('blur/zoom_blur', 4), ('extra/spatter', 5)):
        files |= {f'c/{name}/{severity}/{wnid}/{severity}.png': image(severity * len(name))
                  for severity in range(1, severities + 1) for wnid in WNIDS[::300]}
    files['imagenet-a/README.txt'] = files['notes/README.txt'] = b'text'
    image_folder(root, files)
    torn = root / 'imagenet-a' / SETS['imagenet-a'][3] / '3.png'
    torn.write_bytes(b'torn')
    return root


@pytest.fixture(scope='module')
def measured(tmp_path_factory):
    """(the folder, the sets by name)"""
    root = on_disk(tmp_path_factory.mktemp('sets'))
    opened = [robustness.open_set(one, OUTPUTS, 1000, exif=False) for one in robustness.find(root)]
    evaluator = Evaluator(
        model=Projection(), normalize=normalize, task=Softmax(), view=EvalView(4, 5), source=None, batch_size=8,
        workers=Workers(), bad_samples=partial(BadSamples, max_bad_fraction=1), mesh=step.make_mesh(), remedy='')
    found = robustness.measure(opened, evaluator, {}, lambda name, each: iter, EvalView(4, 4))
    return root, {one['set']: one for one in found}


def plainly(folder, view, name_of, outputs=OUTPUTS):
    """Top-1 and top-5 of every image below class folders, one by one."""
    hits = []
    for file in sorted(folder.rglob('*.png')):
        if file.read_bytes() == b'torn':
            hits.append([False, False])
            continue
        logits = (normalize(view(file.read_bytes())).reshape(-1) @ WEIGHTS)[[OUTPUTS.index(name) for name in outputs]]
        said = [outputs[at] for at in np.argsort(-logits)[:5]]
        hits.append([name_of(file) == said[0], name_of(file) in said])
    return np.mean(hits, 0)


@pytest.mark.parametrize(('name', 'folder', 'images'), [
    ('imagenet-a', 'imagenet-a', 9), ('imagenet-r', 'imagenet-r', 9), ('imagenet-sketch', 'imagenet-sketch/sketch', 20),
    ('imagenet-v2', 'v2', 5)])
def test_each_is_measured_as_its_authors_do(measured, name, folder, images):
    root, found = measured
    def name_of(file):
        return WNIDS[int(file.parent.name)] if name == 'imagenet-v2' else file.parent.name
    top1, top5 = plainly(root / folder, EvalView(4, 5), name_of, SETS.get(name, OUTPUTS))
    assert (found[name]['top1'], found[name]['top5']) == pytest.approx((top1, top5))
    assert found[name]['images'] == images and found[name]['bad_samples'] == (name == 'imagenet-a')
    assert found[name]['restricted_to'] == (200 if name in SETS else None)
    assert found[name]['path'] == str(root / folder)


def test_corruptions_by_severity(measured):
    """Shown whole: they are crops already."""
    root, found = measured
    table = found['imagenet-c']['corruptions']
    for name, folder in (('gaussian_noise', 'noise/gaussian_noise'), ('zoom_blur', 'blur/zoom_blur'), ('fog', 'fog'),
                         ('spatter', 'extra/spatter')):
        severities = range(1, 5 if name == 'zoom_blur' else 6)
        assert table[name]['errors'] == pytest.approx({str(severity): 1 - plainly(
            root / 'c' / folder / str(severity), EvalView(4, 4), lambda file: file.parent.name)[0]
            for severity in severities})
    assert found['imagenet-c']['images'] == (5 + 5 + 4 + 5) * 4 and found.keys() == {
        'imagenet-a', 'imagenet-r', 'imagenet-sketch', 'imagenet-v2', 'imagenet-c'}


def test_restricting_the_answers_changes_them(measured):
    """Else the tests above could not tell."""
    root, found = measured
    view, rows = EvalView(4, 5), []
    for file in sorted((root / 'imagenet-r').rglob('*.png')):
        logits = normalize(view(file.read_bytes())).reshape(-1) @ WEIGHTS
        rows.append(OUTPUTS[logits.argmax()] in SETS['imagenet-r'])
    assert not all(rows) and found['imagenet-r']['loss'] < 20


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
    assert np.mean(list(alexnet.values())) == pytest.approx(0.7918, abs=1e-3)
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
    with pytest.raises(UserError, match=message):
        robustness.find(tmp_path / folder)


def test_a_model_of_other_classes_is_refused(tmp_path):
    image_folder(tmp_path, {'imagenet-r/n01443537/0.png': image(0)})
    one, = robustness.find(tmp_path)
    for names, classes, message in (
            (['ant', 'bee'], 2, "the model's are others: 'ant', 'bee'"), ((), 10, '10 outputs without names'),
            (WNIDS[:10], 10, 'no output for 19. of the 200')):
        with pytest.raises(UserError, match=message):
            robustness.open_set(one, names, classes, exif=False)
    found = robustness.open_set(one, (), 1000, exif=False)
    assert json.dumps(found.outputs) == json.dumps(robustness._sets()['imagenet-r'])
