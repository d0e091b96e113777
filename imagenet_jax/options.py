"""Options become named arguments: each section of a config goes whole to the one callable that reads it."""

import ast
import inspect
import numbers
import typing
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from imagenet_jax.errors import UserError, unknown

# A whole number of 64 bits: of an option that is neither counted nor computed with on a device.
LongInt = typing.NewType('LongInt', int)

# What an option may be, by the type that its reader declares; numpy's numbers too. Any other type is the reader's own
# to check. Numbers are such as devices compute with: int32, and finite in float32.
_KINDS = {bool: (lambda value: isinstance(value, bool), 'True or False'),
          int: (lambda value: _is_whole(value) and abs(value) < 2**31, 'a whole number below 2**31'),
          LongInt: (lambda value: _is_whole(value) and abs(value) < 2**63, 'a whole number below 2**63'),
          float: (lambda value: _is_number(value) and abs(value) <= 3e38, 'a finite number, at most 3e38'),
          str: (lambda value: isinstance(value, str), 'text'),
          Mapping: (lambda value: hasattr(value, 'items'), 'a section')}


def _is_number(value) -> bool:
    return isinstance(value, numbers.Real) and not isinstance(value, bool)


def _is_whole(value) -> bool:
    return _is_number(value) and isinstance(value, numbers.Integral)


def refuse_above(section, where: str, **limits: float) -> None:
    """Raises UserError where an attribute of `section` is above its limit: what takes forever, or all memory."""
    for name, limit in limits.items():
        if getattr(section, name) > limit:
            raise UserError(f'{where}.{name}={getattr(section, name)!r} must be at most {limit:,}')


def chosen(section: Mapping[str, Any]) -> dict[str, Any]:
    """The options of a section that have a value; an unset placeholder is None and takes the callee's default."""
    return {name: value for name, value in section.items() if value is not None}


def key_value(text: str) -> tuple[str, object]:
    """'key=value' of a command line's --option, the value as Python or JSON would read it, else text."""
    name, separator, value = text.partition('=')
    if not separator:
        raise UserError(f'--option {text}: must be KEY=VALUE')
    try:
        return name, ast.literal_eval({'true': 'True', 'false': 'False'}.get(value, value))
    except (ValueError, SyntaxError):
        return name, value


def create(registry: Mapping[str, Callable], section: Mapping[str, Any], where: str, *, key: str = 'name', **given):
    """What a section chooses by name, made of the section's other options: `apply` to the registry's entry.

    Args:
      registry: name -> the callable that reads the options of that choice.
      section: one section of the config.
      where: the section's path in messages, such as 'config.optimizer'.
      key: the option that holds the name.
      **given: arguments that do not come from the config.

    Raises:
      UserError: an unknown name, or what `apply` refuses; an option that only other choices read says which.
    """
    options = chosen(section)
    if key not in options:
        raise UserError(f'{where} lacks {key}; known: {", ".join(registry)}')
    name = options.pop(key)
    if name not in registry:
        raise unknown(f'{where}.{key}', name, registry)
    known = reads(registry[name]).keys() | given.keys()
    for option, value in options.items():
        if option in known or _takes_more(registry[name]):
            continue
        if readers := [other for other, make in registry.items() if option in reads(make)]:
            unset = f'; to unset it: --{where}.{option}=None' if where.startswith('config.') else ''
            raise UserError(f'{where}.{option}={value!r} is read by {where}.{key}={" or ".join(_few(readers))}, not by '
                            f'{name}{unset}')
    return apply(registry[name], options, where, **given)


def apply(function: Callable, section: Mapping[str, Any], where: str, **given):
    """Calls `function(**section, **given)`.

    Args:
      function: reads the options by name; where it declares bool, int, float, str or tuples of them, the values have to
        be of that kind.
      section: one section of the config.
      where: the section's path in messages, such as 'config.optimizer'.
      **given: arguments that do not come from the config.

    Raises:
      UserError: an option that `function` does not read, one it needs and the section lacks, a value of another kind.
    """
    options, parameters = chosen(section), reads(function)
    for name, value in options.items():
        if name in given or not (name in parameters or _takes_more(function)):
            raise unknown(f'option {where}.{name}: nothing reads', name, sorted(parameters.keys() - given.keys()))
        if name in parameters:
            options[name] = checked(f'{where}.{name}', value, parameters[name].annotation)
    missing = [name for name, p in parameters.items() if p.default is p.empty and name not in options | given]
    if missing:
        raise UserError(f'{where} lacks {", ".join(missing)}')
    return function(**options, **given)


def reads(function: Callable) -> dict[str, inspect.Parameter]:
    """The arguments that a callable takes by name; what a partial has set is not for the asking."""
    fixed = function.keywords if isinstance(function, partial) else ()
    return {name: p for name, p in inspect.signature(function).parameters.items()
            if p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL) and name not in fixed}


def _takes_more(function: Callable) -> bool:
    return any(p.kind is p.VAR_KEYWORD for p in inspect.signature(function).parameters.values())


def _few(names: list[str]) -> list[str]:
    return names if len(names) <= 5 else [*names[:4], f'{len(names) - 4} more']


def checked(option: str, value, kind):
    """The value, which has to be of that kind (see `apply`); a list as a tuple, which can be compared and hashed.

    Raises:
      UserError: it is of another kind.
    """
    if typing.get_origin(kind) is tuple:
        kinds = typing.get_args(kind)
        many = kinds[-1] is ...
        if not isinstance(value, (tuple, list)) or not (many or len(value) == len(kinds)):
            raise UserError(f'{option}={value!r} must be {_words(kind)}')
        kinds = kinds[:1] * len(value) if many else kinds
        return tuple(checked(f'{option}[{i}]', *pair) for i, pair in enumerate(zip(value, kinds, strict=True)))
    if kind in _KINDS and not _KINDS[kind][0](value):
        raise UserError(f'{option}={value!r} must be {_words(kind)}')
    return value


def _words(kind) -> str:
    if kind in _KINDS:
        return _KINDS[kind][1]
    first, *others = typing.get_args(kind)
    count = '' if others == [...] else f' of {1 + len(others)}'
    return f'a tuple{count}, each {_words(first)}' if first in _KINDS else f'a tuple{count}'
