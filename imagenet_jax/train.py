"""The loop: build, restore, step, evaluate, save."""

import contextlib
import logging
import tempfile
import time
from pathlib import Path

import jax
import numpy as np

from imagenet_jax import hosts, memory, record, runtime
from imagenet_jax.checkpoint import Checkpoints
from imagenet_jax.errors import Stopped, UserError, first_line
from imagenet_jax.experiment import Experiment
from imagenet_jax.metrics.pictures import confusion_image, image_grid
from imagenet_jax.metrics.progress import Meter, Progress
from imagenet_jax.metrics.run_log import MetricWriter

log = logging.getLogger(__name__)


def train_and_evaluate(config, workdir: str | Path) -> dict:
    """Trains as the config says, going on from the newest checkpoint in `workdir` that loads.

    Args:
      config: an ml_collections ConfigDict with the options of configs/common.py.
      workdir: the run's folder, made where missing; not touched where config.dry_run is set.

    Returns:
      The last row of evaluation, {} where none was made.

    Raises:
      UserError: something is wrong with config, data or checkpoints; nearly always before training starts.
      Stopped: a signal came, and the run is saved.
    """
    with hosts.together(), contextlib.ExitStack() as folder:
        with contextlib.ExitStack() as stack:
            stop = stack.enter_context(runtime.StopSignal())
            experiment = Experiment(config)
            if config.dry_run:
                workdir = folder.enter_context(tempfile.TemporaryDirectory())
            workdir = record.make_folder(Path(workdir))
            if not jax.process_index():
                folder.enter_context(record.locked(workdir))
            entry = {**config.to_dict(), 'run': experiment.record()}
            record.check_resumable(workdir, entry)
            checkpoints = Checkpoints(workdir)
            stack.callback(checkpoints.close)
            with hosts.telling(), memory.explained('training', experiment.memory_remedy):
                restored = checkpoints.restore(experiment.abstract_state())
                state = restored or experiment.initial_state()
                writer = _open_writer(workdir, entry, int(restored.step) if restored else None, stack)
                row = _loop(experiment, state, checkpoints, writer, stop, stack)
        if writer and not config.dry_run:  # now that every save is whole
            record.finish(workdir, entry)
    return row


def _open_writer(workdir, entry, resume_step, stack) -> MetricWriter | None:
    """The writer of process 0, the run's record written; None in other processes."""
    if resume_step is not None:
        log.info('resuming at step %d', resume_step)
    if jax.process_index():
        return None
    record.write(workdir, entry)
    writer = MetricWriter(workdir, resume_step)
    stack.callback(writer.close)
    writer.write_config(record.flatten(entry))
    if entry['message']:
        log.info('this run: %s', entry['message'])
    return writer


def _loop(experiment, state, checkpoints, writer, stop, stack) -> dict:
    options, every, start = experiment.options, experiment.every, int(state.step)
    state, row = _catch_up(experiment, state, start, checkpoints, writer, stop)
    if why := experiment.why_over(state):
        log.info('nothing to do: the run is at %s', why)
        return row
    batches = experiment.train_batches(start)
    stack.callback(batches.close)
    progress = Progress(start, experiment.steps, writer is not None)
    stack.callback(progress.close)
    meter, bad, drawn, shape = Meter(options.batch_size), experiment.bad_samples, start, None
    for at in range(start + 1, experiment.steps + 1):
        host_batch, batch = next(batches)
        bad.check(host_batch)
        compiles, shape = batch['image'].shape != shape, batch['image'].shape
        began = time.perf_counter()
        if compiles:
            meter.pause()
            _compile(experiment, state, batch, writer, at, first=at == start + 1)
        state, metrics = experiment.train_step(state, batch)
        meter.add(metrics)
        progress.advance()
        if compiles:
            meter.pause()
            log.info('compiled and made in %.1f s', time.perf_counter() - began)
        numbers, evaluating = {}, every.evaluate.due(at)
        if evaluating or every.log.due(at):
            numbers = meter.row() | {'train/epoch': at / experiment.steps_per_epoch, 'train/bad_samples': len(bad)}
        _refuse_bad_steps(meter, options.max_bad_steps, at)
        if evaluating:
            try:
                state, row, drawn = _evaluate(experiment, state, at, drawn, writer, stop)
            except Stopped:  # it is made when the run goes on
                _tell(at, numbers, writer, progress)
                checkpoints.save(state, pending=True)
                raise
        _tell(at, numbers | row if evaluating else numbers, writer, progress)
        agreed = stop.agreed(at, bad.news)
        bad.share(agreed.news)
        if evaluating or agreed.signal or agreed.save or at == experiment.steps or every.checkpoint.due(at):
            meter.pause()
            checkpoints.save(state, row[f'eval/{experiment.task.score}'] if evaluating else None)
        if agreed.signal:
            raise Stopped(agreed.signal)
        if evaluating and at < experiment.steps and (why := experiment.why_over(state)):
            log.info('the run ends at %s', why)
            break
        meter.resume()
    return row


def _catch_up(experiment, state, start, checkpoints, writer, stop) -> tuple:
    """(the state, the row) after the evaluation that a signal broke off, where one did; else as they are."""
    row = {}
    if checkpoints.pending(start):
        log.info('making the evaluation of step %d, which a signal broke off', start)
        state, row, _ = _evaluate(experiment, state, start, start - 1, writer, stop)
        if writer:
            writer.write(start, row)
        checkpoints.replace(state, row[f'eval/{experiment.task.score}'])
    return state, row


def _evaluate(experiment, state, at, drawn, writer, stop) -> tuple:
    """(the state that knows of it, the row, when the confusion matrix was drawn last). Raises Stopped."""
    row, result = experiment.evaluate(state, stop.check)
    if experiment.every.confusion.due(at, drawn) and result.confusion is not None and writer:
        writer.write_image(at, 'eval/confusion', confusion_image(result.confusion, experiment.test.class_names))
        drawn = at
    return experiment.judge(state, row), row, drawn


def _tell(at: int, row: dict, writer, progress) -> None:
    if row and writer:
        writer.write(at, row)
    if row:
        progress.show(at, row)


def _compile(experiment, state, batch, writer, at, first: bool) -> None:
    """Compiles the step and checks its need of memory; says so, and shows the first images."""
    if not first:
        log.info('from step %d on images have %d pixels a side; compiling the train step for them', at,
                 batch['image'].shape[-2])
    elif writer:
        _describe_start(experiment, state)
    experiment.check_memory(state, batch)
    if first and writer:
        writer.write_image(at - 1, 'train/images', image_grid(np.asarray(batch['image'].addressable_data(0)[:16])))


def _describe_start(experiment, state) -> None:
    """Logs the parameters, and says what takes so long."""
    try:
        from clu import parameter_overview
        log.info('parameters:\n%s', parameter_overview.get_parameter_overview(state.params, include_stats=False))
    except Exception as error:  # as of the run log
        log.warning('no parameter overview: %s: %s', type(error).__name__, first_line(error))
    log.info('%d steps of %d images on %d x %s; compiling the train step, which may take minutes the first time',
             experiment.steps, experiment.options.batch_size, jax.device_count(), jax.devices()[0].device_kind)


def _refuse_bad_steps(meter: Meter, limit: int, at: int) -> None:
    if limit and meter.bad_in_a_row >= limit:
        raise UserError(
            f'{limit} steps in a row, up to step {at} at the latest, gave a loss, gradients or an update that are not '
            'finite (config.max_bad_steps); a lower learning rate, a longer warm-up or float32 usually helps')
