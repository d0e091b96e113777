"""Several processes as one run: joined, held against each other, and ended together where one of them is lost.

JAX waits for a lost process, or aborts after minutes without saying for whom. So each process beats in the key-value
store of JAX's coordination service, which the process of rank 0 runs, and listens for the others there.
"""

import atexit
import contextlib
import ctypes
import itertools
import json
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence

import jax
from jax._src import distributed  # the client of the coordination service has no public name

from imagenet_jax.errors import SaveError, Stopped, UserError, first_line, ran_out_of_memory

# The exit code where another process is gone: EX_TEMPFAIL of sysexits.h, nothing is wrong with this one.
EXIT_LOST = 75
# Seconds between beats.
_BEAT_S = 1.0
# In the store; `beats` and `ends` lie together, since they are read at once.
_NAMES, _LIFE, _COMPARED = 'imagenet_jax/names', 'imagenet_jax/life', 'imagenet_jax/compared'
_LONGEST = 86_400  # seconds to wait for a host: a day
_AGAIN = 'start all processes again, and the run goes on from its newest checkpoint'

_peers: 'Peers | None' = None


def join(address: str = '', count: int = 0, rank: int = -1, detect: bool = False, start_timeout: int = 300,
         timeout: int = 60) -> None:
    """Makes this process one of a multi-host run.

    Args:
      address: host:port of rank 0; with it go count and rank.
      count: processes in all.
      rank: of this process, 0..count-1.
      detect: ask SLURM, Open MPI or Kubernetes instead.
      start_timeout: seconds to wait for the last of them.
      timeout: seconds without a sign of life after which a process counts as lost, and all others end.

    Raises:
      UserError: options that do not go together.

    Where not all come, or one is lost later, the process ends with EXIT_LOST and one line.
    """
    for name, seconds, least in (('start_timeout', start_timeout, 1), ('timeout', timeout, 5)):
        if not least <= seconds <= _LONGEST:
            raise UserError(f'config.distributed.{name}={seconds} must be in {least}..{_LONGEST} seconds')
    if not address and not detect:
        if count or rank >= 0:
            raise UserError('config.distributed.count and rank need config.distributed.address, host:port of rank 0')
        return
    if address and not 0 <= rank < count:
        raise UserError(f'config.distributed.rank={rank} must be in 0..count-1, and config.distributed.count={count}')
    _join((address, count, rank) if address else (), start_timeout, timeout)


def _join(job: tuple, start_timeout: int, timeout: int) -> None:
    # JAX's preemption service would take SIGTERM away from StopSignal, and the run would train on until it is killed.
    jax.config.update('jax_enable_preemption_service', False)
    _explain_aborts()
    late = threading.Timer(start_timeout, _end, (
        f'not all processes came within {start_timeout} s (config.distributed.start_timeout); see which did not start, '
        f'then {_AGAIN}', EXIT_LOST))  # JAX itself would abort
    late.daemon = True
    late.start()
    try:
        # JAX's own heartbeats are the second line, for where this process's threads do not get to run.
        jax.distributed.initialize(
            *job, initialization_timeout=start_timeout + 30, heartbeat_timeout_seconds=3 * timeout + 60)
    except (ValueError, RuntimeError) as error:
        raise UserError(f'cannot join the other hosts: {first_line(error)}') from error
    finally:
        late.cancel()
    state = distributed.global_state
    global _peers
    _peers = Peers(state.client, state.process_id, state.num_processes, timeout)


def _explain_aborts() -> None:
    """Where the process of rank 0 is gone, XLA aborts the others at once, in a thread of its own."""
    if threading.current_thread() is threading.main_thread():
        ctypes.CDLL(None).signal(signal.SIGABRT, _aborted)


@ctypes.CFUNCTYPE(None, ctypes.c_int)
def _aborted(number: int) -> None:
    del number
    _end('JAX gave up this process, as it does where that of rank 0 was lost or stopped; what it said is above. Else '
         f'{_AGAIN}', EXIT_LOST)


def _end(line: str, code: int) -> None:
    """Ends this process, whatever its threads wait for."""
    with contextlib.suppress(Exception):
        sys.stdout.flush()
    os.write(2, f'\nerror: {line}\n'.encode(errors='replace'))
    os._exit(code)


class Peers:
    """Beats for this process and listens for the others, in threads; ends it where another has ended or is lost.

    Args:
      client: of the coordination service.
      rank, count: of this process; of all.
      timeout: seconds without a sign of life that are borne.
    """

    def __init__(self, client, rank: int, count: int, timeout: float):
        self._client, self._rank, self._timeout = client, rank, timeout
        self._others = [other for other in range(count) if other != rank]
        self._beats, self._ends = {}, {}
        self._reset(time.monotonic())
        self._over = threading.Event()
        client.key_value_set(f'{_NAMES}/{rank}', f'process {os.getpid()} on {socket.gethostname()}')
        for work in (self._beat, self._look):
            threading.Thread(target=work, daemon=True, name='hosts').start()

    def _reset(self, now: float) -> None:
        self._answered, self._heard = now, dict.fromkeys(self._others, now)

    def _beat(self) -> None:
        for number in itertools.count():
            with contextlib.suppress(Exception):  # time tells
                self._client.key_value_set(f'{_LIFE}/beat/{self._rank}', str(number), allow_overwrite=True)
                self._listen(self._client.key_value_dir_get(_LIFE))
            if self._over.wait(_BEAT_S):
                return

    def _listen(self, entries: Sequence[tuple[str, str]]) -> None:
        now = self._answered = time.monotonic()
        for key, value in entries:
            kind, rank = key.split('/')[-2:]
            if kind == 'end':
                self._ends[int(rank)] = json.loads(value)
            elif self._beats.get(int(rank)) != value:
                self._beats[int(rank)], self._heard[int(rank)] = value, now

    def _look(self) -> None:
        looked = time.monotonic()
        while not self._over.wait(_BEAT_S):
            now = time.monotonic()
            if now - looked > 5 * _BEAT_S:  # it was this process that stood still
                self._reset(now)
            looked = now
            if found := self.why_over(now):
                _end(*found)

    def why_over(self, now: float) -> tuple[str, int] | None:
        """(what to say, exit code) where this process has to end since another did."""
        for rank in self._others:
            line, code = self._ends.get(rank, ('', 0))
            if code:
                return f'{self.name(rank)} ended: {line}', code
        if 0 in self._others and 0 not in self._ends and now - self._answered > self._timeout:
            return self._lost(0), EXIT_LOST  # whatever of the others: their beats come by way of it
        for rank in self._others:
            if rank not in self._ends and now - self._heard[rank] > self._timeout:
                return self._lost(rank), EXIT_LOST
        return None

    def _lost(self, rank: int) -> str:
        return (f'nothing was heard of {self.name(rank)} for {self._timeout:g} s (config.distributed.timeout): it was '
                f'lost, is stopped or cut off; {_AGAIN}')

    def name(self, rank: int) -> str:
        """Of a process, for people."""
        found = []
        asking = threading.Thread(target=lambda: found.append(
            self._client.blocking_key_value_get(f'{_NAMES}/{rank}', 1000)), daemon=True)
        asking.start()
        asking.join(2)  # where the process of rank 0 is stopped, nobody answers
        return f'rank {rank} ({found[0]})' if found else f'rank {rank}'

    def wait_for_cause(self) -> None:
        """Where another process was lost, this one ends in here."""
        time.sleep(self._timeout + 5 * _BEAT_S)

    def leave(self, line: str = '', code: int = 0, at_once: bool = False) -> None:
        """Tells the others that this process ends, and why where it is an error; they end then too. `at_once`: it ends
        without what is registered to be done at its end."""
        if self._over.is_set():
            return
        self._over.set()
        with contextlib.suppress(Exception):
            self._client.key_value_set(f'{_LIFE}/end/{self._rank}', json.dumps([line, code]))
        if at_once:
            self._let_them_read()
        elif code:
            atexit.register(self._go, code)

    def _let_them_read(self) -> None:
        if self._rank == 0:  # the store goes with this process
            time.sleep(5 * _BEAT_S)

    def _go(self, code: int) -> None:
        """JAX would wait for the others to leave in good order first, which they do not."""
        self._let_them_read()
        sys.stderr.flush()
        os._exit(code)

    def compare(self, what: str, entry: Mapping[str, object]) -> None:
        """Raises UserError, in every process alike, where one has other values than that of rank 0."""
        root = f'{_COMPARED}/{what}'
        self._client.key_value_set(f'{root}/of/{self._rank}', json.dumps(entry, sort_keys=True, default=str))
        if self._rank == 0:
            given = [json.loads(self._wait(f'{root}/of/{rank}')) for rank in range(len(self._others) + 1)]
            self._client.key_value_set(f'{root}/verdict', _differences(given))
        if verdict := self._wait(f'{root}/verdict'):
            raise UserError(verdict)

    def _wait(self, key: str) -> str:
        """A value, once it is there: as long as all processes live, it will be."""
        while True:
            try:
                return self._client.blocking_key_value_get(key, 5000)
            except RuntimeError as error:
                if 'DEADLINE_EXCEEDED' not in str(error):
                    raise


def _differences(given: Sequence[Mapping[str, object]]) -> str:
    """One line, '' where all are the same."""
    for rank, other in enumerate(given):
        differ = sorted(name for name in given[0].keys() | other.keys() if given[0].get(name) != other.get(name))
        if differ:
            shown = ', '.join(f'{name} is {_short(given[0].get(name))} in rank 0 and {_short(other.get(name))} in rank '
                              f'{rank}' for name in differ[:5])
            more = f', and {len(differ) - 5} more' if len(differ) > 5 else ''
            return f'the processes of a run must have the same options, data and versions: {shown}{more}'
    return ''


def _short(value: object) -> str:
    return f'{value!r:.80}'


def compare(what: str, entry: Mapping[str, object]) -> None:
    """Holds this process's values against the others'. `what` is a name for them, used once.

    Raises:
      UserError: they differ, in every process.
    """
    if _peers:
        _peers.compare(what, entry)


@contextlib.contextmanager
def telling() -> Iterator[None]:
    """While entered, an error that ends this process ends the others too, before anything here waits for them."""
    try:
        yield
    except BaseException as error:
        if _peers and not isinstance(error, Stopped):
            if _may_come_of_another(error):
                _peers.wait_for_cause()
            _peers.leave(first_line(error) or type(error).__name__, 130 if isinstance(error, KeyboardInterrupt) else 1,
                         at_once=isinstance(error, SaveError))
        raise


def _may_come_of_another(error: BaseException | None) -> bool:
    """Whether a sum over all, or a wait for all, may have failed since one is gone."""
    if error is None:
        return False
    failed = isinstance(error, jax.errors.JaxRuntimeError) or (isinstance(error, ValueError) and 'Gloo' in str(error))
    return (failed and not ran_out_of_memory(error)) or _may_come_of_another(error.__cause__)


@contextlib.contextmanager
def together() -> Iterator[None]:
    """The whole of a run: `telling`, and in the end leaving in good order."""
    try:
        with telling():
            yield
    finally:
        if _peers:
            _peers.leave()
