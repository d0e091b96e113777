"""What a model computes in inference and in training, as programs for batches of any size."""

import abc
import dataclasses
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from imagenet_jax import input_pipeline, runtime
from imagenet_jax.errors import UserError
from imagenet_jax.experiment import Experiment
from imagenet_jax.models.layers import DATA_AXIS


class Work(abc.ABC):
    """A step of a model, at any batch size.

    Attributes:
      name: infer or train.
      size: side of the images, in pixels.
      unit: batches are multiples of it.
    """
    name: str

    def __init__(self, experiment: Experiment, mesh: Mesh, size: int, unit: int):
        self._mesh, self._source, self.size, self.unit = mesh, experiment.train, size, unit

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

    def __init__(self, experiment: Experiment, mesh: Mesh, size: int):
        super().__init__(experiment, mesh, size, mesh.size)
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

    def __init__(self, experiment: Experiment, mesh: Mesh, size: int, views: int):
        super().__init__(experiment, mesh, size, mesh.size * experiment.options.accumulation)
        self._step = dataclasses.replace(experiment.train_step, mesh=mesh)
        self._views = (views,) if views > 1 else ()

    def lower(self, batch):
        return self._step.lower(self._step.abstract(self.size), self._shapes(self._shape(batch)))

    def begin(self, program, batch):
        state, images = self._step.init(0, self.size), self._images(self._shape(batch))

        def further():
            nonlocal state
            state, metrics = program(state, images, *self._step.given(state))
            return state, metrics
        return further

    def _shape(self, batch):
        return batch, *self._views, self.size, self.size, 3


class Program(NamedTuple):
    """A compiled step, for so many images, and the seconds that compiling took."""
    step: jax.stages.Compiled
    batch: int
    seconds: float


def works(config: Mapping[str, Any], *, size: int | None = None,
          mesh: Mesh | None = None) -> tuple[nn.Module, Inference, Training]:
    """A config's model, and what a run of it computes, on images that are drawn.

    Args:
      config: of a run; its data is not read.
      size: side of the images, where not the config's.
      mesh: of `step.make_mesh`, where not all devices here; those of another machine can be compiled for.

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
    mesh = mesh or experiment.mesh
    return (experiment.model, Inference(experiment, mesh, view['size']),
            Training(experiment, mesh, augment['size'], augment['views'] or 1))


def compiled(work: Work, batch: int, clock: Callable[[], float] = time.perf_counter) -> Program:
    """The step for a batch, compiled. Raises UserError: the batch is no multiple of the work's unit."""
    if batch % work.unit:
        raise UserError(f'a batch of {batch} images must be a multiple of {work.unit}: {jax.device_count()} devices, '
                        'times the parts that the recipe accumulates gradients over')
    began = clock()
    return Program(work.lower(batch).compile(), batch, clock() - began)
