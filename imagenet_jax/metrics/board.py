"""TensorBoard's event files, through clu."""

import contextlib
import logging
import os
import queue
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from imagenet_jax.errors import DISK, UserError, what_failed

log = logging.getLogger(__name__)


class Board:
    """Event files, written by clu in a thread of its own. It imports TensorFlow, which takes seconds, when the board is
    told to begin or closed: what is written before waits for it.

    Where TensorFlow is missing or does not work, there or later, that is one warning, and nothing is written.

    Args:
      workdir: the run's folder.
      start: the step that what comes begins at; what earlier starts wrote of it and of later ones is taken out.

    Raises:
      UserError: in any method, the disk takes nothing.
    """

    def __init__(self, workdir: Path, start: int):
        self._workdir, self._start = workdir, start
        self._jobs, self._full, self._ended = queue.SimpleQueue(), None, False
        self._thread = threading.Thread(target=self._work, daemon=True, name='board')

    def write_scalars(self, step: int, scalars: Mapping[str, float]) -> None:
        """Numbers of a step, by tag."""
        self._ask(lambda writer: writer.write_scalars(step, scalars))

    def write_images(self, step: int, images: Mapping[str, np.ndarray]) -> None:
        """Pictures of a step by tag, uint8 (N, H, W, 3)."""
        self._ask(lambda writer: writer.write_images(step, images))

    def write_texts(self, step: int, texts: Mapping[str, str]) -> None:
        """Markdown of a step, by tag."""
        self._ask(lambda writer: writer.write_texts(step, texts))

    def write_trial(self, step: int, options: Mapping[str, bool | int | float | str], score: str, name: str) -> None:
        """The options as hyperparameters of a trial; see `trial`."""
        def write(writer):
            for tag, metadata in trial(options, score, name):
                writer.write_summaries(step, {tag: np.float32(0)}, {tag: metadata})
        self._ask(write)

    def begin(self) -> None:
        """Opens the files, once."""
        if self._thread.ident is None:
            self._thread.start()

    def close(self) -> None:
        """Waits until all is written."""
        self.begin()
        self._jobs.put(None)
        self._thread.join()
        self._raise()

    def _ask(self, job):
        self._raise()
        if not self._ended:
            self._jobs.put(job)

    def _raise(self):
        if self._full:
            full, self._full = self._full, None
            raise full

    def _work(self):
        try:
            with contextlib.closing(self._opened()) as writer:
                self._warning = 'no more TensorBoard event files, metrics.jsonl alone'
                while job := self._jobs.get():
                    job(writer)
        except Exception as error:  # an installation that does not fit raises anything
            self._ended = True
            self._full = _full(self._workdir, error)
            if not self._full:
                log.warning('%s: %s: %s', self._warning, type(error).__name__, what_failed(error))

    _warning = 'no TensorBoard event files, metrics.jsonl alone'

    def _opened(self):
        os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '2')
        os.environ.setdefault('TF_ENABLE_ONEDNN_OPTS', '0')  # and its notice
        from clu import metric_writers  # imports TensorFlow: seconds that only the writing process pays
        import tensorflow as tf  # isort: skip
        tf.config.set_visible_devices([], 'GPU')  # a GPU build would take the memory that JAX needs
        _forget(tf, self._workdir, self._start)
        return metric_writers.SummaryWriter(str(self._workdir))


def trial(options: Mapping[str, bool | int | float | str], score: str, name: str) -> Iterator[tuple[str, object]]:
    """(tag, metadata) that make a run a trial with these hyperparameters; its result is the tag best/`score`.

    Not clu's write_hparams: that names a trial by a hash, and any number of a run as its result.
    """
    from tensorboard.plugins.hparams import api  # as late as TensorFlow
    metric = api.Metric(f'best/{score}', display_name=f'best {score}')
    for summary in (api.hparams_config_pb([api.HParam(option) for option in options], [metric]),
                    api.hparams_pb(options, trial_id=name)):
        value, = summary.value
        yield value.tag, value.metadata


def _full(workdir, error) -> UserError | None:
    """What is said of a disk that is full, where that was the error."""
    if (why := what_failed(error)).split(': ')[0] in map(os.strerror, DISK):
        return UserError(f'cannot write the event files in {workdir}: {why}')
    return None


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
