"""The loop: build, restore, step, evaluate, save."""

import contextlib
import logging
import tempfile
import time
from pathlib import Path

import jax
import numpy as np

from imagenet_jax import hosts, inspection, memory, profiling, record, runtime
from imagenet_jax.checkpoint import Checkpoints
from imagenet_jax.errors import Stopped, UserError, first_line
from imagenet_jax.experiment import Experiment
from imagenet_jax.metrics.beginning import Beginning
from imagenet_jax.metrics.pictures import confusion_image, image_grid
from imagenet_jax.metrics.progress import Meter, Progress
from imagenet_jax.metrics.results import Results
from imagenet_jax.metrics.run_log import MetricWriter
from imagenet_jax.state import TrainState

log = logging.getLogger(__name__)


def train_and_evaluate(config, workdir: str | Path, beginning: Beginning | None = None) -> Results:
    """Trains as the config says, going on from the newest checkpoint in `workdir` that loads.

    Args:
      config: an ml_collections ConfigDict with the options of configs/common.py.
      workdir: the run's folder, made where missing; not touched where config.dry_run is set.
      beginning: the clock of the start, where it runs already.

    Returns:
      What the run has come to, earlier starts included; in processes other than the first, what this start has.

    Raises:
      UserError: something is wrong with config, data or checkpoints; nearly always before training starts.
      Stopped: a signal came, and the run is saved.
    """
    with hosts.together(), contextlib.ExitStack() as folder:
        with contextlib.ExitStack() as stack:
            stop = stack.enter_context(runtime.StopSignal())
            experiment = Experiment(config, beginning)
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
                restored = checkpoints.restore(experiment.abstract_state(), experiment.train_step.beside)
                state = restored or experiment.initial_state()
                writer = _open_writer(workdir, entry, int(restored.step) if restored else None, experiment, stack)
                results = Results(experiment.task.score, _about(experiment, entry), writer.rows if writer else ())
                if writer:
                    _describe_model(experiment, entry['run'], state)
                experiment.beginning.done('state')
                _loop(experiment, state, checkpoints, writer, results, stop, stack)
        if writer and not config.dry_run:  # now that every save is whole
            record.finish(workdir, entry)
            results.write(workdir, writer.seconds, finished=True)
    return results


def _open_writer(workdir, entry, resume_step, experiment, stack) -> MetricWriter | None:
    """The writer of process 0, the run's record written; None in other processes."""
    if resume_step is not None:
        log.info('resuming at step %d', resume_step)
    if jax.process_index():
        return None
    record.write(workdir, entry)
    writer = MetricWriter(workdir, resume_step, experiment.task.score)
    stack.callback(writer.close)
    writer.write_config(record.flatten(entry))
    if entry['message']:
        log.info('this run: %s', entry['message'])
    return writer


def _about(experiment, entry) -> dict:
    """What summary.json says of the run beside its results."""
    return {'model': entry['model']['name'], 'parameters': entry['run']['parameters'], 'steps': experiment.steps,
            'epochs': round(experiment.steps / experiment.steps_per_epoch, 3)}


def _loop(experiment, state, checkpoints, writer, results, stop, stack) -> None:
    options, every, start = experiment.options, experiment.every, int(state.step)
    state = _catch_up(experiment, state, start, checkpoints, writer, results, stop)
    if why := experiment.why_over(state):
        log.info('nothing to do: the run is at %s', why)
        return
    batches, meter = experiment.train_batches(start), Meter(options.batch_size)
    progress, tracer = Progress(start, experiment.steps, writer is not None), _tracer(options, writer)
    for one in (batches, meter, progress, tracer):
        stack.callback(one.close)
    bad, drawn, shape = experiment.bad_samples, start, None
    for at in range(start + 1, experiment.steps + 1):
        tracer.before(at, meter.pause)
        host_batch, batch = meter.next(batches)
        bad.check(host_batch)
        compiles, shape = batch['image'].shape != shape, batch['image'].shape
        began = time.perf_counter()
        if compiles:
            _compile(experiment, state, batch, meter, writer, at, first=at == start + 1)
        with profiling.step(at):
            state, metrics = experiment.train_step(state, batch)
        meter.add(metrics)
        progress.advance()
        evaluating = every.evaluate.due(at)
        tracer.after(at, meter.pause, evaluating)
        if compiles:
            meter.pause()
            _say_made(experiment, writer, time.perf_counter() - began, first=at == start + 1)
        numbers = _row(experiment, meter, at) if evaluating or every.log.due(at) else {}
        _refuse_bad_steps(meter, options.max_bad_steps, at)
        if evaluating:
            try:
                state, row, drawn = _evaluate(experiment, state, at, drawn, writer, stop)
            except Stopped:  # it is made when the run goes on
                _tell(at, numbers, writer, results, progress)
                checkpoints.save(state, pending=True)
                raise
        _tell(at, numbers | row if evaluating else numbers, writer, results, progress)
        agreed = stop.agreed(at, bad.news)
        bad.share(agreed.news)
        if evaluating or agreed.signal or agreed.save or at == experiment.steps or every.checkpoint.due(at):
            meter.pause()
            checkpoints.save(state, *experiment.scores(row) if evaluating else ())
        checkpoints.check()
        if agreed.signal:
            raise Stopped(agreed.signal)
        if evaluating and at < experiment.steps and (why := experiment.why_over(state)):
            log.info('the run ends at %s', why)
            break
        meter.resume()


def _tracer(options, writer) -> profiling.Tracer:
    """Of the process that writes."""
    return profiling.Tracer(writer.workdir, options.profile_steps) if writer else profiling.Tracer(None, ())


def _row(experiment, meter, at) -> dict:
    """Of training, since the last one; says once that devices wait for images."""
    row = meter.row()
    if meter.held_up:
        meter.held_up, meter.watching = False, False
        share, speed = row['train/input_wait'], row['train/images_per_s']
        log.warning('up to step %d the devices waited for images %.0f%% of the time: %s deliver %s images/s, and the '
                    'devices would take %s; %s', at, 100 * share, experiment.data.workers, f'{speed:,.0f}',
                    f'{speed / max(1 - share, 0.001):,.0f}', experiment.data.faster)
    return row | {'train/epoch': at / experiment.steps_per_epoch, 'train/bad_samples': len(experiment.bad_samples)}


def _catch_up(experiment, state, start, checkpoints, writer, results, stop) -> TrainState:
    """The state, after the evaluation that a signal broke off, where one did."""
    if checkpoints.pending(start):
        log.info('making the evaluation of step %d, which a signal broke off', start)
        state, row, _ = _evaluate(experiment, state, start, start - 1, writer, stop)
        _tell(start, row, writer, results)
        checkpoints.replace(state, *experiment.scores(row))
        experiment.beginning.done('evaluation')
    return state


def _evaluate(experiment, state, at, drawn, writer, stop) -> tuple:
    """(the state that knows of it, the row, when the confusion matrix was drawn last). Raises Stopped."""
    row, result = experiment.evaluate(state, stop.check)
    if experiment.every.confusion.due(at, drawn) and result.confusion is not None and writer:
        _draw_evaluation(experiment, result, writer, at)
        drawn = at
    return experiment.judge(state, row), row, drawn


def _tell(at: int, row: dict, writer, results, progress=None) -> None:
    results.add({'step': at, **row})
    if row and writer:
        evaluated = results.last.get('step') == at
        writer.write(at, row, results.best.get(results.score) if evaluated else None)
        if evaluated:
            results.write(writer.workdir, writer.seconds)
    if row and progress:
        progress.show(at, row)


def _compile(experiment, state, batch, meter, writer, at, first: bool) -> None:
    """Compiles the step, which is no part of the speed, and checks its need of memory; shows the first images."""
    meter.pause()
    if first:
        experiment.beginning.done('first batch')
        if writer:
            _describe_start(experiment, batch, writer, at)
    else:
        log.info('from step %d on images have %d pixels a side; compiling the train step for them', at,
                 batch['image'].shape[-2])
    experiment.check_memory(state, batch)
    if first:
        experiment.beginning.done('compile')
    meter.peak_seconds = experiment.peak_seconds(batch['image'].shape)


def _say_made(experiment, writer, seconds, first: bool) -> None:
    """What the first step took, or another of new shapes."""
    if not first:
        log.info('compiled and made in %.1f s', seconds)
        return
    experiment.beginning.done('step')
    log.info('%s', experiment.beginning)
    if writer:
        writer.begin_board()


def _describe_model(experiment, measured, state) -> None:
    """Logs its size; with config.parameter_table every parameter."""
    log.info('%s: %s parameters, %s M multiply-adds, %s MiB of state', experiment.options.model['name'],
             f'{measured["parameters"]:,}', f'{measured["multiply_adds"] / 1e6:,.1f}',
             f'{sum(x.nbytes for x in jax.tree.leaves(state)) / 2**20:,.1f}')
    if not experiment.options.parameter_table:
        return
    try:
        from clu import parameter_overview
        log.info('parameters:\n%s', parameter_overview.get_parameter_overview(state.params, include_stats=False))
    except Exception as error:  # as of the run log
        log.warning('no parameter overview: %s: %s', type(error).__name__, first_line(error))


def _describe_start(experiment, batch, writer, at) -> None:
    """Shows the first images, and says what takes so long."""
    images, labels = (np.asarray(batch[name].addressable_data(0)[:16]) for name in ('image', 'label'))
    names = inspection.classes(experiment.train, experiment.model.num_classes)
    writer.write_image(at, 'train/images', image_grid(images, [inspection.label_text(x, names) for x in labels]))
    log.info('%d steps of %d images on %d x %s; compiling may take minutes the first time',
             experiment.steps, experiment.options.batch_size, jax.device_count(), jax.devices()[0].device_kind)


def _draw_evaluation(experiment, result, writer, at) -> None:
    """The confusion matrix, and the worst mistakes with what was right and what was said."""
    writer.write_image(at, 'eval/confusion', confusion_image(result.confusion, experiment.test.class_names))
    if wrong := experiment.mistakes(result):
        names = inspection.classes(experiment.test, experiment.model.num_classes)
        titles = [f'{inspection.class_of(experiment.test, each.index, names)}\n'
                  f'taken for {names[each.predicted]}\n{each.confidence:.1%} sure' for each in wrong]
        writer.write_image(at, 'eval/misclassified', image_grid(np.stack([each.image for each in wrong]), titles),
                           'misclassified.png')


def _refuse_bad_steps(meter: Meter, limit: int, at: int) -> None:
    if limit and meter.bad_in_a_row >= limit:
        raise UserError(
            f'{limit} steps in a row, up to step {at} at the latest, gave a loss, gradients or an update that are not '
            'finite (config.max_bad_steps); a lower learning rate, a longer warm-up or float32 usually helps')
