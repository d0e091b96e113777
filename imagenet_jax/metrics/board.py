"""TensorBoard's event files, through clu."""

import contextlib
import logging
import os
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from imagenet_jax.errors import DISK, UserError, first_line, what_failed

log = logging.getLogger(__name__)


def open_in(workdir: Path, start: int) -> '_Board | None':
    """A writer of event files; None, with one warning, where TensorFlow is missing or does not work.

    Args:
      workdir: the run's folder.
      start: the step that what comes begins at; what earlier starts wrote of it and of later ones is taken out.
    """
    os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '2')
    os.environ.setdefault('TF_ENABLE_ONEDNN_OPTS', '0')  # and its notice
    try:
        from clu import metric_writers  # imports TensorFlow: seconds that only the writing process pays
        import tensorflow as tf  # isort: skip
        tf.config.set_visible_devices([], 'GPU')  # a GPU build would take the memory that JAX needs
        _forget(tf, workdir, start)
        return _Board(workdir, metric_writers.AsyncWriter(metric_writers.SummaryWriter(str(workdir))))
    except Exception as error:  # an installation that does not fit raises anything
        _refuse_full(workdir, error)
        log.warning('no TensorBoard event files, metrics.jsonl alone: %s: %s', type(error).__name__, first_line(error))
        return None


class _Board:
    """clu's writer, as long as it works: its methods raise UserError where the disk takes nothing, and after any other
    error, which is one warning, do nothing."""

    def __init__(self, workdir: Path, writer):
        self._workdir, self._writer = workdir, writer

    def __getattr__(self, name: str) -> Callable:
        return partial(self._do, name)

    def _do(self, name, *values):
        if self._writer is None:
            return
        try:
            getattr(self._writer, name)(*values)
        except Exception as error:
            self._writer = None
            _refuse_full(self._workdir, error)
            log.warning('no more TensorBoard event files, metrics.jsonl alone: %s: %s', type(error).__name__,
                        what_failed(error))


def _refuse_full(workdir, error) -> None:
    if (why := what_failed(error)).split(': ')[0] in map(os.strerror, DISK):
        raise UserError(f'cannot write the event files in {workdir}: {why}') from error


def _forget(tf, workdir: Path, start: int) -> None:
    """Takes a step and later ones out of what earlier starts wrote: they come again, and most readers show all."""
    partial = workdir / '.events.tmp'
    for path in sorted(workdir.glob('events.out.tfevents.*')):
        dropped = 0
        with tf.io.TFRecordWriter(str(partial)) as writer:
            for record in _records(tf, path):
                event = tf.compat.v1.Event.FromString(record)
                if event.HasField('summary') and event.step >= start:
                    dropped += 1
                else:
                    writer.write(record)
        if dropped:
            os.replace(partial, path)
    partial.unlink(missing_ok=True)


def _records(tf, path: Path) -> Iterator[bytes]:
    """Up to where a file is torn or damaged, as every reader does."""
    with contextlib.suppress(tf.errors.DataLossError):
        yield from tf.data.TFRecordDataset(str(path)).as_numpy_iterator()
