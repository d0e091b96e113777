"""TensorBoard's event files, through clu."""

import logging
import os
import socket
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from imagenet_jax.errors import DISK, UserError, first_line, what_failed

log = logging.getLogger(__name__)


def open_in(workdir: Path, start: int) -> '_Board | None':
    """A writer of event files; None, with one warning, where TensorFlow is missing or does not work.

    Args:
      workdir: the run's folder.
      start: the step that what comes begins at; what earlier starts wrote of it and of later ones is not shown again.
    """
    os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '2')
    os.environ.setdefault('TF_ENABLE_ONEDNN_OPTS', '0')  # and its notice
    try:
        from clu import metric_writers  # imports TensorFlow: seconds that only the writing process pays
        import tensorflow as tf  # isort: skip
        tf.config.set_visible_devices([], 'GPU')  # a GPU build would take the memory that JAX needs
        _write_start(tf, workdir, start)
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


def _write_start(tf, workdir: Path, step: int) -> None:
    """An event file that says that the run starts at a step: TensorBoard then forgets what it has from there on.

    clu's writer cannot say so. Its file comes after this one, by its name. It says so twice: the first that TensorBoard
    sees is the run's own beginning to it, and the files of earlier versions have none.
    """
    name = f'events.out.tfevents.{int(time.time())}.{socket.gethostname()}.0.start'
    start = tf.compat.v1.Event(wall_time=time.time(), step=step,
                               session_log=tf.compat.v1.SessionLog(status=tf.compat.v1.SessionLog.START))
    events = [tf.compat.v1.Event(wall_time=time.time(), file_version='brain.Event:2'), start, start]
    with tf.io.TFRecordWriter(str(workdir / name)) as writer:
        for event in events:
            writer.write(event.SerializeToString())
