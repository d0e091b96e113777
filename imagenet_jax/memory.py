"""Memory of the devices: what a program needs and what there is, and one line where it does not suffice."""

import contextlib
import re
import resource
from collections.abc import Callable, Iterator
from pathlib import Path

import jax

from imagenet_jax.errors import UserError, first_line, ran_out_of_memory
from imagenet_jax.workers import control_groups

# Where Linux says what memory the machine has left, and what this process takes.
_MACHINE, _PROCESS = Path('/proc/meminfo'), Path('/proc/self/statm')


def check(program: jax.stages.Compiled, what: str, remedy: str) -> None:
    """Holds a compiled program's own plan against the device's memory.

    Of an accelerator all its memory counts, since others' share of it may be given back; of a CPU what is free, which
    the program's arguments have left already and which all simulated devices share.

    Raises:
      UserError: it needs more than there is.
    """
    plan, device, there = program.memory_analysis(), jax.local_devices()[0], room()
    if plan is None or there is None:
        return
    need, given = _needed(plan), plan.argument_size_in_bytes
    copies = jax.local_device_count() if device.platform == 'cpu' else 1
    if device.platform == 'cpu':
        there += copies * given
    if copies * need > there:
        raise UserError(f'out of memory: {what} needs {_gb(copies * need)}, of which {_gb(copies * given)} '
                        f'are its arguments, and {_name(device)} has {_gb(there)}; {remedy}')


def planned(program: jax.stages.Compiled) -> int | None:
    """Bytes that a compiled program takes on each device, its arguments among them; None where it is not told."""
    plan = program.memory_analysis()
    return plan and _needed(plan)


def _needed(plan) -> int:
    return (plan.argument_size_in_bytes + plan.temp_size_in_bytes + plan.output_size_in_bytes
            - plan.alias_size_in_bytes)


def room() -> int | None:
    """Bytes that programs may take: of an accelerator all that it has, of a CPU what is free, which all simulated
    devices share; None where it is not told."""
    device = jax.local_devices()[0]
    return free_memory() if device.platform == 'cpu' else (device.memory_stats() or {}).get('bytes_limit')


def guarded(program: Callable, what: str, remedy: str) -> Callable:
    """The jitted program, its plan checked before the first call."""
    checked = False

    def call(*arguments):
        nonlocal checked
        if not checked:
            check(program.lower(*arguments).compile(), what, remedy)  # the call finds it compiled
            checked = True
        return program(*arguments)
    return call


@contextlib.contextmanager
def explained(what: str, remedy: str) -> Iterator[None]:
    """While entered, want of memory is a UserError of one line, whoever tells of it and at whatever length."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not ran_out_of_memory(error):
            raise
        raise UserError(f'out of memory in {what}: {_asked(error)}{_there()}; {remedy}') from error


def free_memory(groups: Path = Path('/sys/fs/cgroup')) -> int | None:
    """Bytes that this process may still take: the least of what the machine has left, the limits of its control groups
    and those of `ulimit`; None where none of them is told.

    `groups`: where Linux shows control groups, of either version.
    """
    return min(map(int, (*_of_machine(), *_of_groups(groups), *_of_process())), default=None)


def _of_machine() -> Iterator[int]:
    with contextlib.suppress(OSError, ValueError, KeyError):
        # Name: number kB
        lines = dict(line.split(':', 1) for line in _MACHINE.read_text().splitlines())
        yield 1024 * sum(int(lines[name].split()[0]) for name in ('MemAvailable', 'SwapFree'))


def _of_groups(groups: Path) -> Iterator[int]:
    names = {1: ('memory.limit_in_bytes', 'memory.usage_in_bytes', 'total_inactive_file'),
             2: ('memory.max', 'memory.current', 'inactive_file')}
    for group, version in control_groups('memory', groups):
        limit, usage, cached = names[version]
        with contextlib.suppress(OSError, ValueError):  # the root has no limit, and 'max' is none
            stat = dict(line.split() for line in (group / 'memory.stat').read_text().splitlines())
            # What files left in memory is given back where it is asked for.
            yield max(0, int((group / limit).read_text()) - int((group / usage).read_text()) + int(stat.get(cached, 0)))


def _of_process() -> Iterator[int]:
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    if limit != resource.RLIM_INFINITY:
        with contextlib.suppress(OSError):
            yield max(0, limit - int(_PROCESS.read_text().split()[0]) * resource.getpagesize())


def _asked(error: Exception) -> str:
    """What the failed request was for, or the first line of what is said of it."""
    said = str(error)
    if wanted := re.search(r'allocat\w+[a-z ]* ([\d.]+) ?([KMGTPE]i?B)?', said):
        size = f'{wanted[1]} {wanted[2]}' if wanted[2] else _gb(float(wanted[1]))
        return f'there was no room for {size} more'
    if wanted := re.search(r'[Uu]sed ([\d.]+ ?\w+) of ([\d.]+ ?\w+)', said):  # XLA for TPUs, while it compiles
        return f'it needs {wanted[1]} of {wanted[2]}'
    return first_line(error) or 'a request was refused'


def _there() -> str:
    """For the end of a sentence, '' where it is not told."""
    device = jax.local_devices()[0]
    if device.platform == 'cpu':
        free = free_memory()
        return '' if free is None else f', and {_name(device)} has {_gb(free)} left'
    limit = (device.memory_stats() or {}).get('bytes_limit')
    return f', and {_name(device)} has {_gb(limit)} in all' if limit else ''


def _name(device: jax.Device) -> str:
    return 'this machine' if device.platform == 'cpu' else f'the device {device.device_kind}'


def _gb(size: int) -> str:
    return f'{size / 1e9:,.2f} GB'
