"""Features of a split: those of the model's images one by one, whatever the batch; and the command."""

import dataclasses
import json

import flax
import jax
import numpy as np
import pytest
from fixtures_commands import called
from fixtures_images import class_tree, jpeg
from fixtures_trained import imported

import imagenet_jax
from imagenet_jax import sources
from imagenet_jax.errors import UserError
from imagenet_jax.images.eval_view import EvalView
from imagenet_jax.input_pipeline import BadSamples
from imagenet_jax.use import feature_table, probes
from imagenet_jax.use.classifier import Classifier
from imagenet_jax.use.features import Extractor


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    return imported(tmp_path_factory.mktemp('model'), eval={'size': 16, 'resize': 16})


@pytest.fixture(scope='module')
def model(folder):
    return imagenet_jax.load(folder)


@pytest.fixture(scope='module')
def data(tmp_path_factory):
    """33 images to learn from, 21 to measure on: of these one cannot be read."""
    root = class_tree(tmp_path_factory.mktemp('data'), 33)
    for number in range(21):
        name = 'ant' if number < 7 else 'bee' if number < 14 else 'cat'
        file = root / 'val' / name / f'é{number:02}.jpg'
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b'\xff\xd8torn' if number == 9 else jpeg(100 + number))
    return root


def extracted(extractor, source, **changes):
    return feature_table.joined(extractor(source, BadSamples(source, **changes)), len(source))


@pytest.mark.parametrize(('stage', 'batch_size'), [(None, 8), ('layer2', 64)])
def test_each_image_once_whatever_the_batch(model, data, stage, batch_size, caplog):
    source = sources.create('folder', str(data), 'val')
    found = extracted(Extractor(classifier=model, stage=stage, batch_size=batch_size), source)
    kept = [i for i in range(21) if i != 9]
    assert found.keys == [source.key(i) for i in kept]
    np.testing.assert_array_equal(found.labels, source.labels[kept])
    np.testing.assert_allclose(found.values, model.features([source.image(i) for i in kept], stage), rtol=1e-4,
                               atol=1e-5)
    assert found.values.dtype == np.float32 and found.class_names == ('ant', 'bee', 'cat')
    assert 'bad sample 1: bee/é09.jpg cannot be read' in caplog.text
    with pytest.raises(UserError, match='1 of 21 samples cannot be read'):
        extracted(Extractor(classifier=model), source, max_bad_fraction=0.0)


def test_what_is_not_finite_is_left_out_or_refused(model, data, caplog):
    source, only = sources.create('folder', str(data), 'train'), model.members[0]

    def extractor(bias):
        params = flax.traverse_util.flatten_dict(only.variables['params'], sep='/')
        params |= {'layer3/0/bn2/bias': np.full_like(params['layer3/0/bn2/bias'], bias)}
        variables = only.variables | {'params': flax.traverse_util.unflatten_dict(params, sep='/')}
        return Extractor(classifier=Classifier(dataclasses.replace(only, variables=variables)))
    with pytest.raises(UserError, match='no image has features'):
        extracted(extractor(3e38), source)  # the sum over pixels is too much
    assert 'FEATURES ARE NOT FINITE, those of 33 of 33 images' in caplog.text
    with pytest.raises(UserError, match=r'1 arrays of the model are not finite, .*: params/layer3/0/bn2/bias'):
        extractor(np.nan)


def test_origin_tells_weights_stages_and_views_apart(model):
    def origin(stage=None, **changes):
        return Extractor(classifier=Classifier(dataclasses.replace(model.members[0], **changes)), stage=stage).origin
    other = jax.tree.map(lambda x: x + 1, model.variables)
    origins = [origin(), origin('layer1'), origin(variables=other), origin(view=EvalView(16, 20)), origin(exif=True)]
    assert len({*origins}) == 5 and origin() == origins[0]


def test_wrong_stage_or_models_are_refused_at_once(model):
    with pytest.raises(UserError, match='has no stage'):
        Extractor(classifier=model, stage='layer9')
    with pytest.raises(UserError, match='2 models'):
        Extractor(classifier=Classifier(*model.members * 2))


def test_the_command_measures_and_writes(folder, data, tmp_path, monkeypatch, capsys):
    """In one go, and from files made before: the same numbers."""
    where = '--checkpoint', folder, '--format', 'folder', '--path', data
    files = [tmp_path / 'train.npz', tmp_path / 'val.parquet']
    probe = '--knn', '--k', 3, '--linear-probe', '--regularization', '0.01,1', '--json'
    code, out = called(monkeypatch, capsys, 'features', *where, '--split', 'val', '--output', files[1], *probe)
    found = json.loads(out)
    assert not code and (found['images'], found['left_out'], found['train_images']) == (21, 1, 33)
    code, out = called(monkeypatch, capsys, 'features', *where, '--split', 'train', '--output', files[0])
    assert not code and '33 images, 0 left out; features of 33 in' in out
    code, out = called(monkeypatch, capsys, 'features', '--train', files[0], '--test', files[1], *probe)
    again = json.loads(out)
    assert not code and again == {name: found[name] for name in again} | {'images': 20}
    train, test = map(feature_table.read, files)
    assert again['knn_weighted_top1'] == probes.knn(train, test, 3)['knn_weighted_top1']


@pytest.mark.parametrize(('arguments', 'message'), [
    ('', 'whose features?'), ('--checkpoint x', 'what are the features for?'), ('--train a.npz', 'go together'),
    ('--train a.npz --test b.npz', 'what is to be measured'),
    ('--train a.npz --test b.npz --knn --checkpoint x --stage y', '--checkpoint, --stage: not for --train'),
    ('--train a.npz --test ./a.npz --knn', 'one file'), ('--checkpoint x --k 3 --output x.npz', '--k is for --knn'),
    ('--checkpoint x --output x.csv', r'ends in .npz or .parquet'), ('--checkpoint x --output /proc/x.npz', 'cannot'),
    ('--checkpoint x --knn --views ten_crop --scales 32', '--views, --scales: features are of the centre crop')])
def test_what_goes_not_together_is_refused(arguments, message, monkeypatch, capsys):
    code, _ = called(monkeypatch, capsys, 'features', *arguments.split())
    assert code.startswith('error: ') and message in code
