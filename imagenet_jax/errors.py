"""What a user is meant to read instead of a traceback."""

import contextlib
import difflib
import errno
import os
import signal
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path


class UserError(Exception):
    """Wrong input: says what was found, what was expected and what to do. Shown without a traceback."""


class SaveError(UserError):
    """A checkpoint cannot be saved."""


class Stopped(Exception):
    """A signal ended the run after it was saved."""

    def __init__(self, number: int):
        super().__init__(signal.Signals(number).name)
        self.exit_code = 128 + number


def unknown(kind: str, name: str, known: Iterable[str]) -> UserError:
    """The error for a name that is not in `known`: the nearest right names first, else all of them."""
    known = [str(k) for k in known]
    near = difflib.get_close_matches(str(name), known, n=3, cutoff=0.6)
    hint = f'did you mean {" or ".join(near)}?' if near else f'known: {few(known, len(known))}'
    return UserError(f'unknown {kind} {name!r}; {hint}')


def few(names: Sequence[str], most: int = 10) -> str:
    """For messages: the first names, and how many more there are; 'none' of none."""
    return ', '.join(names[:most]) + (f' and {len(names) - most} more' if len(names) > most else '') or 'none'


def as_text(name: str) -> str:
    """The name of a file, which need not be text, as UTF-8 can hold it."""
    return name.encode('utf-8', 'backslashreplace').decode()


def expanded(path: str | Path) -> Path:
    """The path, ~ the user's own folder. Raises UserError: ~NAME of no user here."""
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise UserError(f'{path}: no user of that name has a folder here; write ./{path} for one that is called so'
                        ) from error


def beside(path: Path) -> str:
    """For the error about a path where nothing is: what is there instead, the nearest names first."""
    there = next(parent for parent in path.absolute().parents if os.path.isdir(parent))  # of any length
    try:
        found = sorted(each.name for each in there.iterdir() if not each.name.startswith('.'))
    except OSError:
        found = []
    near = difflib.get_close_matches(path.absolute().relative_to(there).parts[0], found, n=3)
    if near:
        return f'did you mean {" or ".join(str(there / name) for name in near)}?'
    return f'{there} holds {few(found)}'


def first_line(error: Exception) -> str:
    """What another library says, where it may say it at length."""
    return (str(error).splitlines() or [''])[0][:300]


def ran_out_of_memory(error: BaseException) -> bool:
    """Whether Python, numpy, XLA or a device's allocator says so; of XLA's errors the text alone tells."""
    said = str(error).lower() if isinstance(error, RuntimeError) else ''
    return isinstance(error, MemoryError) or any(words in said for words in (
        'resource_exhausted', 'out of memory', 'out_of_memory', 'bad_alloc', 'failed to allocate'))


# What a disk refuses, whoever asks.
DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO)


def what_failed(error: BaseException) -> str:
    """What the system said, such as 'No space left on device', where another library says it in its own words; else
    its first line."""
    causes = [error]
    while cause := causes[-1].__cause__ or causes[-1].__context__:
        causes.append(cause)
    for cause in causes:
        if isinstance(cause, OSError) and cause.strerror:
            return f'{cause.strerror}: {cause.filename}' if cause.filename else cause.strerror
    known = [os.strerror(number) for number in (*DISK, errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.EISDIR)]
    said = ' '.join(map(str, causes))
    return next((words for words in known if words in said), first_line(error) or type(error).__name__)


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """While entered, an OSError means that `path` cannot be written; its folder is made."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield
    except BrokenPipeError:  # of what is printed meanwhile: nobody reads on
        raise
    except OSError as error:
        raise UserError(f'cannot write {path}: {error}') from error


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Gives the name of a file to write, which takes the place of `path` when it is whole; raises as `writing`.

    Of a link what it leads to is replaced; what is there and no file, such as a pipe, is written to as it is.
    """
    if path.exists() and not path.is_file() and not path.is_dir():
        with writing(path):
            yield path
        return
    whole = Path(os.path.realpath(path))
    partial = whole.with_name(f'.{os.fsdecode(os.fsencode(whole.name)[:200])}.{os.getpid()}.tmp')  # nobody else's
    try:
        with writing(path):
            yield partial
            os.replace(partial, whole)
    finally:
        with contextlib.suppress(OSError):
            partial.unlink()
