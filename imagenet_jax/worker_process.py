"""A process that answers questions in order, and what is said where it does not."""

import logging
import multiprocessing
import os
import pickle
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from multiprocessing import resource_tracker
from pathlib import Path

from imagenet_jax.errors import UserError

log = logging.getLogger(__name__)

# Seconds that a process may be stopped, and after which slow work is told of.
_STOPPED_S, SLOW_S = 15, 30
# Bytes from which on an array is not copied to each process.
_LARGE = 1 << 20
# What a terminal or a scheduler sends to all processes of a run.
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1)


class Given:
    """What many processes are given: pickled once, and its large arrays, such as the labels and names of all images, in
    one memory for all of them, where none may write.

    The memory has no name, so that it is given back however the processes end.
    """

    def __init__(self, value):
        self.memory = []
        self.pickle = pickle.dumps(value, 5, buffer_callback=self._is_small)

    def _is_small(self, array: pickle.PickleBuffer) -> bool:
        """Whether it stays in the pickle; else it is in the memory now."""
        data = array.raw()
        if data.nbytes < _LARGE:
            return True
        memory = multiprocessing.get_context('spawn').RawArray('B', data.nbytes)
        memoryview(memory).cast('B')[:] = data
        self.memory.append(memory)
        return False


def _received(pickled: bytes, memory: Sequence):
    """What was given."""
    return pickle.loads(pickled, buffers=[memoryview(array).toreadonly() for array in memory])


class Process:
    """A worker process, which answers questions in order.

    The parent decides when it ends: not Ctrl-C or a scheduler's signals, which reach the whole process group. It does
    not outlive the parent. There is no lock and no thread on the parent's side, which an exception at the wrong moment
    could leave in a state that others wait for.

    Attributes:
      pipe: readable when there is an answer, for multiprocessing.connection.wait.
    """

    def __init__(self, advice: str, start: Callable, given: Given, *shared):
        """`start(value, *shared)`, called in the process with the value that is given, gives what makes an answer of a
        question. `shared` is small, or shared memory. `advice` is for want of memory."""
        context = multiprocessing.get_context('spawn')
        self._advice, self._stopped_since = advice, None
        self.pipe, pipe = context.Pipe()
        self._process = context.Process(target=_serve, args=(pipe, start, given.memory, shared), daemon=True)
        resource_tracker.ensure_running()  # which the first process would do, and unblock the signals with it
        before = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
        try:
            self._process.start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        pipe.close()  # the worker's end is in the worker alone now: when one is gone, the other's next word fails
        try:  # as an argument, what is large would be written to a pipe that stays open where the worker has ended
            self.ask(given.pickle)
        except BaseException:
            self.kill()
            raise

    def ask(self, question) -> None:
        """Sends what pickles. Raises UserError where the process has ended."""
        try:
            self.pipe.send(question)
        except OSError as error:
            raise self._ended() from error

    def answer(self):
        """What was made of the question asked longest ago. Raises what that raised, or UserError as `ask` and `look`
        do."""
        began, told = time.monotonic(), False
        try:
            while not self.pipe.poll(1):
                self.look()
                if not told and time.monotonic() - began > SLOW_S:
                    told = True
                    log.warning('worker process %d has not answered for %d s: the disk is slow, or does not answer',
                                self._process.pid, SLOW_S)
            answer, error = self.pipe.recv()
        except (EOFError, OSError) as gone:
            raise self._ended() from gone
        if error:
            raise error
        return answer

    def look(self) -> None:
        """Raises UserError where the process has been stopped for some time: it would never answer."""
        if _state(self._process.pid) not in ('T', 't'):
            self._stopped_since = None
        elif self._stopped_since is None:
            self._stopped_since = time.monotonic()
        elif time.monotonic() - self._stopped_since > _STOPPED_S:
            raise UserError(f'worker process {self._process.pid} is stopped, as by SIGSTOP or a debugger, for more '
                            f'than {_STOPPED_S} s')

    def _ended(self) -> UserError:
        self._process.join(5)
        return UserError(f'worker process {self._process.pid} has ended, with exit code {self._process.exitcode}; what '
                         f'it said is above. -9 and -7 mostly mean that memory ran out and the kernel ended it: '
                         f'{self._advice}')

    def kill(self) -> None:
        """Ends it at once, whatever it is at."""
        self._process.kill()
        self._process.join()
        self.pipe.close()


def _state(pid: int) -> str:
    """As Linux names it, T where stopped; '' where there is no telling."""
    try:
        return Path(f'/proc/{pid}/stat').read_text().rpartition(')')[2].split()[0]
    except (OSError, IndexError):
        return ''


def _serve(pipe, start: Callable, memory: Sequence, shared: tuple) -> None:
    """A worker's life."""
    def end_with_parent():
        multiprocessing.parent_process().join()
        os._exit(1)

    threading.Thread(target=end_with_parent, daemon=True).start()
    if 'jax' in sys.modules:  # no worker may take memory of a GPU
        sys.modules['jax'].config.update('jax_platforms', 'cpu')
    try:
        work = start(_received(pipe.recv(), memory), *shared)
        while True:
            pipe.send(_answer(work, pipe.recv()))
    except (EOFError, ConnectionError):  # the parent is gone
        return


def _answer(work: Callable, question) -> tuple:
    """What came of it, and the error."""
    try:
        return work(question), None
    except (UserError, OSError) as error:
        return None, error
    except MemoryError as error:  # numpy's own takes other arguments than it shows
        return None, MemoryError(str(error))
    except Exception:  # it may not pickle
        return None, RuntimeError(f'in a worker process:\n{traceback.format_exc()}')
