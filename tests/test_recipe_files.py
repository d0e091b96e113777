"""Recipes by name and by path, from any folder; and training without one."""

import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from recipes import RECIPES, ROOT
from runs import environment

from imagenet_jax.command_line import recipe_files, recipes, without_recipe
from imagenet_jax.errors import UserError


def test_names_are_the_recipes():
    assert recipe_files.names() == RECIPES


@pytest.mark.parametrize('given', ['digits', 'digits.py', 'configs/digits.py', str(ROOT / 'configs' / 'digits.py')])
def test_a_recipe_is_found_from_anywhere(given, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert recipe_files.find(given) == ROOT / 'configs' / 'digits.py'
    assert recipes.make(given, ['--config.epochs=3']).epochs == 3


def test_a_file_of_that_name_goes_before(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path('digits.py').write_text('from configs import digits\n\n\ndef get_config(model="a"):\n'
                                 '    config = digits.get_config()\n    config.message = model\n    return config\n')
    assert recipes.make('digits.py:b', []).message == 'b' and recipes.make('digits', []).message == 'quick start'


@pytest.mark.parametrize('given', ['resnet101', 'configs/resnet101.py'])
def test_a_model_stands_for_its_recipe(given, caplog):
    with caplog.at_level('INFO', 'imagenet_jax'):
        assert recipes.make(given, []).model.name == 'resnet101'
    assert f'{given} is a model: its recipe is configs/resnet50.py:resnet101' in caplog.text


def test_a_name_takes_its_argument():
    assert recipes.make('resnet50:resnet18', []).model.name == 'resnet18'
    assert recipes.make('nvidia_resnet50:250', []).epochs == 250
    assert recipes.arguments('vgg16')[:2] == ('vgg16', 'vgg11')


@pytest.mark.parametrize(('given', 'message'), [
    ('resnet5', r"^unknown recipe 'resnet5'; did you mean resnet50 or"),
    ('resnet101:resnet50', r'^no recipe resnet101; resnet101 is trained with --config configs/resnet50\.py:resnet101$'),
    ('configs/digit.py', r"^unknown recipe 'configs/digit\.py'; did you mean configs/digits\.py"),
    ('far/digits.py', r'^no file far/digits\.py; --config digits is the recipe of that name$'),
    ('far/x.py', r'^no recipe far/x\.py; .* holds a\.py, notes$'),
    ('notes', 'notes is no recipe, which is a file of P'), ('empty.py', 'empty.py is no recipe: it defines no'),
    ('a.py', r'^a\.py cannot be read as a recipe: SyntaxError: ')])
def test_what_is_no_recipe(given, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path('a.py').write_text('def get_config(:\n')
    Path('notes').touch()
    if given == 'empty.py':
        Path(given).touch()
    with pytest.raises(UserError, match=message):
        recipes.make(given, [])


# --- without a recipe


@pytest.fixture
def photos(tmp_path):
    """Three classes, two splits."""
    for split, count in (('train', 30), ('val', 2)):
        for name in 'abc':
            folder = tmp_path / split / name
            folder.mkdir(parents=True)
            for i in range(count):
                cv2.imwrite(str(folder / f'{i}.png'), np.full((9, 9, 3), i, np.uint8))
    return tmp_path


def looked_at(model, path, *given, **changes):
    config = without_recipe.get_config(model)
    config.update_from_flattened_dict(changes)
    without_recipe.look_at_data(config, path, given)
    return config


def test_data_says_what_no_recipe_does(photos):
    config = looked_at('resnet18', str(photos))
    assert (config.model.name, config.model.num_classes) == ('resnet18', 3)
    assert (config.data.format, config.data.path, config.data.eval_split) == ('folder', str(photos), 'val')
    assert (config.augment.size, config.eval.size, config.batch_size) == (224, 224, 8)
    assert (config.optimizer.learning_rate, config.schedule.base_batch_size) == (0.4, 1024)
    small = looked_at('resnet20_cifar', str(photos))
    assert (small.augment.size, small.eval.size, small.eval.resize) == (32, 32, 32)


def test_the_command_line_goes_before_the_data(photos):
    config = looked_at('resnet18', str(photos), 'batch_size', 'model.num_classes', batch_size=16,
                       **{'model.num_classes': 7})
    assert (config.batch_size, config.model.num_classes) == (16, 7)


def test_other_names_of_splits_are_found(photos):
    (photos / 'val').rename(photos / 'test')
    assert looked_at('resnet18', str(photos)).data.eval_split == 'test'


@pytest.mark.parametrize(('argv', 'message'), [
    (['--model', 'resnet18', '--config', 'digits'], 'give --config FILE:MODEL, or --model and --data'),
    (['--data=x', '--config=digits'], 'where a recipe is given it is --config.data.path=DIR')])
def test_what_does_not_go_together(argv, message):
    with pytest.raises(UserError, match=message):
        without_recipe.with_config(['main.py', *argv])


def test_data_that_is_not_there(photos):
    with pytest.raises(UserError, match=rf'^no data {photos}/trian; did you mean {photos}/train\?$'):
        looked_at('resnet18', str(photos / 'trian'))
    with pytest.raises(UserError, match='which images'):
        looked_at('resnet18', None)


@pytest.mark.slow
def test_a_model_is_trained_without_a_recipe(photos):
    """The whole way, from another folder."""
    done = subprocess.run(
        [sys.executable, str(ROOT / 'main.py'), '--model', 'resnet8_cifar', '--data', '.', '--workdir', 'run',
         '--config.augment.size=8', '--config.eval.size=8', '--config.eval.resize=8', '--config.steps=2'],
        cwd=photos, env=environment(), text=True, capture_output=True, timeout=120)
    assert done.returncode == 0 and 'no recipe, so: resnet8_cifar for 3 classes, 8 pixels' in done.stderr, done.stderr
    assert 'done: ' in done.stdout and (photos / 'run' / 'config.json').exists()
