"""Options become named arguments: each section of a config goes whole to the one callable that reads it."""

import ast
import inspect
from collections.abc import Callable, Mapping
from typing import Any

from imagenet_jax.errors import UserError, unknown


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


def apply(function: Callable, section: Mapping[str, Any], where: str, **given):
    """Calls `function(**section, **given)`.

    Args:
      function: reads the options by name.
      section: one section of the config.
      where: the section's path in messages, such as 'config.optimizer'.
      **given: arguments that do not come from the config.

    Raises:
      UserError: an option that `function` does not read, or one it needs and the section lacks.
    """
    options = chosen(section)
    parameters = inspect.signature(function).parameters
    named = [n for n, p in parameters.items() if p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)]
    takes_more = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    for name in options:
        if name in given or not (takes_more or name in named):
            raise unknown(f'option {where}.{name}: nothing reads', name, sorted(set(named) - set(given)))
    missing = [n for n in named if parameters[n].default is inspect.Parameter.empty
               and n not in options and n not in given]
    if missing:
        raise UserError(f'{where} lacks {", ".join(missing)}')
    return function(**options, **given)
