"""timm's config.json: its model, view and class names as timm itself understands them."""

import json

import pytest
from fixtures_snapshots import RESNET50, TINY

from imagenet_jax import catalog, class_names, models
from imagenet_jax.errors import UserError
from imagenet_jax.images.eval_view import EvalView
from imagenet_jax.pretrained import hub_config, import_view


def described(tmp_path, config, given=()):
    path = tmp_path / 'config.json'
    path.write_text(config if isinstance(config, str) else json.dumps(config))
    return hub_config.described(path, given)


def changed(config=RESNET50, **fields):
    return config | {'pretrained_cfg': config['pretrained_cfg'] | fields}


def test_the_form_that_timm_writes(tmp_path):
    found = described(tmp_path, RESNET50)
    assert found.model == {'name': 'resnet50'} and found.num_classes == 1000
    assert found.eval == {'size': 288, 'crop_ratio': 1.0, 'interpolation': 'bicubic'}
    assert found.normalize == {'mean': (0.485, 0.456, 0.406), 'std': (0.229, 0.224, 0.225)}
    assert found.class_names == class_names.of_published(1000)
    assert found.title == 'resnet50.a1_in1k' and found.origin == {'license': 'apache-2.0', 'tag': 'a1_in1k'}


def test_the_form_of_earlier_versions(tmp_path):
    flat = {'architecture': 'resnet50d', 'labels': ['b', 'a'], 'num_classes': 2, 'input_size': [3, 256, 256],
            'crop_pct': 0.94, 'interpolation': 'bilinear', 'mean': [0.5, 0.5, 0.5], 'std': [0.5, 0.5, 0.5],
            'test_input_size': None}
    found = described(tmp_path, flat)
    assert found.model == {'name': 'resnet50d'} and (found.num_classes, found.class_names) == (2, ('b', 'a'))
    assert found.eval == {'size': 256, 'crop_ratio': 0.94, 'interpolation': 'bilinear'}


@pytest.mark.parametrize(('architecture', 'model'), [
    ('mobilenetv2_140', {'name': 'mobilenet_v2', 'width': 1.4}), ('resnetv2_50', {'name': 'resnet50v2'}),
    ('mobilenetv1_100', {'name': 'mobilenet_v1'}), ('mobilenetv3_large_100', {'name': 'mobilenet_v3_large'})])
def test_names_that_differ(tmp_path, architecture, model):
    assert described(tmp_path, RESNET50 | {'architecture': architecture}).model == model
    models.create(**model)


@pytest.mark.parametrize('names', [
    {'0': 'ant', '2': 'cat'}, {'2': 'cat', '1': '1', '0': 'ant'}, ['ant', 1, 'cat']])
def test_label_names(tmp_path, names):
    """A dict by number may have gaps."""
    assert described(tmp_path, TINY | {'label_names': names}).class_names == ('ant', '1', 'cat')


@pytest.mark.parametrize('names', [['ant'], {'ant': 0}, {'0': 'ant', '3': 'cat'}, 'ant'])
def test_label_names_of_other_classes_are_passed_over(tmp_path, names, caplog):
    assert described(tmp_path, TINY | {'label_names': names}).class_names == ()
    assert 'are passed over' in caplog.text


def test_a_head_that_is_not_imagenets_has_no_names(tmp_path):
    assert described(tmp_path, changed(num_classes=11821) | {'num_classes': 11821}).class_names == ()


@pytest.mark.parametrize(('config', 'message'), [
    ('{', r'config\.json cannot be read: JSONDecodeError'), ('[]', 'must be an object'),
    (changed(input_size='x'), r"pretrained_cfg\.input_size='x' must be a tuple of 3"),
    (changed(num_classes='x') | {'num_classes': 'x'}, 'num_classes'),
    (RESNET50 | {'pretrained_cfg': 3}, 'pretrained_cfg must be an object'),
    (changed(test_input_size=[1, 28, 28]), 'images of 1 channels'),
    (changed(test_input_size=[3, 256, 128]), 'images of 256 x 128 pixels, .* --size'),
    (changed(crop_mode='squash'), "crop_mode 'squash', .* --views center"),
    ({'architectures': ['ResNetForImageClassification'], 'model_type': 'resnet', 'id2label': {'0': 'a'}},
     'is of ResNetForImageClassification of transformers')])
def test_what_is_refused(tmp_path, config, message):
    with pytest.raises(UserError, match=message):
        described(tmp_path, config)


def test_what_is_given_need_not_be_a_view_of_ours(tmp_path):
    assert described(tmp_path, changed(crop_mode='border', test_input_size=[3, 256, 128]), ('views', 'size'))


@pytest.mark.parametrize(('config', 'why'), [
    (RESNET50 | {'architecture': 'resnet50_gn'}, "unknown architecture 'resnet50_gn'; did you mean resnet50"),
    (RESNET50 | {'model_args': {'global_pool': 'max', 'drop_rate': 0.1}}, "made with global_pool='max' of timm")])
def test_models_that_are_not_here(tmp_path, config, why):
    found = described(tmp_path, config)
    assert found.model == {} and why in found.stranger


def test_a_config_of_no_model_is_passed_over(tmp_path):
    assert described(tmp_path, {'some': 'thing'}) is None
    assert hub_config.described(tmp_path / 'absent' / 'config.json', ()) is None


def timm():
    torch_reference = pytest.importorskip('torch_reference')
    torch_reference.torchvision_models()  # which timm imports
    return pytest.importorskip('timm')


@pytest.mark.slow
def test_every_view_is_timms(tmp_path):
    """Of all published weights of the models that are here: its own files of configuration, its own transform."""
    library = timm()
    import torch
    from timm.data import create_transform, resolve_data_config
    from timm.models import get_pretrained_cfg, list_pretrained
    from timm.models._hub import save_config_for_hf
    known = {*hub_config.NAMES, *catalog.sizes()} & set(library.list_models())
    tags = [tag for name in sorted(known) for tag in list_pretrained(name)]
    assert len(tags) > 140
    for tag in tags:
        published = get_pretrained_cfg(tag).to_dict()
        file = tmp_path / 'config.json'
        with torch.device('meta'):
            save_config_for_hf(library.create_model(tag), str(file))
        found = hub_config.described(file, ())
        theirs = resolve_data_config({}, pretrained_cfg=json.loads(file.read_text())['pretrained_cfg'],
                                     use_test_size=True)
        resize, crop, *_ = create_transform(**theirs).transforms
        view = EvalView(**import_view(found.model['name'], found.eval, {}))
        assert (view.shorter, (view.size, view.size)) == (resize.size, tuple(crop.size)), tag
        assert view.interpolation == resize.interpolation.value == theirs['interpolation'], tag
        assert found.normalize == {'mean': tuple(theirs['mean']), 'std': tuple(theirs['std'])}, tag
        assert found.num_classes == published['num_classes'] and found.title == tag
