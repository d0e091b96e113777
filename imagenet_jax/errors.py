"""The one error a user is meant to read."""

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """Wrong input: says what was found, what was expected and what to do. Shown without a traceback."""


def unknown(kind: str, name: str, known: Iterable[str]) -> UserError:
    """The error for a name that is not in `known`: the nearest right names first, else all of them."""
    known = [str(k) for k in known]
    near = difflib.get_close_matches(str(name), known, n=3, cutoff=0.6)
    hint = f'did you mean {" or ".join(near)}?' if near else f'known: {", ".join(known) or "none"}'
    return UserError(f'unknown {kind} {name!r}; {hint}')
