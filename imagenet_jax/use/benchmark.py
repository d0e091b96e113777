"""How fast a model is: images a second in inference and in training, on all devices, the images there already."""

import logging
import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import jax

from imagenet_jax import memory
from imagenet_jax.errors import UserError, ran_out_of_memory
from imagenet_jax.models import summary
from imagenet_jax.use.workloads import Program, Work, compiled

log = logging.getLogger(__name__)

LARGEST = 2**14       # images of a batch on a device, at most, where the largest that fits is looked for
# Of a CPU's free memory, which the whole machine lives on. And what convolutions take there beside their plan was
# measured at up to a third more.
_SHARE_OF_CPU = 0.5
_WARM_UP = 2          # steps, the first of which loads the program
_BLOCKS = 8           # of steps, that the time is cut into where it suffices
_LEAST_BLOCKS = 3     # that a median is of, however long they take


def about(model: nn.Module, size: int) -> dict:
    """Of a model at a size of images, and where it is measured: param_count in millions, infer_gmacs, dtype, device,
    devices, jax."""
    parameters, multiply_adds = summary.total(summary.layers(model, size))
    return {'param_count': round(parameters / 1e6, 6), 'infer_gmacs': round(multiply_adds / 1e9, 6),
            'dtype': model.dtype.name, 'device': jax.devices()[0].device_kind, 'devices': jax.device_count(),
            'jax': jax.__version__}


def largest(work: Work, clock: Callable[[], float] = time.perf_counter) -> Program:
    """The step for the largest batch that fits, by doubling and bisection.

    What a batch needs is what its compiled program plans, held against what the device says that it has, or the machine
    has free; where neither is told, two steps show whether there is room.

    Raises:
      UserError: not even the smallest fits.
    """
    best, needs, room = None, {}, _room()  # once: it changes from one look to the next
    guess, low, high = 1, 0, LARGEST * jax.device_count() // work.unit + 1
    while high - low > 1:
        program, needs[guess] = _try(work, guess * work.unit, room, clock)
        if program:
            best, low = program, guess
        else:
            high = guess
        guess = _guess(needs, low, high)
    if not best:
        raise UserError(f'out of memory: not even a batch of {work.unit} fits; smaller images take less')
    return best


def _try(work, batch, room, clock) -> tuple[Program | None, float]:
    """(the program, or None where it does not fit; the part of the memory that it needs, NaN where not told)."""
    try:
        program = compiled(work, batch, clock)  # which takes the device's memory too, to choose the fastest kernels
        need = memory.planned(program.step)
        if need is None or room is None:
            measure(work, program, 0, clock)
            return program, float('nan')
        return program if need <= room else None, need / room
    except (MemoryError, RuntimeError) as error:
        if not ran_out_of_memory(error):
            raise
    return None, float('nan')


def _room() -> float | None:
    """Bytes of one device."""
    room = memory.room()
    if room is not None and jax.default_backend() == 'cpu':
        return _SHARE_OF_CPU * room / jax.local_device_count()
    return room


def _guess(needs: Mapping[int, float], low: int, high: int) -> int:
    """The next to try: twice the last that fits, or between it and the first that does not.

    Plans grow about as a line. Where that through the last two meets the memory's end is tried first, no further than
    eight times what fits; every third is the middle, whatever the line says.
    """
    (first, need), (last, more) = (list(needs.items()) * 2)[-2:]
    middle = (low + high) // 2 if high in needs else 2 * low
    if len(needs) % 3 and (last - first) * (more - need) > 0:
        meets = first + (1 - need) * (last - first) / (more - need)
        middle = int(min(meets, 8 * max(1, low)))
    return max(low + 1, min(middle, high - 1))


class Timing(NamedTuple):
    """Seconds a step: the median, least and most over blocks of steps."""
    median: float
    least: float
    most: float


def timed(step: Callable[[], Any], seconds: float, clock: Callable[[], float] = time.perf_counter) -> Timing:
    """Times a step that answers before it is done.

    Args:
      step: each call is one, and answers what to wait for.
      seconds: about how long to go on; a few steps are made whatever they take.
      clock: tells seconds.
    """
    def block(steps):
        began = clock()
        for _ in range(steps):
            done = step()
        jax.block_until_ready(done)
        return (clock() - began) / steps
    for _ in range(_WARM_UP):
        one = block(1)
    steps, ends = max(1, int(seconds / _BLOCKS / max(one, 1e-9))), clock() + seconds
    blocks = [block(steps) for _ in range(_LEAST_BLOCKS)]
    while clock() < ends:
        blocks.append(block(steps))
    return Timing(statistics.median(blocks), min(blocks), max(blocks))


def measure(work: Work, program: Program, seconds: float, clock: Callable[[], float] = time.perf_counter) -> dict:
    """How fast a program is.

    Returns:
      By timm's names, each after that of the work: samples_per_sec, step_time (ms), batch_size and img_size; then
      step_time_min, step_time_max, compile_s, planned_gb of one device, None where it does not tell, and peak_gb, the
      device's own highest mark, None where it does not tell or an earlier program set it.
    """
    before, need = _peak(), memory.planned(program.step)
    time_of = timed(work.begin(program.step, program.batch), seconds, clock)
    peak = _peak()
    row = {'samples_per_sec': round(program.batch / time_of.median, 2), 'step_time': round(1e3 * time_of.median, 3),
           'batch_size': program.batch, 'img_size': work.size, 'step_time_min': round(1e3 * time_of.least, 3),
           'step_time_max': round(1e3 * time_of.most, 3), 'compile_s': round(program.seconds, 2),
           'planned_gb': need and round(need / 1e9, 3),
           'peak_gb': round(peak / 1e9, 3) if peak is not None and peak > before else None}
    return {f'{work.name}_{name}': value for name, value in row.items()}


def _peak() -> int | None:
    return (jax.local_devices()[0].memory_stats() or {}).get('peak_bytes_in_use')


def run(work: Work, batch: int | None, seconds: float, clock: Callable[[], float] = time.perf_counter) -> dict:
    """Compiles and measures a step; of no given batch, the largest that fits. See `measure`.

    Raises:
      UserError: it needs more memory than there is, or the batch cannot be.
    """
    with memory.explained('the benchmark', 'a smaller --batch-size or --size takes less'):
        program = largest(work, clock) if batch is None else compiled(work, batch, clock)
        while True:
            try:
                if batch is not None:
                    memory.check(program.step, f'a batch of {batch}', 'lower --batch-size, or --batch-size auto')
                return measure(work, program, seconds, clock)
            except (MemoryError, RuntimeError) as error:
                smaller = program.batch * 7 // 8 // work.unit * work.unit
                if batch is not None or not smaller or not ran_out_of_memory(error):
                    raise
            # A plan does not tell how the free memory is cut up.
            log.warning('a batch of %d does not fit, for all that its plan says; trying %d', program.batch, smaller)
            program = compiled(work, smaller, clock)
