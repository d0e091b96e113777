"""How fast a model is: images a second in inference and in training, on all devices, the images there already."""

import abc
import itertools
import logging
import statistics
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from imagenet_jax import input_pipeline, memory, runtime
from imagenet_jax.errors import UserError, ran_out_of_memory
from imagenet_jax.experiment import Experiment
from imagenet_jax.models.layers import DATA_AXIS

log = logging.getLogger(__name__)

LARGEST = 2**14       # images of a batch on a device, at most, where the largest that fits is looked for
# Of a CPU's free memory, which the whole machine lives on; and XLA's kernels there take some beside their plan.
_SHARE_OF_CPU = 0.8
_WARM_UP = 2          # steps, the first of which loads the program
_BLOCKS = 8           # of steps, that the time is cut into where it suffices
_LEAST_BLOCKS = 3     # that a median is of, however long they take


class Work(abc.ABC):
    """A step of a model, at any batch size.

    Attributes:
      name: infer or train.
      size: side of the images, in pixels.
      unit: batches are multiples of it.
    """
    name: str

    def __init__(self, experiment: Experiment, size: int, unit: int):
        self._mesh, self._source, self.size, self.unit = experiment.mesh, experiment.train, size, unit

    @abc.abstractmethod
    def lower(self, batch: int) -> jax.stages.Lowered:
        """The step for so many images, from their shapes alone."""

    @abc.abstractmethod
    def begin(self, program: Callable, batch: int) -> Callable[[], Any]:
        """Puts all that it takes on the devices. Each call of the answer is a step further, and answers what is there
        when the step is done."""

    def _everywhere(self, tree):
        sharding = NamedSharding(self._mesh, P())
        return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), tree)

    def _images(self, shape) -> dict:
        return next(input_pipeline.drawn_batches(self._source, shape, 0, self._mesh))[1]

    def _shapes(self, shape) -> dict:
        split = partial(jax.ShapeDtypeStruct, sharding=NamedSharding(self._mesh, P(DATA_AXIS)))
        return {'image': split(shape, np.uint8), 'label': split(shape[:1], np.int32)}


class Inference(Work):
    """uint8 images -> logits, as an evaluation makes them."""
    name = 'infer'

    def __init__(self, experiment: Experiment, size: int):
        super().__init__(experiment, size, experiment.mesh.size)
        self._model, normalize = experiment.model, experiment.train_step.normalize

        def answer(variables, images):
            return self._model.apply(variables, normalize(images), train=False)
        self._answer = jax.jit(jax.shard_map(answer, mesh=self._mesh, in_specs=(P(), P(DATA_AXIS)),
                                             out_specs=P(DATA_AXIS)))

    def lower(self, batch):
        variables = self._everywhere(jax.eval_shape(self._init))
        return self._answer.lower(variables, self._shapes((batch, self.size, self.size, 3))['image'])

    def begin(self, program, batch):
        variables = jax.jit(self._init, out_shardings=NamedSharding(self._mesh, P()))()
        images = self._images((batch, self.size, self.size, 3))['image']
        return lambda: program(variables, images)

    def _init(self):
        return self._model.init(jax.random.key(0), jnp.zeros((1, self.size, self.size, 3)), train=False)


class Training(Work):
    """The whole update of a run: `step.TrainStep` as its config makes it."""
    name = 'train'

    def __init__(self, experiment: Experiment, size: int, views: int):
        super().__init__(experiment, size, experiment.mesh.size * experiment.options.accumulation)
        self._step, self._views = experiment.train_step, (views,) if views > 1 else ()

    def lower(self, batch):
        step = self._step
        return step.compiled.lower(step.abstract(self.size), self._shapes(self._shape(batch)), *step.teachers)

    def begin(self, program, batch):
        state, images = self._step.init(0, self.size), self._images(self._shape(batch))

        def further():
            nonlocal state
            state, metrics = program(state, images, *self._step.teachers)
            return state, metrics
        return further

    def _shape(self, batch):
        return batch, *self._views, self.size, self.size, 3


class Program(NamedTuple):
    """A compiled step, for so many images, and the seconds that compiling took."""
    step: jax.stages.Compiled
    batch: int
    seconds: float


def works(config: Mapping[str, Any], *, size: int | None = None) -> tuple[nn.Module, Inference, Training]:
    """A config's model, and what a run of it computes, on images that are drawn.

    Args:
      config: of a run; its data is not read.
      size: side of the images, where not the config's.

    Raises:
      UserError: what a run of this config would refuse.
    """
    runtime.configure_jax(config['deterministic'], compilation_cache=False)  # seconds are those of compiling anew
    model = {**config['model'], 'dtype': config['model']['dtype'] or runtime.default_dtype()}
    config = {**config, 'model': model, 'data': {'format': 'synthetic'}, 'compilation_cache': False}
    view, augment = config['eval'], {**config['augment'], 'first_size': None, 'ramp_epochs': None}
    if size:
        view, augment = {**view, 'size': size, 'resize': size}, {**augment, 'size': size}
    unit = jax.device_count() * config['accumulation']
    experiment = Experiment({**config, 'eval': view, 'augment': augment, 'batch_size': unit,
                             'eval_batch_size': jax.device_count()})
    return (experiment.model, Inference(experiment, view['size']),
            Training(experiment, augment['size'], augment['views'] or 1))


def compiled(work: Work, batch: int, clock: Callable[[], float] = time.perf_counter) -> Program:
    """The step for a batch, compiled. Raises UserError: the batch is no multiple of the work's unit."""
    if batch % work.unit:
        raise UserError(f'a batch of {batch} images must be a multiple of {work.unit}: {jax.device_count()} devices, '
                        'times the parts that the recipe accumulates gradients over')
    began = clock()
    return Program(work.lower(batch).compile(), batch, clock() - began)


def largest(work: Work, clock: Callable[[], float] = time.perf_counter) -> Program:
    """The step for the largest batch that fits, by doubling and bisection.

    What a batch needs is what its compiled program plans, held against what the device says that it has, or the machine
    has free; where neither is told, two steps show whether there is room.

    Raises:
      UserError: not even the smallest fits.
    """
    best, needs, low, high = None, {}, 0, LARGEST * jax.device_count() // work.unit + 1
    guess = 1
    while high - low > 1:
        program, needs[guess] = _try(work, guess * work.unit, clock)
        if program:
            best, low = program, guess
        else:
            high = guess
        guess = _guess(needs, low, high)
    if not best:
        raise UserError(f'out of memory: not even a batch of {work.unit} fits; smaller images take less')
    return best


def _try(work, batch, clock) -> tuple[Program | None, float]:
    """(the program, or None where it does not fit; the part of the memory that it needs, NaN where not told)."""
    try:
        program = compiled(work, batch, clock)  # which takes the device's memory too, to choose the fastest kernels
        need, room = memory.planned(program.step), _room()
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
        for _ in itertools.count():
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
