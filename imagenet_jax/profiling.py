"""Traces by jax.profiler of some of a run's steps, and what took how long in one.

    <run>/plugins/profile/<date>/*.xplane.pb   the trace, where TensorBoard's profile plugin looks for it
    <run>/profile.json                         of the newest one: `summary`
"""

import collections
import contextlib
import dataclasses
import json
import logging
import math
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import jax

from imagenet_jax.errors import UserError, beside, first_line, replacing

log = logging.getLogger(__name__)

# Lines that a run logs.
_SHOWN = 10


class Tracer:
    """Traces the steps after `start` up to `stop` into a run's folder, and says what took longest; () for none.

    What is wrong with the profiler is a warning: no run ends for it.
    """

    def __init__(self, workdir: Path | None, steps: tuple[int, ...]):
        self._workdir, self._on = workdir, False
        self._start, self._stop = steps or (0, 0)

    def before(self, at: int, pause: Callable[[], None]) -> None:
        """Step `at` comes, counted from 1. `pause` waits for the steps in flight: called where a trace begins."""
        if at > self._stop > 0 and not self._on:
            log.info('no trace: steps %d to %d were made before this start', self._start + 1, self._stop)
            self._stop = 0
        if self._start < at <= self._stop and not self._on:
            pause()
            self._begin(at)

    def after(self, at: int, pause: Callable[[], None], evaluating: bool = False) -> None:
        """Step `at` is started; `pause` is called where a trace ends: at its last step, or before an evaluation, whose
        operations would count as the steps'."""
        if self._on and (at == self._stop or evaluating):
            pause()
            if at < self._stop:
                log.info('the trace ends with step %d, not %d: an evaluation follows', at, self._stop)
            self.close()

    def _begin(self, at):
        self._on = True
        log.info('tracing steps %d to %d', at, self._stop)
        try:
            jax.profiler.start_trace(str(self._workdir), profiler_options=_options())
        except Exception as error:  # a profiler of another process, or a version that does not fit
            self._give_up(error)

    def close(self) -> None:
        """Ends a trace that is under way, and writes its summary."""
        if not self._on:
            return
        self._on, self._stop = False, 0
        try:
            jax.profiler.stop_trace()
            found = write_summary(self._workdir)
            log.info('%s\nthe trace is in %s', '\n'.join(lines(found, _SHOWN)), found['trace'])
        except UserError as error:
            log.warning('%s', error)
        except Exception as error:
            self._give_up(error)

    def _give_up(self, error):
        self._on, self._stop = False, 0
        log.warning('no trace: %s: %s', type(error).__name__, first_line(error))


def _options() -> jax.profiler.ProfileOptions:
    options = jax.profiler.ProfileOptions()
    options.python_tracer_level = 0  # each call of Python would be an event, and slower by it
    return options


def traced(folder: Path) -> contextlib.AbstractContextManager:
    """While entered, what is computed is traced into a folder."""
    return jax.profiler.trace(str(folder), profiler_options=_options())


def write_summary(folder: Path) -> dict:
    """`summary` of a folder, written to profile.json there. Raises UserError."""
    found = summary(folder)
    with replacing(folder / 'profile.json') as file:
        file.write_text(json.dumps(found, indent=1) + '\n')
    return found


def step(number: int) -> jax.profiler.StepTraceAnnotation:
    """A context in which a step is started: TensorBoard tells steps apart by it."""
    return jax.profiler.StepTraceAnnotation('train', step_num=number)


@dataclasses.dataclass
class _Operation:
    """Of one name: its time without what it calls, and how often it ran."""
    group: str
    nanoseconds: float = 0.0
    count: int = 0


def summary(folder: Path) -> dict:
    """What took how long in the newest trace below a folder.

    Returns:
      trace: its file. steps: that were marked in it, 0 where none was. total_ms: of all operations, those that ran side
      by side added up. operations, groups: by name, and by name without a number, longest first, each with its name,
      ms, share of the total and count. On a GPU operations are kernels and copies.

    Raises:
      UserError: no trace, or one that cannot be read or has no operation.
    """
    path = find(folder)
    try:
        # Not from_file, which takes no name that is not text.
        planes = list(jax.profiler.ProfileData.from_serialized_xspace(path.read_bytes()).planes)
        operations, steps = _operations(planes), _steps(planes)
    except OSError as error:
        raise UserError(f'{path} cannot be read: {error.strerror}') from error
    except Exception as error:  # jaxlib's reader has no kinds of errors
        raise UserError(f'{path} is damaged, or no trace of jax.profiler: {first_line(error)}') from error
    if not operations:
        raise UserError(f'{path} has no operation of a program: nothing was computed while it was made')
    groups = collections.defaultdict(lambda: _Operation(''))
    for one in operations.values():
        groups[one.group].nanoseconds += one.nanoseconds
        groups[one.group].count += one.count
    total = math.fsum(one.nanoseconds for one in operations.values())
    return {'trace': str(path), 'steps': steps, 'total_ms': round(total / 1e6, 6),
            'groups': _rows(groups, total), 'operations': _rows(operations, total)}


def find(folder: Path) -> Path:
    """The newest trace in a folder, at any depth, or the file itself that is named. Raises UserError."""
    if os.path.isfile(folder):  # of any length
        return folder
    if not os.path.isdir(folder):
        raise UserError(f'{folder} is neither a folder nor a file' if os.path.exists(folder) else
                        f'no folder {folder}; {beside(folder)}')
    files = (path for path in folder.rglob('*.xplane.pb') if path.is_file())  # no link to what is gone
    found = sorted(files, key=lambda path: (path.stat().st_mtime, path))
    if not found:
        raise UserError(f'{folder} has no trace (*.xplane.pb): a run makes one with --config.profile_steps="(10, 13)", '
                        'or any program with jax.profiler.trace')
    return found[-1]


def lines(found: dict, most: int, rows: str = 'groups') -> list[str]:
    """A summary as a table of `most` of its rows, in lines of 80 columns where names are short."""
    steps = f', {found["total_ms"] / found["steps"]:,.3f} ms a step of {found["steps"]}' if found['steps'] else ''
    told = [f'{found["total_ms"]:,.3f} ms of operations{steps}', f'{"ms":>12} {"share":>6} {"count":>7}  name']
    shown = found[rows][:most]
    if rest := found[rows][most:]:
        shown = [*shown, {'name': f'{len(rest)} more'}
                 | {name: math.fsum(row[name] for row in rest) for name in ('ms', 'share', 'count')}]
    return told + [f'{row["ms"]:>12,.3f} {row["share"]:>6.1%} {row["count"]:>7,.0f}  {row["name"]}' for row in shown]


def _rows(operations, total) -> list[dict]:
    ordered = sorted(operations.items(), key=lambda item: (-item[1].nanoseconds, item[0]))
    return [{'name': name, 'ms': round(one.nanoseconds / 1e6, 6), 'share': round(one.nanoseconds / max(total, 1e-9), 6),
             'count': one.count} for name, one in ordered]


def _operations(planes) -> dict[str, _Operation]:
    """Those of the devices or, of a trace that has no device's, those that the host's own threads computed."""
    devices = [plane for plane in planes if plane.name.startswith('/device:')]
    for some in (devices, planes):
        found = collections.defaultdict(lambda: _Operation(''))
        for line in (line for plane in some for line in _lines(plane)):
            for event, nanoseconds in _own_times(line):
                name, operation = event.name, dict(event.stats).get('hlo_op', '')
                found[name].group = _group(name, operation)
                found[name].nanoseconds += nanoseconds
                found[name].count += 1
        if found:
            break
    return dict(found)


def _lines(plane) -> list:
    """A TPU has a line of operations, beside others of whole programs; a GPU one for each stream."""
    found = list(plane.lines)
    if not plane.name.startswith('/device:'):
        return found
    return ([line for line in found if line.name == 'XLA Ops']
            or [line for line in found if line.name.startswith('Stream')])


def _own_times(line) -> Iterator[tuple]:
    """(event, its nanoseconds without those of the events within it), of the events that are a program's operations.

    A loop's event lasts as long as all that runs in it.
    """
    on_device = line.name.startswith(('Stream', 'XLA Ops'))
    events = [event for event in line.events if on_device or 'hlo_op' in dict(event.stats)]
    open_ones = []  # [event, its end, its own time], each within the one before
    for event in sorted(events, key=lambda event: (event.start_ns, -event.duration_ns)):
        while open_ones and open_ones[-1][1] <= event.start_ns:
            yield open_ones[-1][0], open_ones.pop()[2]
        if open_ones:
            open_ones[-1][2] = max(0.0, open_ones[-1][2] - event.duration_ns)
        open_ones.append([event, event.start_ns + event.duration_ns, event.duration_ns])
    yield from ((event, own) for event, _, own in open_ones)


def _group(name: str, operation: str) -> str:
    """fusion for fusion.7. A kernel of a library has digits in its name that are no number of it."""
    if name.replace('.', '_') != operation.replace('.', '_'):
        return name
    return re.sub(r'[._]\d+$', '', name)


def _steps(planes) -> int:
    """That `step` marked."""
    return len({stats['step_num'] for plane in planes if not plane.name.startswith('/device:')
                for line in plane.lines for event in line.events if event.name == 'train'
                for stats in [dict(event.stats)] if 'step_num' in stats})
