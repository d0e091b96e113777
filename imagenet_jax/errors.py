"""What a user is meant to read instead of a traceback."""

import contextlib
import difflib
import signal
from collections.abc import Iterable, Iterator
from pathlib import Path


class UserError(Exception):
    """Wrong input: says what was found, what was expected and what to do. Shown without a traceback."""


class Stopped(Exception):
    """A signal ended the run after it was saved."""

    def __init__(self, number: int):
        super().__init__(signal.Signals(number).name)
        self.exit_code = 128 + number


def unknown(kind: str, name: str, known: Iterable[str]) -> UserError:
    """The error for a name that is not in `known`: the nearest right names first, else all of them."""
    known = [str(k) for k in known]
    near = difflib.get_close_matches(str(name), known, n=3, cutoff=0.6)
    hint = f'did you mean {" or ".join(near)}?' if near else f'known: {", ".join(known) or "none"}'
    return UserError(f'unknown {kind} {name!r}; {hint}')


def first_line(error: Exception) -> str:
    """What another library says, where it may say it at length."""
    return (str(error).splitlines() or [''])[0][:300]


def ran_out_of_memory(error: BaseException) -> bool:
    """Whether Python, numpy, XLA or a device's allocator says so; of XLA's errors the text alone tells."""
    said = str(error).lower() if isinstance(error, RuntimeError) else ''
    return isinstance(error, MemoryError) or any(words in said for words in (
        'resource_exhausted', 'out of memory', 'out_of_memory', 'bad_alloc', 'failed to allocate'))


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """While entered, an OSError means that `path` cannot be written; its folder is made."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield
    except OSError as error:
        raise UserError(f'cannot write {path}: {error}') from error
