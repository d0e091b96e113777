"""--config and its options, for every command that takes a recipe."""

import difflib
import importlib.util
import inspect
import os
import re
import shlex
import sys
import textwrap
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import NoReturn

from absl import app, flags
from absl import logging as absl_logging
from ml_collections import ConfigDict, config_flags

from imagenet_jax import record
from imagenet_jax.command_line import running
from imagenet_jax.errors import UserError, first_line, unknown

_CONFIG = config_flags.DEFINE_config_file('config', None, 'the recipe', lock_config=True)


def run(command: Callable[[list[str]], None], usage: str) -> NoReturn:
    """Runs a command once its flags are parsed; --help prints `usage` and the recipe's options."""
    app.run(partial(_run, command), flags_parser=partial(_parse, usage))


def _run(command, argv: list[str]) -> int | str | None:
    if not flags.FLAGS['verbosity'].present:
        absl_logging.set_verbosity(absl_logging.FATAL)  # Orbax narrates every save, and traces what it raises besides
    running.log_to_stderr(clock=True)
    return running.exit_code(partial(command, argv))  # here, since app.run holds on to exceptions and their tracebacks


def config(argv: list[str]) -> ConfigDict:
    """The recipe with the command line's changes. Raises UserError: there is none, or `argv` has more than flags."""
    if len(argv) > 1:
        raise UserError(f'not a flag: {shlex.join(argv[1:])}; options are given as --config.NAME=VALUE')
    if not flags.FLAGS['config'].present:
        raise UserError('which recipe? Give --config, such as --config configs/resnet50.py')
    return _CONFIG.value


def name() -> str:
    """The recipe's file, and the model after it, as the command line has them."""
    return config_flags.get_config_filename(flags.FLAGS['config'])


def _parse(usage: str, argv: list[str]) -> list[str]:
    """Flags. Raises UserError, or leaves with 1 as absl does."""
    try:
        recipe, taken = _recipe(argv)
        if any(arg in ('-h', '-help', '--help') for arg in argv):
            _help(usage, recipe, taken)
        return _parse_flags(argv, app.parse_flags_with_usage, _CONFIG)
    except (TypeError, ValueError) as error:
        raise UserError(str(error)) from error


def make(recipe: str, options: Sequence[str]) -> ConfigDict:
    """The config of --config RECIPE with options --config.NAME=VALUE, beside the flags of this process.

    Raises:
      UserError: as for the same on the command line.
    """
    argv = ['', f'--config={recipe}', *options]
    values = flags.FlagValues()
    holder = config_flags.DEFINE_config_file('config', None, flag_values=values, lock_config=True, sys_argv=argv)
    try:
        _recipe(argv)
        _parse_flags(argv, values, holder)
    except (TypeError, ValueError, flags.Error) as error:
        raise UserError(f'{recipe}: {error}') from error
    return holder.value


def arguments(path: Path) -> tuple[str, ...]:
    """What a recipe may be given after a colon, its default first; () where it takes nothing. Raises UserError."""
    return _taken(_load(path))


def _taken(module: ModuleType) -> tuple[str, ...]:
    return (*getattr(module, 'MODELS', ()), *getattr(module, 'VARIANTS', ()))


def _parse_flags(argv: list[str], parse: Callable, holder: flags.FlagHolder) -> list[str]:
    """absl's parser, and --config.NAME=None: what the recipe sets is unset, and the reader's own default holds.

    The last that is said of an option holds, as of every flag.
    """
    assigned = re.compile(r'--?config\.([\w.]+)=(.*)', re.DOTALL)
    last = {found[1]: found[2] for found in map(assigned.fullmatch, argv) if found}
    rest = parse([arg for arg in argv if not re.fullmatch(r'--?config\.[\w.]+=None', arg)])
    for name in (name for name, value in last.items() if value == 'None'):
        holder.value.update_from_flattened_dict({name: None})
    return rest


def _recipe(argv: list[str]) -> tuple[ConfigDict | None, tuple[str, ...]]:
    """The config as its file has it, and what it takes after a colon; None and () where argv names none.

    Raises:
      UserError: no such file, an argument that it does not take, or a --config.NAME that it does not have.
    """
    named = re.search(r'^--?config[=\n](.+)', '\n'.join(argv), re.MULTILINE)
    if not named:
        return None, ()
    path, *argument = named[1].split(':', 1)
    module = _load(Path(path))
    taken = _taken(module)
    if argument and not inspect.signature(module.get_config).parameters:
        raise UserError(f'{path} takes no argument; give it without :{argument[0]}')
    if argument == ['']:
        raise UserError(f'{named[1]} names nothing after its colon; --config {path} --help lists what may stand there')
    try:
        recipe = module.get_config(*argument)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise _wrong_recipe(path, error) from error
    known = [f'config.{name}' for name in record.flatten(recipe.to_dict())]
    for name in re.findall(r'^--?(?:no)?(config\.[\w.]+)', '\n'.join(argv), re.MULTILINE):
        if name not in known:
            raise unknown('option', name, known)
    return recipe, taken


def _wrong_recipe(path: str, error: Exception) -> UserError:
    """Of what a recipe's file does that its config does not take, such as setting an option that is none."""
    from configs import common  # recipes lie beside it
    known = record.flatten(common.get_config().to_dict())
    if named := re.match(r"""['"]?Key "(\w+)" does not exist""", str(error)):
        # Its section is not told, so that both a whole name and the last part of one may be meant.
        whole = {name: name for name in known} | {name.rpartition('.')[2]: name for name in known}
        near = difflib.get_close_matches(named[1], whole)
        hint = f'did you mean config.{" or config.".join(whole[name] for name in near)}?' if near else \
            'configs/common.py has them all'
        return UserError(f'{path} sets {named[1]}, which is no option; {hint}')
    if named := re.match(r"Could not override field '(\w+)'", str(error)):
        near = [f'config.{name}' for name in known if named[1] in name.split('.')]
        return UserError(f'{path} sets {named[1]} to something of another kind; such options are {", ".join(near)}')
    return UserError(f'{path} cannot be read as a recipe: {type(error).__name__}: {first_line(error)}')


def _load(path: Path) -> ModuleType:
    """The file as a module. Raises UserError: there is none."""
    if not path.is_file():
        from imagenet_jax.models import catalog  # imports JAX, for which a recipe that is there does not wait
        if path.stem in catalog.RECIPE_OF:
            raise UserError(f'no recipe {path}; {path.stem} is trained with --config {catalog.config(path.stem)}')
        if path.stem in catalog.EARLIER_RECIPES:
            raise UserError(f'no recipe {path}; since version 0.2 it is --config {catalog.EARLIER_RECIPES[path.stem]}')
        raise unknown('recipe', str(path), sorted(map(str, path.parent.glob('*.py'))))
    if os.getcwd() not in sys.path:  # recipes import their neighbours
        sys.path.insert(0, os.getcwd())
    spec = importlib.util.spec_from_file_location('recipe', path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _help(usage: str, recipe: ConfigDict | None, taken: Sequence[str]) -> None:
    print(usage)
    if recipe is None:
        print('Give --config too for a list of its options. configs/common.py says what each means.')
        sys.exit(0)
    if taken:
        print('What this recipe takes, each given as --config FILE:NAME; without one it is the first:\n')
        print(textwrap.fill(', '.join(taken), 100, initial_indent='  ', subsequent_indent='  '), end='\n\n')
    print('Options of this recipe (configs/common.py says what each means):\n')
    print('\n'.join(f'  --config.{name}={value}' for name, value in record.flatten(recipe.to_dict()).items()))
    sys.exit(0)
