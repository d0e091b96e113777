"""Every recipe as one golden text, so that a changed default shows as a diff.

After a change that is meant: python tests/test_configs.py writes the texts anew.
"""

import importlib
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

from imagenet_jax import models, record  # noqa: E402

RECIPES = sorted(path.stem for path in (ROOT / 'configs').glob('*.py') if path.stem != '__init__')


def get_config(name):
    return importlib.import_module(f'configs.{name}').get_config()


def golden(name: str) -> Path:
    return ROOT / 'tests' / 'golden' / f'{name}.txt'


def text(name: str) -> str:
    return ''.join(f'{key}={value!r}\n' for key, value in record.flatten(get_config(name).to_dict()).items())


@pytest.mark.parametrize('name', RECIPES)
def test_recipe_is_as_it_was(name):
    assert text(name) == golden(name).read_text()


def test_every_golden_text_has_its_recipe():
    assert sorted(path.stem for path in (ROOT / 'tests' / 'golden').iterdir()) == RECIPES


@pytest.mark.parametrize('name', RECIPES)
def test_recipe_opens_with_its_command(name):
    doc = importlib.import_module(f'configs.{name}').__doc__
    if name != 'common':
        assert f'python main.py --config configs/{name}.py --workdir ' in doc


@pytest.mark.parametrize('name', RECIPES)
def test_misspelt_option_is_an_error(name):
    with pytest.raises(AttributeError, match='learning_rate'):
        get_config(name).optimizer.learning_rat = 1.0


def test_every_model_option_is_read_by_a_model():
    read = {option for name in models.names() for option in models.option_names(name)}
    assert set(get_config('common').model) - {'name'} <= read


def test_imagenet_recipes_name_their_model():
    for name in models.names():
        if name in RECIPES:
            assert get_config(name).model.name == name
        else:  # RegNets of other sizes have the recipes of those that have one
            assert name.endswith('_cifar') or name.startswith('regnet')


if __name__ == '__main__':
    golden('x').parent.mkdir(exist_ok=True)
    for recipe in RECIPES:
        golden(recipe).write_text(text(recipe))
