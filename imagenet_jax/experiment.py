"""A config, read: everything that the loop calls, built and checked before any training starts."""

import contextlib
import dataclasses
import itertools
import logging
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

import jax
import numpy as np

from imagenet_jax import finetune, input_pipeline, losses, models, optim, runtime, sources, step
from imagenet_jax.errors import UserError, unknown
from imagenet_jax.evaluate import evaluate
from imagenet_jax.images import train_view
from imagenet_jax.images.batch import Normalize
from imagenet_jax.images.eval_view import EvalView
from imagenet_jax.options import apply, chosen

log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """A config's top level; configs/common.py has meanings and defaults. Sections go on to what reads them."""
    model: Mapping
    data: Mapping
    augment: Mapping
    normalize: Mapping
    eval: Mapping
    optimizer: Mapping
    schedule: Mapping
    distributed: Mapping
    init_from: str
    freeze: tuple
    loss: str
    batch_size: int
    eval_batch_size: int
    accumulation: int
    epochs: float
    steps: int
    label_smoothing: float
    ema_decay: float
    eval_epochs: float
    eval_steps: int
    confusion_epochs: float
    checkpoint_steps: int
    log_steps: int
    max_bad_steps: int
    seed: int
    deterministic: bool
    compilation_cache: bool
    dry_run: bool
    message: str


@dataclasses.dataclass(frozen=True)
class Data:
    """The section `data`, read: two checked splits, who decodes, and what unreadable samples do."""
    train: sources.Source
    test: sources.Source
    workers: input_pipeline.Workers
    bad_samples: Callable[[sources.Source], input_pipeline.BadSamples]


def open_data(num_classes: int, size: int, *, format: str, path: str, train_split: str, eval_split: str,
              processes: int, threads: int, on_error: str, max_bad_fraction: float, **options) -> Data:
    """Opens both splits; configs/common.py, section data, says what each option means. Raises UserError."""
    train, test = (sources.create(format, path, split, num_classes, size, **options)
                   for split in (train_split, eval_split))
    if train.class_names != test.class_names:
        pairs = itertools.zip_longest(train.class_names, test.class_names)
        other = ', '.join([f'{a!r} against {b!r}' for a, b in pairs if a != b][:5])
        raise UserError(f'splits {train_split} and {eval_split} of {path} have other classes: {other}')
    log.info('%s: %d images to train on, %d to evaluate on; %d outputs for %s classes', path or format, len(train),
             len(test), num_classes, len(train.class_names) or 'unnamed')
    bad_samples = partial(input_pipeline.BadSamples, on_error=on_error, max_bad_fraction=max_bad_fraction)
    bad_samples(train)  # refuses wrong options now
    return Data(train, test, input_pipeline.Workers(processes, threads), bad_samples)


def open_input(options: Options, num_classes: int) -> tuple[Data, train_view.TrainView, EvalView]:
    """What a config says of images: where they are, what training makes of one, and evaluation. Raises UserError."""
    augment = train_view.create(options.augment, 'config.augment')
    view = apply(EvalView, options.eval, 'config.eval')
    data = apply(open_data, options.data, 'config.data', num_classes=num_classes, size=augment.size)
    return data, augment, view


def open_device_part(options: Options) -> Normalize:
    """What the device makes of uint8 images before the model, in a step and to look at. Raises UserError."""
    return apply(Normalize, options.normalize, 'config.normalize')


class Experiment:
    """What a config describes.

    Attributes:
      options: the config's top level.
      steps: updates of the whole run.
      steps_per_epoch: a float, since epochs may end inside a batch.
      mesh, model, data, train_step: as the modules of those names say.
      score: the number in an evaluation's row that the best checkpoint is chosen by.
    """

    def __init__(self, config: Mapping[str, Any]):
        self.options = options = apply(Options, config, 'config')
        runtime.configure_jax(options.deterministic, options.compilation_cache)
        apply(runtime.join_hosts, options.distributed, 'config.distributed')
        self.mesh = step.make_mesh()
        self.model = apply(models.create, options.model, 'config.model')
        if self.model.num_classes < 1:
            raise UserError(f'config.model.num_classes={self.model.num_classes}; training needs at least one class')
        self.data, self._augment, self._view = open_input(options, self.model.num_classes)
        self._check_loss()
        self.score = 'eval/top1' if options.loss == 'softmax' else 'eval/mean_average_precision'
        self._check_numbers()
        self.steps_per_epoch = len(self.data.train) / options.batch_size
        planned = options.steps or max(1, round(options.epochs * self.steps_per_epoch))
        self.steps = 1 if options.dry_run else planned
        self._optimizer = self._make_optimizer(planned)
        self._state_parts = self.model, self._optimizer, self.mesh
        self._state_options = {'seed': options.seed, 'image_size': self._augment.size, 'ema': bool(options.ema_decay)}
        self._check_patterns()
        preprocess = open_device_part(options)
        self.train_step = step.make_train_step(
            self.model, self._optimizer, preprocess, self.mesh, loss=options.loss,
            label_smoothing=options.label_smoothing, accumulation=options.accumulation, ema_decay=options.ema_decay,
            freeze=options.freeze)
        self._eval_step = step.make_eval_step(self.model, preprocess, self.mesh, loss=options.loss)

    def _check_loss(self):
        loss, data = self.options.loss, self.data
        if loss not in losses.LOSSES:
            raise unknown('config.loss', loss, losses.LOSSES)
        for source in (data.train, data.test):
            if source.labels.ndim == 2 and loss == 'softmax':
                raise UserError('config.loss=softmax is for images of one class each, and these may have several: set '
                                'config.loss=sigmoid')
            if source.labels.ndim == 1 and loss == 'sigmoid':
                raise UserError('config.loss=sigmoid is for images that may have several classes, and these have one '
                                'each: set config.loss=softmax (or for voc config.data.labels=all)')
        if loss == 'sigmoid' and not (data.test.labels == 1).any():
            raise UserError(f'no image of {len(data.test)} to evaluate on is of any class')

    def _check_numbers(self):
        options, devices = self.options, jax.device_count()
        if options.accumulation < 1:
            raise UserError(f'config.accumulation={options.accumulation} must be at least 1')
        for name in ('batch_size', 'eval_batch_size'):
            size, parts = getattr(options, name), devices * (options.accumulation if name == 'batch_size' else 1)
            if size < 1 or size % parts:
                raise UserError(f'config.{name}={size} must be a positive multiple of {parts}: {devices} devices times '
                                f'config.accumulation={options.accumulation} where it is trained on')
        for name in ('seed', 'epochs', 'steps', 'eval_epochs', 'eval_steps', 'confusion_epochs', 'checkpoint_steps',
                     'max_bad_steps', 'log_steps'):
            if getattr(options, name) < 0:
                raise UserError(f'config.{name}={getattr(options, name)} must not be negative')
        for name in ('label_smoothing', 'ema_decay'):
            if not 0 <= getattr(options, name) < 1:
                raise UserError(f'config.{name}={getattr(options, name)} must be in [0, 1)')

    def _make_optimizer(self, steps: int) -> optim.Optimizer:
        options = self.options
        section = chosen(options.optimizer)
        if 'learning_rate' not in section:
            raise UserError('config.optimizer lacks learning_rate')
        rate = apply(optim.schedule, options.schedule, 'config.schedule', learning_rate=section.pop('learning_rate'),
                     batch_size=options.batch_size, steps=steps, steps_per_epoch=self.steps_per_epoch)
        return apply(optim.create, section, 'config.optimizer', rate=rate, freeze=self.options.freeze)

    def _check_patterns(self):
        options, factors = self.options, self.options.optimizer.get('rate_factors') or ()
        if not options.freeze and not factors:
            return  # before the seconds that tracing a deep model takes
        params = self.abstract_state().params
        optim.refuse_idle(params, options.freeze, 'config.freeze')
        optim.refuse_idle(params, [pattern for pattern, _ in factors], 'config.optimizer.rate_factors')
        if all(jax.tree.leaves(optim.matching(params, options.freeze))):
            raise UserError('config.freeze leaves no parameter to train')

    def initial_state(self) -> step.TrainState:
        """The state of step 0, on every device. Raises UserError where config.init_from cannot be had."""
        source = self.options.init_from
        loaded = finetune.load(source, self.model) if source else {}
        return step.create_state(*self._state_parts, **self._state_options, loaded=loaded)

    def abstract_state(self) -> step.TrainState:
        """Shapes, dtypes and sharding of a state of this run."""
        return step.abstract_state(*self._state_parts, **self._state_options)

    def train_batches(self, start: int) -> Iterator[tuple[dict, dict]]:
        """(host batch, device batch) from step `start` on."""
        options, source = self.options, self.data.train
        if isinstance(source, sources.Synthetic):
            return input_pipeline.synthetic_batches(source, options.batch_size, options.seed, self.mesh, start)
        return input_pipeline.to_devices(input_pipeline.train_batches(
            source, self._augment, options.batch_size, options.seed, start, self.data.workers), self.mesh)

    def evaluate(self, state: step.TrainState) -> tuple[dict, np.ndarray | None]:
        """One evaluation's row, averaged weights beside the raw ones where there are any, and the confusion matrix.

        There is no matrix, but None, where images may have several classes.
        """
        result = self._evaluate(state.variables)
        confusion = result.pop('confusion', None)
        if self.options.ema_decay:
            averaged = self._evaluate(state.ema)
            result |= {f'ema_{name}': averaged[name] for name in result if name != 'bad_samples'}
        return {f'eval/{name}': value for name, value in result.items()}, confusion

    def _evaluate(self, variables: dict) -> dict:
        source, size = self.data.test, self.options.eval_batch_size
        batches = input_pipeline.eval_batches(source, self._view, size, self.data.workers)
        with contextlib.closing(input_pipeline.to_devices(batches, self.mesh)) as pairs:
            first, count = (1, min(size, len(source))) if self.options.dry_run else (None, len(source))
            result = evaluate(self._eval_step, variables, itertools.islice(pairs, first), count,
                              self.data.bad_samples(source).check)
        result.pop('average_precision', None)  # a row has the mean alone; `python -m imagenet_jax evaluate` has each
        return result

    def record(self) -> dict:
        """What the run ran on, for config.json."""
        train, test = self.data.train, self.data.test
        return {**runtime.describe(), 'train_examples': len(train), 'eval_examples': len(test),
                'class_names': list(train.class_names)}
