"""The one way in and out of every command.

Help, refusals and data workers, which import the main module anew, pass through here: nothing that takes long is
imported before a command asks for it.
"""

import contextlib
import importlib
import inspect
import logging
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NoReturn

from imagenet_jax.errors import DISK, SaveError, Stopped, UserError, first_line, ran_out_of_memory

# Commands that save what they did after Ctrl-C; seconds that others have to end by themselves.
_SAVING, _GRACE_S = ('train', 'sweep'), 1
# What glibc from 2.35 on reads when a process starts, and only then.
_TUNABLES, _HUGE_PAGES = 'GLIBC_TUNABLES', 'glibc.malloc.hugetlb=1'


def take_huge_pages() -> None:
    """Starts the program anew, once, where that makes what a CPU computes faster; to be called first of all.

    XLA for a CPU takes the memory of a step, hundreds of MB, anew at each, and Linux hands it out in pages of 4 KB, of
    2 MB where it is asked to: of that glibc takes care, where it is told. It has to be before the process starts, so it
    becomes this program once more. With an NVIDIA card nothing is done, nor where GLIBC_TUNABLES is set. What this
    process starts, such as data workers, is not told.
    """
    told = os.environ.get(_TUNABLES)
    if told == _HUGE_PAGES:
        del os.environ[_TUNABLES]
    elif told is None and sys.platform == 'linux' and not Path('/proc/driver/nvidia').exists():
        with contextlib.suppress(OSError):
            os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], os.environ | {_TUNABLES: _HUGE_PAGES})


def run(name: str) -> NoReturn:
    """Runs a command on sys.argv and leaves with its exit code."""
    leave(lambda: _run(name))


def _run(name: str) -> int | None:
    module = _start(name)
    with contextlib.nullcontext() if name in _SAVING else _ending_promptly():
        return module.main()


def leave(command: Callable[[], int | None]) -> NoReturn:
    """Runs it and leaves; where a reader such as head has seen enough, as SIGPIPE would."""
    try:
        code = exit_code(command)
    except SystemExit as left:
        code = left.code
    except BrokenPipeError:
        _forget_output()
        code = 128 + signal.SIGPIPE
    except OSError as error:
        if error.errno not in DISK:
            raise
        _forget_output()
        code = f'error: cannot write the output: {error.strerror}'
    if isinstance(code, _AtOnce):
        print(code, file=sys.stderr, flush=True)
        os._exit(1)
    sys.exit(code)


class _AtOnce(str):
    """An error to leave with at once: of the threads that failed to save, some wait for others for many minutes."""


def exit_code(command: Callable[[], int | None]) -> int | str | None:
    """Runs it; answers what sys.exit takes: after an error its line, after Ctrl-C 130, after a signal the signal's.

    sys.exit is for the caller, out of the except clauses: their tracebacks would keep batches in shared memory alive.
    """
    try:
        code = command()
    except SaveError as error:
        code = _AtOnce(f'error: {error}')
    except UserError as error:
        code = f'error: {error}'
    except Stopped as stopped:
        code = stopped.exit_code
    except KeyboardInterrupt:
        code = 130
    except OSError as error:
        if error.errno not in DISK:
            raise
        code = f'error: cannot write {error.filename or "the output"}: {error.strerror}'
    except (MemoryError, RuntimeError) as error:
        if not ran_out_of_memory(error):
            raise
        code = (f'error: out of memory: {first_line(error)}; smaller images or batches, fewer workers or, where an '
                'accelerator is busy, JAX_PLATFORMS=cpu take less')
    finally:
        sys.stdout.flush()
    return code


def _forget_output() -> None:
    """Leaves nothing to flush at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


@contextlib.contextmanager
def importing() -> Iterator[None]:
    """For imports that take seconds: Ctrl-C ends the process there and then.

    As an exception it would be swallowed by some of them, and come out of others as an error of theirs.
    """
    before = signal.getsignal(signal.SIGINT)
    if before is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def log_to_stderr(clock: bool = False) -> None:
    """Shows our own log lines, with the time of day where wanted."""
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter('%(asctime)s %(message)s' if clock else '%(message)s', '%H:%M:%S'))
    logging.raiseExceptions = False  # a log that takes no more, as on a full disk, would be told of in tracebacks
    ours = logging.getLogger('imagenet_jax')
    ours.handlers[:] = [handler]
    ours.setLevel(logging.INFO)
    ours.propagate = False


@contextlib.contextmanager
def _ending_promptly() -> Iterator[None]:
    """While entered, Ctrl-C ends the process within 2 s, whatever holds it: XLA while it compiles, threads that decode.
    So does SIGTERM, of a command that has a handler for it.

    The byte comes from the signal's handler in C, for which no Python has to run in the main thread.
    """
    reader, writer = socket.socketpair()
    writer.setblocking(False)
    before = signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)

    def end():
        while byte := reader.recv(1):
            if byte[0] in (signal.SIGINT, signal.SIGTERM):
                time.sleep(_GRACE_S)
                with contextlib.suppress(Exception):
                    sys.stdout.flush()
                os._exit(128 + byte[0])  # worker processes end with it
    threading.Thread(target=end, daemon=True, name='Ctrl-C').start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(before)
        writer.close()


def _start(name: str):
    """The command's module; the process set up for it."""
    with importing():
        from absl import logging as absl_logging
        module = importlib.import_module(f'imagenet_jax.commands.{name}')
    log_to_stderr()
    absl_logging.set_verbosity(absl_logging.FATAL)  # Orbax and TFDS narrate, and trace what they raise besides
    sys.unraisablehook = _tell_unraisable
    sys.stdout.reconfigure(errors='backslashreplace')  # names of files need not be text
    return module


def _tell_unraisable(unraisable) -> None:
    """As Python does; but not of each part of a save that cannot be written or read: that is told of once."""
    if not inspect.iscoroutine(unraisable.object) and str(unraisable.exc_value) != 'Event loop is closed':
        sys.__unraisablehook__(unraisable)
