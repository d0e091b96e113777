"""The files of recipes: where --config finds one, and how it is read."""

import importlib
import importlib.util
import logging
import os
import re
import sys
from pathlib import Path
from types import ModuleType

import imagenet_jax
from imagenet_jax import catalog
from imagenet_jax.errors import UserError, beside, expanded, first_line, unknown

log = logging.getLogger(__name__)

# The recipes of this project: in a checkout a link to its configs/, in what was installed the files themselves.
HOME = (Path(imagenet_jax.__file__).parent / 'configs').resolve()


def names() -> list[str]:
    """Of this project's recipes, as --config takes them."""
    return sorted(path.stem for path in HOME.glob('*.py') if path.stem not in ('__init__', 'common'))


def resolved(value: str) -> str:
    """FILE or FILE:ARGUMENT, of a name or path before the colon; the name of a model alone stands for its recipe.

    Raises:
      UserError: as `find`.
    """
    given, *argument = value.split(':', 1)
    try:
        path = find(given)
    except UserError:
        model = _name(given)
        if argument or model not in catalog.RECIPE_OF:
            raise
        path, argument = find(catalog.RECIPE_OF[model]), [model]
        log.info('%s is a model: its recipe is %s:%s', given, path, model)
    return ':'.join([str(path), *argument])


def _name(given: str) -> str:
    """NAME of a recipe of this project, given as it is or as configs/NAME.py; '' of another path."""
    ours = re.fullmatch(r'(?:configs/)?([\w-]+?)(?:\.py)?', given)
    return ours[1] if ours else ''


def find(given: str) -> Path:
    """The file that is meant by a recipe's name, or by a path; configs/NAME.py is known anywhere.

    Raises:
      UserError: there is none; says which was meant, or what there is beside it.
    """
    path, name = expanded(given), _name(given)
    if os.path.isfile(path) and path.suffix == '.py':
        return path
    if name in names():
        file = HOME / f'{name}.py'
        return file.relative_to(os.getcwd()) if file.is_relative_to(os.getcwd()) else file  # as one would type it here
    if os.path.isfile(path):
        raise UserError(f'{path} is no recipe, which is a file of Python, such as configs/resnet50.py')
    if path.stem in catalog.RECIPE_OF:
        raise UserError(f'no recipe {given}; {path.stem} is trained with --config {catalog.config(path.stem)}')
    if path.stem in names():
        raise UserError(f'no file {given}; --config {path.stem} is the recipe of that name')
    if path.stem in catalog.EARLIER_RECIPES:
        raise UserError(f'no recipe {given}; since version 0.2 it is --config {catalog.EARLIER_RECIPES[path.stem]}')
    scripts = sorted(str(file) for file in path.parent.glob('*.py'))
    if name:
        raise unknown('recipe', given, dict.fromkeys([given.replace(name, other) for other in names()] + scripts))
    raise unknown('recipe', given, scripts) if scripts else UserError(f'no recipe {path}; {beside(path)}')


def load(path: Path) -> ModuleType:
    """A recipe's file as a module. Raises UserError: it cannot be read."""
    if os.getcwd() not in sys.path:  # recipes import their neighbours
        sys.path.insert(0, os.getcwd())
    _offer_configs(path)
    spec = importlib.util.spec_from_file_location('recipe', path)
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:  # whatever a file of Python may raise
        raise UserError(f'{path} cannot be read as a recipe: {type(error).__name__}: {first_line(error)}') from error
    if not hasattr(module, 'get_config'):
        raise UserError(f'{path} is no recipe: it defines no get_config()')
    return module


def common() -> ModuleType:
    """configs/common.py, the one that recipes get."""
    _offer_configs(HOME / 'common.py')
    return importlib.import_module('configs.common')


def _offer_configs(path: Path) -> None:
    """`from configs import common` finds the recipe's own folder of that name, that of the current one, or ours."""
    if 'configs' in sys.modules:
        return
    own = path.absolute().parent
    folder = next((folder for folder in (own, Path.cwd() / 'configs') if folder.name == 'configs'
                   and (folder / 'common.py').is_file()), HOME)
    spec = importlib.util.spec_from_file_location('configs', folder / '__init__.py',
                                                  submodule_search_locations=[str(folder)])
    sys.modules['configs'] = importlib.util.module_from_spec(spec)
