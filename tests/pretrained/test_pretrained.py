"""Weights from elsewhere: read with what they say of themselves, for `weights import` and for `load` alike."""

import json
import shutil

import numpy as np
import pytest
from fixtures_commands import called
from fixtures_images import jpeg, scene
from fixtures_snapshots import RESNET50, TINY, snapshot
from fixtures_weights import assert_same, random_variables
from PIL import Image

import imagenet_jax
from imagenet_jax import models, pretrained, record, trained
from imagenet_jax.checkpoint import load_variables, save_variables
from imagenet_jax.errors import UserError
from imagenet_jax.images.eval_view import EvalView


@pytest.fixture(scope='module')
def tiny(tmp_path_factory):
    return snapshot(tmp_path_factory.mktemp('tiny'))


@pytest.fixture
def copied(tiny, tmp_path):
    """The snapshot, with a config.json of its own; None for none."""
    def copy(config):
        folder = shutil.copytree(tiny[0], tmp_path / 'copied')
        (folder / 'config.json').unlink()
        if config:
            (folder / 'config.json').write_text(json.dumps(config))
        return folder
    return copy


def test_a_snapshot_needs_no_option(tiny, tmp_path, monkeypatch, capsys):
    """Imported or loaded at once, it is the same model."""
    folder, variables = tiny
    code, out = called(monkeypatch, capsys, 'weights', 'import', '--input', folder, '--output', tmp_path / 'import')
    assert code is None and 'a resnet8_cifar; it sees 32 pixels out of 40, bicubic; its classes are ant, bée' in out
    at_once, kept = imagenet_jax.load(folder), imagenet_jax.load(tmp_path / 'import')
    for found in (at_once, kept):
        assert_same(found.variables, {'params': variables['params'], 'batch_stats': variables['batch_stats']})
        assert (found.view.size, found.view.shorter, found.view.interpolation) == (32, 40, 'bicubic')
        assert found.class_names == ('ant', 'bée', 'cat') and found.members[0].normalize.std == (0.25, 0.25, 0.25)
    np.testing.assert_array_equal(at_once.predict([jpeg(1)]), kept.predict([jpeg(1)]))


def test_what_is_found_is_told(tiny, caplog):
    caplog.set_level('INFO', 'imagenet_jax')
    assert trained.load(tiny[0] / 'model.safetensors').class_names == ('ant', 'bée', 'cat')
    assert 'config.json: resnet8_cifar; 32 pixels, crop 0.8, bicubic; mean 0.5, 0.5, 0.5' in caplog.text


def test_in_the_hubs_cache(hub, tiny):
    """By name alone; nothing is downloaded."""
    found = trained.load('hf:owner/tiny.a1')
    assert found.class_names == ('ant', 'bée', 'cat') and found.entry['run']['weights']['revision'] == hub.name


def test_what_is_given_holds(tiny):
    found = pretrained.read(tiny[0], view={'size': 16, 'interpolation': 'bilinear'},
                            normalize={'mean': (0.1, 0.2, 0.3)}, class_names=['x', 'y', 'z'])
    assert (found.view.size, found.view.shorter, found.view.interpolation) == (16, 20, 'bilinear')
    assert found.entry['normalize'] == {'mean': (0.1, 0.2, 0.3), 'std': (0.25, 0.25, 0.25)}
    assert found.entry['run']['class_names'] == ['x', 'y', 'z']
    assert pretrained.read(tiny[0], view={'resize': 36}).view.shorter == 36


def test_another_model_than_it_says_is_told(tiny, caplog):
    with pytest.raises(UserError, match='does not fit CifarResNet'):
        pretrained.read(tiny[0], model={'name': 'resnet20_cifar'})
    assert 'config.json says resnet8_cifar, and --model is resnet20_cifar, which is taken' in caplog.text


@pytest.mark.parametrize(('config', 'message'), [
    (None, r'which model it is of, --model NAME .* does; its arrays look like resnet8_cifar with 3 classes'),
    (TINY | {'architecture': 'resnet8_gn'}, "config.json: unknown architecture 'resnet8_gn'; .* --model NAME"),
    (TINY | {'pretrained_cfg': {'interpolation': 'lanczos'}}, "config.json: unknown eval.interpolation 'lanczos'"),
    (TINY | {'pretrained_cfg': {'crop_pct': 3}}, 'config.json: config.eval.crop_ratio=3'),
    (TINY | {'pretrained_cfg': {'std': [0, 0, 0]}}, 'config.json: config.normalize.std'),
    (TINY | {'label_names': None, 'num_classes': 4}, r'its head has 3 classes, the model 4')])
def test_what_is_refused(copied, config, message):
    with pytest.raises(UserError, match=message):
        pretrained.read(copied(config))


def test_what_it_lacks_can_be_given(copied):
    folder = copied(TINY | {'architecture': 'resnet8_gn'})
    assert trained.load(folder, model='resnet8_cifar').class_names == ('ant', 'bée', 'cat')
    (folder / 'config.json').unlink()
    found = trained.load(folder, model={'name': 'resnet8_cifar', 'num_classes': 3})
    assert found.class_names == () and found.view.size == found.view.shorter == 32


@pytest.mark.parametrize(('source', 'options', 'message'), [
    ('tiny', {'ema': True}, 'holds no averaged weights'),
    ('absent.pth', {}, 'no such file'), ('absent', {}, 'must be the folder of a run'),
    ('run', {'model': 'resnet8_cifar'}, 'is no file of weights')])
def test_load_refuses(tiny, tmp_path, source, options, message):
    (tmp_path / 'run' / 'checkpoints').mkdir(parents=True)
    with pytest.raises(UserError, match=message):
        trained.load(tiny[0] if source == 'tiny' else tmp_path / source, **options)


def test_torchvisions_file(monkeypatch, tmp_path):
    """Its name says the model, the view and that the classes are ImageNet's."""
    monkeypatch.setattr(pretrained.weight_files, 'read', lambda path: {})
    monkeypatch.setattr(pretrained.weights, 'from_torch', lambda model, state_dict, ema: {})
    for name, shorter in (('resnet50-0676ba61.pth', 256), ('resnet50-11ad3fa6.pth', 232)):
        (tmp_path / name).write_bytes(b'')
        found = pretrained.read(tmp_path / name)
        assert (found.entry['model']['name'], found.view) == ('resnet50', EvalView(224, shorter, 'bilinear'))
        assert found.entry['run']['class_names'][0] == 'n01440764'
        assert pretrained.read(tmp_path / name, view={'size': 448}).view.shorter == 2 * shorter


def test_a_run_is_copied_under_another_view(tmp_path, monkeypatch, capsys):
    """All that it knows comes along, the loss and the turning of images too."""
    run, model = tmp_path / 'run', {'name': 'resnet8_cifar', 'num_classes': 2}
    save_variables(run, random_variables(models.create(**model)))
    record.write(run, {'model': model | {'dtype': None}, 'loss': {'name': 'sigmoid'}, 'data': {'exif': True},
                       'eval': {'size': 32, 'resize': 32}, 'run': {'class_names': ['ant', 'bee'], 'dtype': 'float16'}})
    code, out = called(monkeypatch, capsys, 'weights', 'import', '--input', run, '--output', tmp_path / 'copy',
                       '--size', 48, '--best')
    assert code is None and 'it sees 48 pixels out of 48' in out
    before, after = trained.load(run), trained.load(tmp_path / 'copy')
    assert_same(load_variables(tmp_path / 'copy')[1], before.variables)
    assert (after.model, after.task, after.class_names, after.exif) == (
        before.model, before.task, ('ant', 'bee'), True)
    assert after.view.size == 48 and record.read(tmp_path / 'copy')['run']['weights']['best']
    with pytest.raises(UserError, match='is of resnet8_cifar, and --model is resnet18: leave --model out'):
        pretrained.read(run, model={'name': 'resnet18'})


def test_other_jax_code(tmp_path):
    (tmp_path / 'flax_model.msgpack').write_bytes(b'')
    (tmp_path / 'orbax').mkdir()
    (tmp_path / 'orbax' / '_METADATA').write_bytes(b'')
    for source in (tmp_path, tmp_path / 'flax_model.msgpack', tmp_path / 'orbax'):
        with pytest.raises(UserError, match='is a checkpoint of other JAX code'):
            trained.load(source, model='resnet18')


def test_a_config_of_timms_is_no_run(tmp_path):
    """A snapshot without weights is named as what it is."""
    (tmp_path / 'config.json').write_text(json.dumps(RESNET50))
    with pytest.raises(UserError, match='must be the folder of a run'):
        trained.load(tmp_path)


@pytest.mark.slow
@pytest.mark.numerics
@pytest.mark.parametrize('name', ['resnet18.a1_in1k', 'mobilenetv3_small_100.lamb_in1k', 'mobilenetv2_100.ra_in1k'])
def test_answers_are_timms(name, tmp_path, monkeypatch):
    """From a photograph to probabilities: timm's own snapshot, transform and model."""
    reference = pytest.importorskip('torch_reference')
    reference.torchvision_models()
    timm, constants = pytest.importorskip('timm'), pytest.importorskip('huggingface_hub.constants')
    model = reference.randomise(timm.create_model(name))
    monkeypatch.setattr(constants, 'HF_HUB_OFFLINE', True)
    monkeypatch.setattr(constants, 'HF_HUB_CACHE', str(tmp_path))
    repository, revision = tmp_path / f'models--timm--{name}', '0123456789abcdef0123456789abcdef01234567'
    (repository / 'refs').mkdir(parents=True)
    (repository / 'refs' / 'main').write_text(revision)
    (repository / 'snapshots').mkdir()
    timm.models._hub.save_for_hf(model, str(repository / 'snapshots' / revision), safe_serialization=True)
    found = imagenet_jax.load(f'hf:timm/{name}')
    config = timm.data.resolve_data_config({}, model=model, use_test_size=True)
    image = Image.fromarray(scene(300, 400))
    with reference.torch.no_grad():
        expected = model(timm.data.create_transform(**config)(image)[None]).softmax(-1).numpy()
    np.testing.assert_allclose(found.predict([image]), expected, atol=5e-3 * expected.max())
