"""A config, read: everything that the loop calls, built and checked before any training starts."""

import logging
import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import jax

from imagenet_jax import (
    data,
    distill,
    finetune,
    hosts,
    input_pipeline,
    memory,
    models,
    peaks,
    record,
    runtime,
    step,
    weights,
)
from imagenet_jax.answer import Answer
from imagenet_jax.data import Data
from imagenet_jax.errors import UserError
from imagenet_jax.evaluation import Evaluator, Mistake
from imagenet_jax.images import train_view
from imagenet_jax.images.batch import Normalize
from imagenet_jax.images.erase import ERASERS, Erase
from imagenet_jax.images.eval_view import EvalView
from imagenet_jax.images.mix import Mix
from imagenet_jax.images.policies import POLICIES
from imagenet_jax.metrics.beginning import Beginning
from imagenet_jax.models import summary
from imagenet_jax.optim import OPTIMIZERS, Lookahead, Optimizer
from imagenet_jax.options import apply, checked, chosen, create
from imagenet_jax.order import TABLE
from imagenet_jax.run_options import Cadences, Every, Length, Options, length
from imagenet_jax.schedules import SCHEDULES, Schedule
from imagenet_jax.state import TrainState
from imagenet_jax.task import TASKS, Result

log = logging.getLogger(__name__)


def open_input(options: Options) -> tuple[Data, train_view.TrainView, EvalView]:
    """What a config says of images: where they are, what training makes of one, and evaluation. Raises UserError."""
    policy = create(POLICIES, options.policy, 'config.policy')
    augment = train_view.create(options.augment, 'config.augment', policy=policy)
    return apply(data.read, options.data, 'config.data'), augment, apply(EvalView, options.eval, 'config.eval')


class DevicePart(NamedTuple):
    """What the device makes of a batch before the model, in this order; in evaluation it only normalises."""
    normalize: Normalize
    erase: Erase | None
    mix: Mix


def open_device_part(options: Options, run: Length) -> DevicePart:
    """Raises UserError."""
    augment = chosen(options.augment)
    part = DevicePart(apply(Normalize, options.normalize, 'config.normalize'),
                      create(ERASERS, options.erase, 'config.erase', **run._asdict()),
                      apply(Mix, options.mix, 'config.mix', **run._asdict()))
    if part.erase:
        part.erase.check(min(augment.get('first_size', augment['size']), augment['size']))
    if augment.get('views', 1) > 1 and (part.mix or part.erase):
        raise UserError('config.augment.views are of one image, to be compared: they do not go with config.mix or '
                        'config.erase')
    return part


class Experiment:
    """What a config describes.

    Attributes:
      options: the config's top level.
      steps: updates of the whole run.
      steps_per_epoch: a float, since epochs may end inside a batch.
      every: when what is due.
      mesh, model, task, data, train_step: as the modules of those names say.
      train, test: the splits to train and to evaluate on.
      bad_samples: the unreadable ones of the training split, counted.
      beginning: the clock of this start.
    """

    def __init__(self, config: Mapping[str, Any], beginning: Beginning | None = None):
        self.beginning = beginning or Beginning()
        self.options = options = apply(Options, config, 'config')
        runtime.configure_jax(options.deterministic, options.compilation_cache)
        apply(hosts.join, options.distributed, 'config.distributed')
        hosts.compare('options', record.of_all_hosts(config) | runtime.versions())
        self.mesh = step.make_mesh()
        self.beginning.done('devices')
        self.model = models.from_section({'dtype': _default_dtype(options.model), **chosen(options.model)})
        if self.model.num_classes < 1:
            raise UserError(f'config.model.num_classes={self.model.num_classes}; training needs at least one class')
        self.task = create(TASKS, options.loss, 'config.loss')
        self.data, self._augment, view = open_input(options)
        self.train, self.test = self.data.open_both(self.model.num_classes, self._augment.size)
        for source in (self.train, self.test):
            self.task.check(source)
        self.bad_samples = self.data.bad_samples(self.train)
        hosts.compare('data', self.data.fingerprint(self.train, self.test))
        self.beginning.done('data')
        self._check_batches()
        planned = length(options, len(self.train))
        self._check_ramp(planned.steps)
        self.steps_per_epoch = planned.steps_per_epoch
        self.steps = 1 if options.dry_run else planned.steps
        if options.profile_steps and options.profile_steps[1] > planned.steps:
            raise UserError(f'config.profile_steps={options.profile_steps} must end by step {planned.steps}, the last '
                            'of the run')
        self.every = self._cadences()
        device_part = open_device_part(options, planned)
        self._check_views()
        rate, optimizer = self._rate_and_optimizer()
        self.train_step = step.TrainStep(
            model=self.model, task=self.task, mesh=self.mesh, **device_part._asdict(), optimizer=optimizer,
            schedule=self._schedule(rate, planned), lookahead=apply(Lookahead, options.lookahead, 'config.lookahead'),
            accumulation=options.accumulation, ema_decay=options.ema_decay, steps=planned.steps,
            teacher=self._teacher(device_part.normalize))
        if optimizer.has_patterns:  # asked first: tracing a deep model takes seconds
            optimizer.check(self.abstract_state().params)
        self._evaluate = Evaluator(
            answer=Answer(model=self.model, normalize=device_part.normalize, view=view, task=self.task),
            task=self.task, view=view, source=self.test, batch_size=options.eval_batch_size,
            workers=self.data.workers, mesh=self.mesh, bad_samples=self.data.bad_samples,
            batches=1 if options.dry_run else None,
            mistakes=0 if self.task.multi_label or not options.confusion_epochs else options.misclassified,
            remedy=f'lower config.eval_batch_size, now {options.eval_batch_size}')

    def _check_batches(self):
        options, devices = self.options, jax.device_count()
        for name in ('batch_size', 'eval_batch_size'):
            size, parts = getattr(options, name), devices * (options.accumulation if name == 'batch_size' else 1)
            if size % max(1, parts):
                raise UserError(f'config.{name}={size} must be a multiple of {parts}: {devices} devices times '
                                f'config.accumulation={options.accumulation} where it is trained on')

    def _check_ramp(self, steps: int):
        ramp, last = self._augment.ramp, (steps - 1) * self.options.batch_size // len(self.train)
        if ramp and ramp.ramp_epochs[1] > last:
            raise UserError(f'config.augment.ramp_epochs={ramp.ramp_epochs} must end by epoch {last}, counted from 0, '
                            'the last that the run begins: no image would have the size that config.augment.size says')

    def _check_views(self) -> None:
        consistency, views = self.task.consistency, self._augment.views
        if self._augment.repeats > len(self.train):
            raise UserError(f'config.augment.repeats={self._augment.repeats} must not be above the number of images to '
                            f'train on, {len(self.train)}: an epoch would be of one image alone')
        if (consistency > 0) != (views > 1):
            raise UserError(f'config.loss.consistency={consistency} and config.augment.views={views} go together: '
                            'consistency is that of several views of an image, which nothing else takes')
        if consistency and not self._augment.distorts:
            log.warning('config.augment.views=%d are all alike, and config.loss.consistency is of nothing: neither '
                        'config.policy.name nor config.augment.color_jitter or the like is set', views)
        if consistency and chosen(self.options.distill):
            raise UserError('config.loss.consistency compares views of one image: it does not go with config.distill')

    def _cadences(self) -> Cadences:
        options, epoch = self.options, self.steps_per_epoch
        return Cadences(*(Every(steps, self.steps) for steps in (
            options.log_steps, options.eval_steps or options.eval_epochs * epoch, options.confusion_epochs * epoch,
            options.checkpoint_steps)))

    def _rate_and_optimizer(self) -> tuple[float, Optimizer]:
        options, section = self.options, chosen(self.options.optimizer)
        if 'learning_rate' not in section:
            raise UserError('config.optimizer lacks learning_rate')
        rate = checked('config.optimizer.learning_rate', section.pop('learning_rate'), float)
        frozen = (*options.freeze, *finetune.frozen_norms(self.model, self._augment.size, options.init_from))
        head = weights.head_names(self.model) if section.get('clip_adaptive') else ()
        return rate, create(OPTIMIZERS, section, 'config.optimizer', freeze=frozen, head=head)

    def _schedule(self, rate: float, planned: Length) -> Schedule:
        options = self.options
        schedule = create(SCHEDULES, options.schedule, 'config.schedule', learning_rate=rate,
                          batch_size=options.batch_size, **planned._asdict())
        if (schedule.watches or options.stop_after) and not self.every.evaluate.steps:
            raise UserError('config.schedule.name=plateau and config.stop_after go by evaluations, and '
                            'config.eval_epochs and eval_steps are 0')
        return schedule

    def _teacher(self, normalize: Normalize) -> distill.Teacher | None:
        section = chosen(self.options.distill)
        return apply(distill.load, section, 'config.distill', student=self.model, task=self.task, normalize=normalize,
                     class_names=self.train.class_names, size=self._augment.size) if section else None

    def initial_state(self) -> TrainState:
        """The state of step 0, on every device. Raises UserError where config.init_from cannot be had."""
        options, loaded = self.options, None
        if options.init_from or options.freeze:
            params = self.abstract_state().params
            loaded = finetune.start(options.init_from, self.model, self.train.class_names, options.init_head, params,
                                    self.train_step.optimizer.frozen(params))
        return self.train_step.init(options.seed, self._augment.size, loaded)

    def abstract_state(self) -> TrainState:
        """Shapes, dtypes and sharding of a state of this run."""
        return self.train_step.abstract(self._augment.size)

    @property
    def memory_remedy(self) -> str:
        """What to change where training takes too much memory."""
        remat = 'set config.model.remat=True (not on a CPU), ' if getattr(self.model, 'remat', None) is False else ''
        return (f'raise config.accumulation, now {self.options.accumulation}, {remat}or lower config.batch_size, now '
                f'{self.options.batch_size}')

    def check_memory(self, state: TrainState, batch: dict) -> None:
        """Compiles the train step for such a batch. Raises UserError where it needs more memory than there is."""
        program = self.train_step.lower(state, batch).compile()
        memory.check(program, 'the train step', self.memory_remedy)

    def train_batches(self, start: int) -> Iterator[tuple[dict, dict]]:
        """(host batch, device batch) from step `start` on."""
        return input_pipeline.train_pairs(self.train, self._augment, self.options.batch_size, self.options.seed, start,
                                          self.data.workers, self.mesh)

    def evaluate(self, state: TrainState, check: Callable[[int], None]) -> tuple[dict[str, float], Result]:
        """One evaluation: its row, averaged weights beside the raw ones where there are any; all of the raw ones'.
        `check` is called with the number of each batch, and may break it off."""
        result = self._evaluate(state.variables, check=check)
        row = dict(result.scalars)
        if self.options.ema_decay:
            averaged = self._evaluate(state.ema, check=check).scalars
            row |= {f'ema_{name}': value for name, value in averaged.items() if name != 'bad_samples'}
        return {f'eval/{name}': value for name, value in row.items()}, result

    def scores(self, row: Mapping[str, float]) -> tuple[float, float | None]:
        """Of an evaluation's row: the score of the weights, and of the averaged ones where there are any."""
        return row[f'eval/{self.task.score}'], row.get(f'eval/ema_{self.task.score}')

    def mistakes(self, result: Result) -> list[Mistake]:
        """The worst of an evaluation, config.misclassified of them at most."""
        return self._evaluate.worst(result)

    def judge(self, state: TrainState, row: Mapping[str, float]) -> TrainState:
        """The state, aware of an evaluation's row: the schedule and `why_over` go by it."""
        return self.train_step.judge(state, self.scores(row)[0])

    def why_over(self, state: TrainState) -> str:
        """Why the run goes no further than this state; '' where it does."""
        at, stale = int(state.step), int(state.watch.stale)
        if at >= self.steps:
            return f'step {at} of {self.steps}'
        if self.options.stop_after and stale >= self.options.stop_after:
            return (f'step {at}, and {stale} evaluations in a row brought no better {self.task.score} than '
                    f'{float(state.watch.best):.4f} (config.stop_after)')
        return ''

    def peak_seconds(self, shape: tuple[int, ...]) -> float | None:
        """Of a train step on images of shape (B, [V,] H, W, 3), if devices did nothing but the model's multiply-adds
        at their peak; None where that is not known. They are three times the forward pass's, whatever is frozen,
        computed twice or done by a teacher (as in PaLM, arXiv 2204.02311, appendix B)."""
        peak = peaks.flops(jax.devices()[0].device_kind, self.model.dtype.name)
        if peak is None:
            return None
        _, multiply_adds = summary.total(summary.layers(self.model, shape[-2]))
        return 3 * 2 * multiply_adds * math.prod(shape[:-3]) / (peak * jax.device_count())

    def record(self) -> dict:
        """What the run ran on, for config.json; multiply-adds are of one image as it is evaluated."""
        parameters, multiply_adds = summary.total(summary.layers(self.model, self._evaluate.view.size))
        teacher, many = self.train_step.teacher, len(self.train) > TABLE and not self.train.draws
        words = {'class_words': dict(self.train.class_words)} if self.train.class_words else {}
        return {**runtime.describe(), 'dtype': self.model.dtype.name, 'train_examples': len(self.train),
                'eval_examples': len(self.test), 'parameters': parameters, 'multiply_adds': multiply_adds,
                'class_names': list(self.train.class_names), **words, **({'order': 'cipher'} if many else {}),
                **({'teacher_crc32': teacher.checksum} if teacher else {})}


def _default_dtype(model: Mapping) -> str:
    """Of a model that names none."""
    dtype = runtime.default_dtype()
    if model['dtype'] is None and dtype == 'float32':
        log.info('computing in float32, the default on a CPU; on an accelerator it is bfloat16 (config.model.dtype)')
    return dtype
