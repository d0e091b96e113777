"""--config and its options, for every command that takes a recipe."""

import inspect
import re
import shlex
import sys
import textwrap
from collections.abc import Callable, Sequence
from functools import partial
from types import ModuleType
from typing import NoReturn

from absl import app, flags
from ml_collections import ConfigDict, config_flags

from imagenet_jax import record
from imagenet_jax.command_line import option_names, recipe_files, running
from imagenet_jax.errors import UserError, first_line

_WIDTH = 79  # of help, which terminals of 80 columns show whole
# What absl says of a value -> what is meant.
_KINDS = {'invalid literal for int': 'a whole number', 'integer string conversion': 'a whole number',
          'could not convert string to float': 'a number', 'Non-boolean argument': 'true or false'}
_CONFIG = config_flags.DEFINE_config_file('config', None, 'the recipe', lock_config=True)


def run(command: Callable[[list[str]], None], usage: str,
        rewrite: Callable[[list[str]], list[str]] = lambda argv: argv) -> NoReturn:
    """Runs a command once its flags are parsed, rewritten before; --help prints `usage` and the recipe's options."""
    app.run(partial(_run, command), flags_parser=partial(_parse, usage, rewrite))


def _run(command, argv: list[str]) -> int | str | None:
    running.log_to_stderr(clock=True)
    return running.exit_code(partial(command, argv))  # here, since app.run holds on to exceptions and their tracebacks


def config(argv: list[str]) -> ConfigDict:
    """The recipe with the command line's changes. Raises UserError: there is none, or `argv` has more than flags."""
    if len(argv) > 1:
        raise UserError(f'not a flag: {shlex.join(argv[1:])}; options are given as --config.NAME=VALUE')
    if not flags.FLAGS['config'].present:
        raise UserError('which recipe? Give --config, such as --config configs/resnet50.py')
    return _CONFIG.value


def given() -> set[str]:
    """The options that the command line changes, without 'config.'."""
    return set(re.findall(r'^--?(?:no)?config\.([\w.]+)', '\n'.join(sys.argv), re.MULTILINE))


def name() -> str:
    """The recipe's file, and the model after it, as the command line has them."""
    return config_flags.get_config_filename(flags.FLAGS['config'])


def _parse(usage: str, rewrite: Callable, argv: list[str]) -> list[str]:
    """Flags. Raises UserError."""
    try:
        argv = _with_path(rewrite(argv))
        recipe, taken = _recipe(argv)
        if any(arg in ('-h', '-help', '--help') for arg in argv):
            _help(usage, recipe, taken)
        _refuse_unknown_flags(argv[1:], recipe)
        return _parse_flags(argv, flags.FLAGS, _CONFIG)
    except (TypeError, ValueError, flags.Error) as error:
        raise UserError(_refusal(error)) from error


def _with_path(argv: list[str]) -> list[str]:
    """argv, the names of recipes in it as paths of their files. Raises UserError: there is no such recipe."""
    done = list(argv)
    for at, arg in enumerate(argv):
        found = re.fullmatch(r'(--?config=)(.+)', arg, re.DOTALL)
        value = found[2] if found else argv[at + 1] if arg in ('-config', '--config') and at + 1 < len(argv) else ''
        if value:
            done[at if found else at + 1] = (found[1] if found else '') + recipe_files.resolved(value)
    return done


def _refuse_unknown_flags(arguments: Sequence[str], recipe: ConfigDict | None) -> None:
    """Raises UserError for one that is no flag, with the option that is meant."""
    rest = iter(arguments)
    for arg in rest:
        found = re.match(r'--?([A-Za-z][\w-]*)(=|$)', arg)
        if not found:  # an option, or what ends the flags, as absl takes them
            if not re.match(r'--?\w', arg):
                return
            continue
        name = found[1] if found[1] in flags.FLAGS else found[1].removeprefix('no')
        if name not in flags.FLAGS and name not in ('flagfile', 'undefok'):
            raise option_names.unknown_flag(arg.partition('=')[0], known(recipe), flags.FLAGS)
        if not found[2] and name in flags.FLAGS and not flags.FLAGS[name].boolean:
            next(rest, None)


def known(recipe: ConfigDict | None = None) -> list[str]:
    """The options of a recipe, without 'config.'; those of every recipe where none is given."""
    return list(record.flatten((recipe or recipe_files.common().get_config()).to_dict()))


def make(recipe: str, options: Sequence[str]) -> ConfigDict:
    """The config of --config RECIPE with options --config.NAME=VALUE, beside the flags of this process.

    Raises:
      UserError: as for the same on the command line.
    """
    argv = _with_path(['', f'--config={recipe}', *options])
    values = flags.FlagValues()
    holder = config_flags.DEFINE_config_file('config', None, flag_values=values, lock_config=True, sys_argv=argv)
    try:
        _recipe(argv)
        _parse_flags(argv, values, holder)
    except (TypeError, ValueError, flags.Error) as error:
        raise UserError(f'{recipe}: {_refusal(error)}') from error
    return holder.value


def _refusal(error: Exception) -> str:
    """What absl says of a flag, in one line; of a value of another kind what it has to be."""
    flag = re.match(r'flag (--[\w.]+)=(.*?): ', str(error), re.DOTALL)
    kind = next((kind for words, kind in _KINDS.items() if words in str(error)), '')
    return f'{flag[1]}={flag[2][:40]} must be {kind}' if flag and kind else first_line(error)


def arguments(path: str) -> tuple[str, ...]:
    """What a recipe may be given after a colon, its default first; () where it takes nothing. Raises UserError."""
    return _taken(recipe_files.load(recipe_files.find(path)))


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
    module = recipe_files.load(recipe_files.find(path))
    taken = _taken(module)
    if argument and not inspect.signature(module.get_config).parameters:
        raise UserError(f'{path} takes no argument; give it without :{argument[0]}')
    if argument == ['']:
        raise UserError(f'{named[1]} names nothing after its colon; --config {path} --help lists what may stand there')
    try:
        recipe = module.get_config(*argument)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise _wrong_recipe(path, error) from error
    options = known(recipe)
    for name in re.findall(r'^--?(?:no)?config\.([\w.-]+)', '\n'.join(argv), re.MULTILINE):
        if name not in options:
            raise option_names.unknown_option(name, options)
    return recipe, taken


def _wrong_recipe(path: str, error: Exception) -> UserError:
    """Of what a recipe's file does that its config does not take, such as setting an option that is none."""
    if named := re.match(r"""['"]?Key "(\w+)" does not exist""", str(error)):
        near = option_names.meant(named[1], known())
        hint = f'did you mean config.{" or config.".join(near)}?' if near else 'configs/common.py has them all'
        return UserError(f'{path} sets {named[1]}, which is no option; {hint}')
    if named := re.match(r"Could not override field '(\w+)'", str(error)):
        near = [f'config.{name}' for name in known() if named[1] in name.split('.')]
        return UserError(f'{path} sets {named[1]} to something of another kind; such options are {", ".join(near)}')
    return UserError(f'{path} cannot be read as a recipe: {type(error).__name__}: {first_line(error)}')


def _help(usage: str, recipe: ConfigDict | None, taken: Sequence[str]) -> None:
    print(usage)
    if recipe is None:
        print('Give --config too for a list of its options, and what each means. The recipes:\n')
        print(_indented(', '.join(recipe_files.names())))
        sys.exit(0)
    if taken:
        print('What this recipe takes, each given as --config FILE:NAME; without one it is the\nfirst:\n')
        print(_indented(', '.join(taken)), end='\n\n')
    print('Options of this recipe, as it has them. None: unset, and what reads it has a\ndefault of its own.')
    meaning = option_names.meanings(inspect.getsource(recipe_files.common()))
    values, section = record.flatten(recipe.to_dict()), None
    for name in (*(name for name in meaning if name in values), *(name for name in values if name not in meaning)):
        if section != (section := name.rpartition('.')[0]):
            print()
        print(textwrap.fill(f'--config.{name}={values[name]}', _WIDTH, initial_indent='  ', subsequent_indent='    '))
        if name in meaning:
            print(textwrap.fill(meaning[name], _WIDTH, initial_indent=' ' * 6, subsequent_indent=' ' * 6))
    sys.exit(0)


def _indented(text: str) -> str:
    return textwrap.fill(text, _WIDTH, initial_indent='  ', subsequent_indent='  ')
