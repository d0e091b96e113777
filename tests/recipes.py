"""Every recipe of configs/, and every model or variant that each takes."""

import importlib
from pathlib import Path
from types import ModuleType

from ml_collections import ConfigDict

ROOT = Path(__file__).parent.parent
RECIPES = sorted(path.stem for path in (ROOT / 'configs').glob('*.py') if path.stem not in ('__init__', 'common'))


def module(recipe: str) -> ModuleType:
    return importlib.import_module(f'configs.{recipe}')


def get_config(pair: str) -> ConfigDict:
    """'digits.py' or 'resnet50.py:resnet101', as --config takes it behind configs/."""
    path, *argument = pair.split(':')
    return module(path.removesuffix('.py')).get_config(*argument)


def arguments(recipe: str) -> tuple[str, ...]:
    """What it takes; the first is what it takes where it is given nothing."""
    return getattr(module(recipe), 'MODELS', tuple(getattr(module(recipe), 'VARIANTS', ())))


def pairs() -> list[str]:
    """Each recipe as it is, then with each other argument that it takes."""
    return [pair for recipe in RECIPES for pair in
            (f'{recipe}.py', *(f'{recipe}.py:{argument}' for argument in arguments(recipe)[1:]))]
