"""From a source to batches on the devices, addressed by step.

    source -> decode and augment one image (images) -> uint8 batch of this process -> copy to its devices

Training batch t is a pure function of (seed, t): the stream of all epochs' shuffled samples is cut into batches, so
that resuming needs only the step, and neither workers nor devices change which samples come. Where images grow with
the epochs, all of a batch have the size of the epoch in which it begins. Evaluation goes through the split once, in
order, its last batch padded.

A batch of this process, of b images:
  image: uint8 (b, size, size, 3), in training of several views (b, views, size, size, 3)
  index: int64 (b,), the sample's place in the source
  label: int32 (b,); multi-label float32 (b, K), NaN where a class is not counted
  bad: int64 (b,), in training the index of an unreadable sample that `index` stands in for, in evaluation the
    unreadable sample itself (its pixels are zero); -1 where the sample was readable
  mask: bool (b,), evaluation only: False marks padding
"""

import collections
import dataclasses
import itertools
import logging
from collections.abc import Callable, Collection, Iterator
from functools import partial

import grain
import jax
import numpy as np
from grain.experimental import RngPool
from jax.experimental import multihost_utils
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from imagenet_jax import streams
from imagenet_jax.errors import UserError, unknown
from imagenet_jax.images.decode import DecodeError, decode
from imagenet_jax.images.train_view import TrainView
from imagenet_jax.models.layers import DATA_AXIS
from imagenet_jax.order import order
from imagenet_jax.sources import Source
from imagenet_jax.workers import Workers, load

log = logging.getLogger(__name__)

# Samples that may be tried for an unreadable one before the data as a whole counts as broken.
_REPLACEMENTS = 16


class _TrainSamples:
    """What one process takes, by place: augmented samples of epoch after epoch, each in an order of its own.

    An image that is repeated takes places in a row, and the epoch ends before the last images of its order.

    `grain.MapDataset.range(n).shuffle().repeat().random_map(...)` would do, but for what it costs: half as much again
    as reading and cropping stored pixels.
    """

    def __init__(self, source: Source, transform: TrainView, seed: int, first: int, every: int):
        self._source, self._transform, self._seed, self._first, self._every = source, transform, seed, first, every
        self._rngs = RngPool(seed)

    def __getitem__(self, place: int) -> dict:
        place = self._first + self._every * place
        epoch, at = divmod(place, len(self._source))
        rng = self._rngs.acquire_rng(place)
        sample = self._sample(order(len(self._source), self._seed, epoch)(at // self._transform.repeats), rng)
        self._rngs.release_rng(rng)
        return sample

    def _sample(self, index: int, rng: np.random.Generator) -> dict:
        """An unreadable one is replaced by another, drawn with the sample's own randomness."""
        bad = -1
        for _ in range(_REPLACEMENTS):
            try:
                image = self._transform(self._source.image(index), rng)
                return _sample(image, self._source.labels[index], index, bad)
            except (DecodeError, OSError):
                bad = index if bad < 0 else bad
                index = int(rng.integers(len(self._source)))
        raise UserError(f'{_REPLACEMENTS} samples in a row cannot be read, the first {self._source.key(bad)}: '
                        f'{why_unreadable(self._source, bad)}')


@dataclasses.dataclass(frozen=True)
class _EvalSample(grain.transforms.Map):
    """Index -> sample in evaluation's view; indices past the end are padding."""
    source: Source
    transform: Callable

    def map(self, index: int) -> dict:
        blank = np.zeros(self.transform.shape, np.uint8)
        if index >= len(self.source):
            return _sample(blank, np.zeros_like(self.source.labels[0]), -1, -1) | {'mask': np.bool_(False)}
        label = self.source.labels[index]
        try:
            sample = _sample(self.transform(self.source.image(index)), label, index, -1)
        except (DecodeError, OSError):
            sample = _sample(blank, label, index, index)
        return sample | {'mask': np.bool_(True)}


def _sample(image, label, index, bad) -> dict:
    return {'image': image, 'label': label, 'index': np.int64(index), 'bad': np.int64(bad)}


def train_batches(source: Source, transform: TrainView, batch_size: int, seed: int, start_step: int = 0,
                  workers: Workers = Workers()) -> Iterator[dict]:
    """Endless training batches of this process from `start_step` on.

    Args:
      source: what to read.
      transform: what becomes of an image; with its ramp, by epoch.
      batch_size: of all processes together.
      seed: decides order and augmentation.
      start_step: of the first batch.
      workers: who decodes; does not change what comes. They are started anew for each size of a ramp.
    """
    local = _local(batch_size)

    def batches(view, start, stop):
        samples = _TrainSamples(source, view, seed, jax.process_index(), jax.process_count())
        return load(samples, local, start, stop, workers)
    return _size_by_size(batches, transform, len(source), batch_size, start_step)


def _size_by_size(batches: Callable, transform: TrainView, samples: int, batch_size: int, start: int) -> Iterator:
    """From step `start` on what `batches(view, first step, step after the last or None)` gives, a view for each size.

    Args:
      batches: makes a generator.
      transform: with a ramp or without.
      samples: of an epoch.
      batch_size: of all processes together.
      start: the first step.
    """
    sizes = transform.ramp.sizes() if transform.ramp else [(0, transform.size)]
    begins = [-(-epoch * samples // batch_size) for epoch, _ in sizes]  # the first batch that begins in that epoch
    for (_, size), begin, stop in zip(sizes, begins, [*begins[1:], None], strict=True):
        begin = max(begin, start)
        if stop is None or begin < stop:
            yield from batches(dataclasses.replace(transform, size=size), begin, stop)


def eval_batches(source: Source, transform: Callable, batch_size: int, workers: Workers = Workers()) -> Iterator[dict]:
    """Every image of the source once, in the same number of batches on each process.

    Args:
      source: what to read.
      transform: image -> uint8 pixels of its `shape`, such as `images.eval_view.EvalView`.
      batch_size: of all processes together.
      workers: who decodes.
    """
    local = _local(batch_size)
    batches = -(-len(source) // batch_size)
    samples = (grain.MapDataset.range(batches * batch_size)
               .map(_EvalSample(source, transform)))[jax.process_index()::jax.process_count()]
    return load(samples, local, 0, batches, workers)


def _local(batch_size: int) -> int:
    """This process's share of a batch."""
    processes = jax.process_count()
    if batch_size < 1 or batch_size % processes:
        raise UserError(f'a batch of {batch_size} images does not divide among {processes} processes')
    return batch_size // processes


def to_devices(batches: Iterator[dict], mesh: jax.sharding.Mesh,
               left_out: Collection[str] = ('index', 'bad')) -> Iterator[tuple[dict, dict]]:
    """Pairs (host batch, batch on the devices without what is left out), the next copy under way while the caller uses
    this one. On the devices integers are int32, and `bad` is 0 for every unreadable sample."""
    sharding = NamedSharding(mesh, P(DATA_AXIS))

    def put(batch):
        on_device = {name: _narrow(name, value) for name, value in batch.items() if name not in left_out}
        return batch, jax.make_array_from_process_local_data(sharding, on_device)  # in one call: half the time

    try:
        ahead = collections.deque()
        for batch in batches:
            ahead.append(put(batch))
            if len(ahead) > 1:
                yield ahead.popleft()
        yield from ahead
    finally:
        batches.close()


def _narrow(name: str, value: np.ndarray) -> np.ndarray:
    """As int32 what is int64, which JAX would cut off in silence. Raises UserError where that would change it."""
    if value.dtype != np.int64:
        return value
    value = np.minimum(value, 0) if name == 'bad' else value  # the devices ask only whether
    if value.max() > np.iinfo(np.int32).max:
        raise UserError(f'{name} {value.max()} is past those that can be told of one by one, 2**31: evaluate a part of '
                        'the split, or in training set config.misclassified=0')
    return value.astype(np.int32)


def drawn_batches(source: Source, shape: tuple[int, ...], seed: int, mesh: jax.sharding.Mesh, start_step: int = 0,
                  stop_step: int | None = None) -> Iterator[tuple[dict, dict]]:
    """Training batches made where they are used, a pure function of (seed, step); no host batch comes with them.

    `shape` is of a batch of images, and the step `stop_step` is the first that has no batch any more.
    """
    @partial(jax.jit, out_shardings=NamedSharding(mesh, P(DATA_AXIS)))
    def draw(step):
        return source.draw(streams.step_key(streams.seed_key(seed), step), shape)

    for step in itertools.count(start_step) if stop_step is None else range(start_step, stop_step):
        yield {}, draw(step)


def train_pairs(source: Source, transform: TrainView, batch_size: int, seed: int, start_step: int, workers: Workers,
                mesh: jax.sharding.Mesh) -> Iterator[tuple[dict, dict]]:
    """(host batch, batch on the devices) from `start_step` on, however the source gives them; see `train_batches`."""
    if not source.draws:
        return to_devices(train_batches(source, transform, batch_size, seed, start_step, workers), mesh)

    def batches(view, start, stop):
        return drawn_batches(source, (batch_size, *view.shape), seed, mesh, start, stop)
    return _size_by_size(batches, transform, len(source), batch_size, start_step)


def why_unreadable(source: Source, index: int) -> str:
    """Reads a sample again for the reason it failed."""
    try:
        decode(source.image(index))
    except (DecodeError, OSError) as error:
        return str(error)
    return 'it could be read at the second try'


class BadSamples:
    """Counts unreadable samples of one source, names each once, and stops where the config says.

    Args:
      source: what the batches came from.
      on_error: 'skip' or 'raise' (at the first).
      max_bad_fraction: of the source's samples that may be unreadable.
    """

    def __init__(self, source: Source, on_error: str = 'skip', max_bad_fraction: float = 0.1):
        if on_error not in ('skip', 'raise'):
            raise unknown('data.on_error', on_error, ('skip', 'raise'))
        if not 0 <= max_bad_fraction <= 1:
            raise UserError(f'config.data.max_bad_fraction={max_bad_fraction} must be in [0, 1]')
        self._source, self._raise = source, on_error == 'raise'
        self._limit = max_bad_fraction * len(source)
        self._seen: dict[int, None] = {}
        self._shared: set[int] = set()

    def __len__(self) -> int:
        """How many distinct samples could not be read so far, as far as this process knows."""
        return len(self._seen)

    @property
    def news(self) -> int:
        """How many of them other processes do not know of."""
        return len(self._seen.keys() - self._shared)

    def share(self, most: int) -> None:
        """Tells all processes of all, where one has `most` news, the largest number.

        Raises:
          UserError: past the limit, in every process.
        """
        if jax.process_count() == 1 or not most:
            return
        mine = np.full(1 << (most - 1).bit_length(), -1, np.int64)  # of few lengths: each is a program of its own
        news = sorted(self._seen.keys() - self._shared)
        mine[:len(news)] = news
        found = np.unique(multihost_utils.process_allgather(mine.view(np.int32)).view(np.int64))  # JAX has no int64
        self._shared |= set(found[found >= 0].tolist())
        self._seen = dict.fromkeys(sorted(self._seen.keys() | self._shared))  # in every process the same are named
        self.check_total(len(self))

    def check_total(self, count: int) -> None:
        """Raises UserError where so many, of all processes, are too many."""
        if count > (0 if self._raise else self._limit):
            first = ', '.join(self._source.key(i) for i in list(self._seen)[:10])
            raise UserError(f'{count} of {len(self._source)} samples cannot be read, more than data.max_bad_fraction '
                            f'and data.on_error allow ({0 if self._raise else self._limit:g}); the first: '
                            f'{first or "see the other hosts"}')

    def check(self, batch: dict) -> None:
        """Notes a host batch's bad samples. Raises UserError past the limit, where this process is the only one; else
        all end at once, by `share` and `check_total`."""
        bad = batch.get('bad', ())
        for index in np.unique(bad) if np.max(bad, initial=-1) >= 0 else ():  # which sorts: seldom there is any
            if index < 0 or index in self._seen:
                continue
            self._seen[int(index)] = None
            message = f'{self._source.key(index)} cannot be read: {why_unreadable(self._source, index)}'
            if self._raise and jax.process_count() == 1:
                raise UserError(f'{message} (data.on_error=raise)')
            log.warning('bad sample %d: %s', len(self), message)
            if jax.process_count() == 1:
                self.check_total(len(self))
