"""Any source -> the packed format that sources/array_record.py reads.

    OUT/.train.convert/plan.json          what is being made of what; other options are refused
    OUT/.train.convert/00003.json         a finished shard: its checksum, keys, labels, and what was left out
    OUT/train-00003-of-00016.array_record
    OUT/train.json                        the manifest; the folder above goes when it stands

A shard takes its name when all of it is on the disk, and is made the same, byte for byte, whoever makes it: after a kill
the same command goes on, and several hosts may share the shards.
"""

import concurrent.futures
import contextlib
import dataclasses
import hashlib
import json
import logging
import multiprocessing
import os
import shutil
import signal
import sys
import threading
from collections.abc import Sequence
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import numpy as np
import simplejpeg
from array_record.python.array_record_module import ArrayRecordReader, ArrayRecordWriter
from PIL import Image
from tqdm import tqdm

from imagenet_jax.augment.host import DecodeError, EvalTransform, decode
from imagenet_jax.errors import UserError, unknown
from imagenet_jax.sources import Source, array_record

log = logging.getLogger(__name__)

# One record a group, so that each can be read alone; JPEGs do not compress.
_WRITER = 'group_size:1,uncompressed'
_MAX_SHARDS = 256  # each reader keeps them all open


@dataclasses.dataclass(frozen=True)
class Encoding:
    """What is stored of an image. Without any size, it is what the source has, which is decoded as a check only.

    Attributes:
      resize_shorter: larger images are shrunk until the shorter side has so many pixels; 0: never.
      max_side: and until the longer side has no more than these; 0: any.
      quality: of the JPEGs that shrunk images become, 1..100.
      raw: instead of all that, uint8 pixels: shorter side to `raw`, then the centre square.
    """
    resize_shorter: int = 0
    max_side: int = 0
    quality: int = 90
    raw: int = 0

    def __post_init__(self):
        if min(self.resize_shorter, self.max_side, self.raw) < 0 or not 1 <= self.quality <= 100:
            raise UserError(f'sizes must not be negative, and quality must be in 1..100: {self}')
        if self.raw and (self.resize_shorter or self.max_side):
            raise UserError('--raw goes without --resize-shorter and --max-side')

    def __call__(self, image: bytes | np.ndarray) -> bytes | np.ndarray:
        """Encoded bytes, or uint8 pixels. Raises DecodeError."""
        if self.raw:
            return EvalTransform(self.raw, self.raw)(image)
        pixels = decode(image)
        height, width = pixels.shape[:2]
        limits = (self.resize_shorter, min(height, width)), (self.max_side, max(height, width))
        scale = min([1.0, *(limit / side for limit, side in limits if limit)])
        if scale == 1:
            return image
        # The filter of evaluation: what is shrunk to eval.resize here is evaluated as if it were shrunk there.
        size = max(1, int(width * scale + 1e-6)), max(1, int(height * scale + 1e-6))
        pixels = np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.BILINEAR))
        return simplejpeg.encode_jpeg(pixels, quality=self.quality, colorsubsampling='420')


@dataclasses.dataclass(frozen=True)
class Plan:
    """One conversion.

    Attributes:
      source: what is read.
      origin: format, path, split and options that it was opened with, for the record.
      output: the folder written to.
      name: of the split there.
      encoding: what becomes of each image.
      shards: how many; 0: by the number of images.
      on_error: an image that cannot be decoded is left out ('skip') or ends the conversion ('raise').
      max_bad_fraction: of the images that may be left out.
    """
    source: Source
    origin: dict
    output: Path
    name: str
    encoding: Encoding = Encoding()
    shards: int = 0
    on_error: str = 'skip'
    max_bad_fraction: float = 0.1

    def __post_init__(self):
        if self.on_error not in ('skip', 'raise'):
            raise unknown('--on-error', self.on_error, ('skip', 'raise'))
        if not self.name or set(self.name) - set('abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-'):
            raise UserError(f'--name {self.name!r} must be of letters, digits, _ and -')

    @property
    def count(self) -> int:
        """Shards in all: about 1250 images each, within reason."""
        images = len(self.source)
        return min(self.shards or max(-(-images // 1250), min(16, -(-images // 32))), images, _MAX_SHARDS)

    @property
    def folder(self) -> Path:
        """What goes when the conversion is finished."""
        return self.output / f'.{self.name}.convert'

    def shard(self, number: int) -> Path:
        """A shard's file."""
        return self.output / f'{self.name}-{number:05d}-of-{self.count:05d}.array_record'

    def report(self, number: int) -> Path:
        """The file that says a shard is finished."""
        return self.folder / f'{number:05d}.json'

    def indices(self, number: int) -> range:
        """A shard's images."""
        images = len(self.source)
        return range(number * images // self.count, (number + 1) * images // self.count)

    def record(self) -> dict:
        """What decides every byte."""
        contents = hashlib.sha256(np.ascontiguousarray(self.source.labels))
        for i in range(len(self.source)):
            contents.update(os.fsencode(self.source.key(i)) + b'\0')
        origin = {name: value for name, value in self.origin.items() if name != 'path'}
        return {'source': origin, 'examples': len(self.source), 'class_names': list(self.source.class_names),
                'keys_and_labels': contents.hexdigest(), 'encoding': dataclasses.asdict(self.encoding),
                'shards': self.count}


def convert(plan: Plan, workers: int = 0, part: tuple[int, int] = (0, 1)) -> dict | None:
    """Makes what is missing of a data set.

    Args:
      plan: what to make.
      workers: processes; 0: one a core.
      part: (i, n): every n-th shard from the i-th on, as host i of n.

    Returns:
      The manifest; None where other hosts' shards are still missing.

    Raises:
      UserError: another conversion is there, too many images cannot be read, or the disk is full.
    """
    record = plan.record()
    if (plan.output / f'{plan.name}.json').exists():
        manifest = array_record.read_manifest(plan.output, plan.name)
        _refuse_other(plan, manifest['made_of'], record)
        return manifest
    with _disk_errors(plan.output):
        _begin(plan, record)
        todo = [n for n in range(part[0], plan.count, part[1]) if not _is_finished(plan, n)]
        if todo:
            _make(plan, todo, workers)
        if all(_is_finished(plan, n) for n in range(plan.count)):
            return _finish(plan, record)
    return None


@contextlib.contextmanager
def _disk_errors(folder: Path):
    try:
        yield
    except OSError as error:
        free = shutil.disk_usage(folder).free if folder.is_dir() else 0
        raise UserError(f'cannot write to {folder}: {error}; {free / 1e9:.1f} GB are free there. Finished shards stay: '
                        'make room, and the same command goes on') from error


def _begin(plan: Plan, record: dict) -> None:
    plan.folder.mkdir(parents=True, exist_ok=True)
    path = plan.folder / 'plan.json'
    if path.exists():
        _refuse_other(plan, json.loads(path.read_text()), record)
    else:
        if found := sorted(plan.output.glob(f'{plan.name}-*-of-*.array_record')):
            raise UserError(f'{found[0]} is in the way: it belongs to no conversion that could be gone on with')
        _write(path, json.dumps(record))


def _refuse_other(plan: Plan, there: dict, wanted: dict) -> None:
    wanted = json.loads(json.dumps(wanted))
    lines = [f'  {name}: {str(there.get(name))[:200]}, now {str(value)[:200]}' for name, value in wanted.items()
             if there.get(name) != value]
    if lines:
        raise UserError('\n'.join([f'{plan.output} holds split {plan.name!r} made of something else or in another way:',
                                   *lines, 'use another --output or --name, or remove it']))


def _is_finished(plan: Plan, number: int) -> bool:
    report, shard = plan.report(number), plan.shard(number)
    return report.is_file() and shard.is_file() and shard.stat().st_size == json.loads(report.read_text())['bytes']


def _make(plan: Plan, todo: Sequence[int], workers: int) -> None:
    """Makes shards in worker processes; a bar, or a line now and then, shows the images."""
    context = multiprocessing.get_context('spawn')
    done, total = context.Value('q', 0), sum(len(plan.indices(n)) for n in todo)
    pool = concurrent.futures.ProcessPoolExecutor(workers or os.cpu_count(), context, _start_worker, (plan, done))
    try:
        pending, skipped = {pool.submit(_make_shard, n) for n in todo}, _skipped(plan)
        with tqdm(total=total, unit='image', unit_scale=True, mininterval=0.2 if sys.stderr.isatty() else 30) as bar:
            while pending:
                finished, pending = concurrent.futures.wait(pending, 0.2, concurrent.futures.FIRST_COMPLETED)
                bar.update(done.value - bar.n)
                for future in finished:
                    skipped += future.result()
                    _refuse_too_many(plan, skipped)
    except BrokenProcessPool as error:
        raise UserError('a worker process has died, most likely for want of memory; finished shards stay: the same '
                        'command goes on, perhaps with fewer --workers') from error
    finally:
        for process in multiprocessing.active_children():  # after an error or Ctrl-C: shards under way are lost
            process.kill()
        pool.shutdown(cancel_futures=True)


def _skipped(plan: Plan) -> list[list[str]]:
    reports = (plan.report(n) for n in range(plan.count) if _is_finished(plan, n))
    return [entry for report in reports for entry in json.loads(report.read_text())['skipped']]


def _refuse_too_many(plan: Plan, skipped: Sequence[Sequence[str]]) -> None:
    limit = plan.max_bad_fraction * len(plan.source)
    if len(skipped) > limit:
        first = ', '.join(key for key, _ in skipped[:10])
        raise UserError(f'{len(skipped)} of {len(plan.source)} images cannot be read, more than --max-bad-fraction '
                        f'allows ({limit:g}); the first: {first}')


_PLAN: Plan
_DONE = None


def _start_worker(plan: Plan, done) -> None:
    """Runs first in each worker."""
    global _PLAN, _DONE
    _PLAN, _DONE = plan, done
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all of a terminal's processes; the parent ends these

    def end_with_parent():
        multiprocessing.parent_process().join()
        os._exit(1)

    threading.Thread(target=end_with_parent, daemon=True).start()


def _make_shard(number: int) -> list[list[str]]:
    """Writes a shard and its report. Returns what was left out: keys and reasons."""
    plan, shard = _PLAN, _PLAN.shard(number)
    partial = plan.folder / f'{number:05d}.array_record'
    keys, labels, skipped = [], [], []
    try:
        writer = ArrayRecordWriter(str(partial), _WRITER)
        for index in plan.indices(number):
            with _DONE.get_lock():
                _DONE.value += 1
            key, label = plan.source.key(index), plan.source.labels[index].tolist()
            try:
                image = plan.encoding(plan.source.image(index))
            except (DecodeError, OSError) as error:
                if plan.on_error == 'raise':
                    raise UserError(f'{key} cannot be read: {error}') from error
                skipped.append([key, str(error)])
                continue
            # Its place in the split is known only when all shards are: it counts from the shard's own start here.
            writer.write(array_record.pack(len(keys), key, label, image))
            keys.append(key)
            labels.append(label)
        writer.close()
        if (written := ArrayRecordReader(str(partial)).num_records()) != len(keys):
            raise RuntimeError(f'{written} of {len(keys)} records were written')
    except RuntimeError as error:  # the writer's way to say that the disk is full, and whatever else
        partial.unlink(missing_ok=True)
        raise OSError(str(error)) from error
    report = {'bytes': partial.stat().st_size, 'sha256': array_record.sha256(partial), 'keys': keys, 'labels': labels,
              'skipped': skipped}
    _to_disk(partial)
    os.replace(partial, shard)
    _write(plan.report(number), json.dumps(report))
    return skipped


def _finish(plan: Plan, record: dict) -> dict:
    """The index, then the manifest, and at last the folder of the conversion goes."""
    try:
        reports = [json.loads(plan.report(n).read_text()) for n in range(plan.count)]
    except FileNotFoundError:  # another host was faster
        return array_record.read_manifest(plan.output, plan.name)
    keys = np.array([os.fsencode(key) for report in reports for key in report['keys']])
    labels = np.array([label for report in reports for label in report['labels']], plan.source.labels.dtype)
    if not len(labels):
        raise UserError(f'none of the {len(plan.source)} images can be read')
    skipped = [entry for report in reports for entry in report['skipped']]
    for key, reason in skipped:
        log.warning('left out: %s: %s', key, reason)
    index = plan.output / f'{plan.name}.index.npz'
    partial = plan.folder / 'index.npz'
    np.savez(partial, labels=labels, keys=keys)
    _to_disk(partial)
    os.replace(partial, index)
    manifest = {
        'version': array_record.VERSION, 'examples': len(labels), 'class_names': list(plan.source.class_names),
        'made_of': record, 'path': plan.origin.get('path', ''),
        'index': {'file': index.name, 'bytes': index.stat().st_size, 'sha256': array_record.sha256(index)},
        'shards': [{'file': plan.shard(n).name, 'examples': len(report['keys']), 'bytes': report['bytes'],
                    'sha256': report['sha256']} for n, report in enumerate(reports)],
        'skipped': [{'key': key, 'reason': reason} for key, reason in skipped]}
    _write(plan.output / f'{plan.name}.json', json.dumps(manifest, indent=1) + '\n')
    shutil.rmtree(plan.folder, ignore_errors=True)
    return manifest


def _write(path: Path, text: str) -> None:
    """Whole or not at all."""
    partial = path.with_name(f'{path.name}.{os.getpid()}.tmp')
    partial.write_text(text)
    _to_disk(partial)
    os.replace(partial, path)


def _to_disk(path: Path) -> None:
    with path.open('rb') as file:
        os.fsync(file.fileno())
