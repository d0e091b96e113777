"""What a trained model makes of a whole split's images before its head, or at one of its stages."""

import collections
import contextlib
import dataclasses
import functools
import logging
from collections.abc import Callable, Iterable, Iterator

import jax
import numpy as np

from imagenet_jax import contents, input_pipeline, memory
from imagenet_jax.errors import UserError, few
from imagenet_jax.sources import Source
from imagenet_jax.use.classifier import Classifier
from imagenet_jax.use.feature_table import Features
from imagenet_jax.workers import Workers

log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Extractor:
    """Features of splits, from all devices, each image once and in the source's order.

    Attributes:
      classifier: one model; of its view the centre crop alone is shown to it.
      stage: whose map is averaged over its pixels; None: what the head sees.
      batch_size: on all devices together, rounded up to a multiple of them; changes no result.
      workers: who decodes.

    Raises:
      UserError: a stage that the model lacks, several models, or one whose variables are not finite.
    """
    classifier: Classifier
    stage: str | None = None
    batch_size: int = 256
    workers: Workers = Workers()

    def __post_init__(self):
        self.classifier.check_stage(self.stage)
        # Of these a stage may all the same be finite, and mean nothing: XLA's ReLU may answer 0 to NaN.
        if broken := [jax.tree_util.keystr(path, simple=True, separator='/') for path, x
                      in jax.tree_util.tree_leaves_with_path(self.classifier.variables) if not np.isfinite(x).all()]:
            raise UserError(f'{len(broken)} arrays of the model are not finite, and so are no features of it: '
                            f'{few(broken, 5)}')

    @functools.cached_property
    def origin(self) -> str:
        """What features of two splits have to have alike to be compared."""
        only = self.classifier.members[0]
        weights = contents.checksum(only.variables)
        return (f'{only.entry["model"]["name"]}, weights {weights:08x}, {self.stage or "pooled"}, '
                f'{self.classifier.view.one}, {only.normalize}, exif={self.classifier.exif}')

    def batches(self, source: Source) -> int:
        """Of a pass, for a progress bar."""
        return -(-len(source) // self._size(source))

    def __call__(self, source: Source, bad: input_pipeline.BadSamples,
                 shown: Callable[[Iterable], Iterable] = iter) -> Iterator[Features]:
        """One pass, a part a batch; images that cannot be read, or whose features are not finite, are left out and
        named in the log.

        Args:
          source: the split.
          bad: counts its unreadable images.
          shown: is given the batches as they come, such as a progress bar.

        Raises:
          UserError: more unreadable images than `bad` allows, or too little memory.
        """
        size = self._size(source)
        remedy = f'a smaller batch, now {size}, takes less'
        program = memory.guarded(self._program, 'a batch of features', remedy)
        batches = input_pipeline.eval_batches(source, self.classifier.view.one, size, self.workers)
        not_finite, pending = [], collections.deque()
        with (memory.explained('features', remedy), contextlib.closing(input_pipeline.to_devices(
                batches, self.classifier.mesh, ('index', 'label', 'bad', 'mask'))) as pairs):
            for host_batch, batch in shown(pairs):
                bad.check(host_batch)
                pending.append((host_batch, program(self.classifier.placed, batch['image'])))
                if len(pending) > 1:  # the devices compute the next one meanwhile
                    yield self._part(source, *pending.popleft(), not_finite)
            for each in pending:
                yield self._part(source, *each, not_finite)
        if not_finite:
            log.error('FEATURES ARE NOT FINITE, those of %d of %d images, which are left out: %s', len(not_finite),
                      len(source), few(not_finite, 5))

    def _part(self, source, host_batch, rows, not_finite) -> Features:
        rows = np.asarray(rows)
        readable = host_batch['mask'] & (host_batch['bad'] < 0)
        finite = np.isfinite(rows).all(1)
        not_finite += [source.key(int(index)) for index in host_batch['index'][readable & ~finite]]
        kept = readable & finite
        return Features([source.key(int(index)) for index in host_batch['index'][kept]], host_batch['label'][kept],
                        rows[kept], tuple(source.class_names), self.origin)

    def _size(self, source) -> int:
        return self.classifier.rounded(min(self.batch_size, len(source)))

    @functools.cached_property
    def _program(self) -> Callable:
        return self.classifier.feature_program(self.stage)
