"""Any source -> the packed format that sources/array_record.py reads, made by many processes and perhaps many hosts.

After a kill the same command goes on where it was; plan.py says what lies on the disk meanwhile.
"""

import contextlib
import json
import logging
import multiprocessing.connection
import os
import shutil
import time
import zlib
from collections.abc import Callable, Iterator, MutableSequence, Sequence
from functools import partial

import numpy as np
from tqdm import tqdm

from imagenet_jax.convert.plan import Encoding, Plan
from imagenet_jax.convert.shards import make_shard, move, remove_abandoned, write
from imagenet_jax.errors import UserError
from imagenet_jax.sources import array_record
from imagenet_jax.worker_process import Given, Process
from imagenet_jax.workers import cores

__all__ = ['Encoding', 'Plan', 'convert']

log = logging.getLogger(__name__)

# Seconds between lines where there is no terminal.
_SAY = 30


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
    if plan.manifest.exists():
        return _finished_before(plan, record)
    with _disk_errors(plan):
        _begin(plan, record)
        todo = [n for n in range(part[0], plan.count, part[1]) if not plan.is_finished(n)]
        if todo:
            _make(plan, _number(record), todo, workers)
        if all(map(plan.is_finished, range(plan.count))):
            return _finish(plan, record)
        if not plan.manifest.exists():  # else another process was faster, and has cleared up
            return None
    return array_record.read_manifest(plan.output, plan.name)


def _number(record: dict) -> int:
    """Of a conversion: records have it, so that none is taken for another's."""
    return zlib.crc32(json.dumps(record, sort_keys=True).encode())


def _finished_before(plan: Plan, record: dict) -> dict:
    manifest = array_record.read_manifest(plan.output, plan.name)
    _refuse_other(plan, manifest['made_of'], record)
    skipped = [(entry['key'], entry['reason']) for entry in manifest['skipped']]
    _refuse_too_many(plan, skipped)  # by this command's limits
    array_record.ArrayRecord(str(plan.output), plan.name)  # says what is missing or damaged since
    log.info('%s is finished already: nothing to do', plan.manifest)
    return manifest


@contextlib.contextmanager
def _disk_errors(plan: Plan):
    folder = plan.output
    try:
        yield
    except OSError as error:
        if plan.manifest.exists():  # another process was faster, and has cleared up
            return
        if not folder.is_dir():
            raise UserError(f'cannot make {folder}: {error}; choose another --output') from error
        free = shutil.disk_usage(folder).free
        raise UserError(f'cannot write to {folder}: {error}; {free / 1e9:.1f} GB are free there. Finished shards stay: '
                        'make room, and the same command goes on') from error


def _begin(plan: Plan, record: dict) -> None:
    plan.folder.mkdir(parents=True, exist_ok=True)
    path = plan.folder / 'plan.json'
    if path.exists():
        try:
            there = dict(json.loads(path.read_text()))
        except (ValueError, TypeError) as error:
            raise UserError(f'{path} is damaged ({error}): remove {plan.folder} and {plan.name}-*.array_record beside '
                            'it, and convert again') from error
        _refuse_other(plan, there, record)
        remove_abandoned(plan)
    else:
        if found := sorted(plan.output.glob(f'{plan.name}-*-of-*.array_record')):
            raise UserError(f'{found[0]} is in the way: it belongs to no conversion that could be gone on with. '
                            f'Remove {plan.name}-*.array_record there, or use another --output or --name')
        write(plan, path, json.dumps(record))


def _refuse_other(plan: Plan, there: dict, wanted: dict) -> None:
    wanted = json.loads(json.dumps(wanted))
    lines = [f'  {name}: {str(there.get(name))[:200]}, now {str(value)[:200]}' for name, value in wanted.items()
             if there.get(name) != value]
    if lines:
        raise UserError('\n'.join([f'{plan.output} holds split {plan.name!r} made of something else or in another way:',
                                   *lines, 'use another --output or --name, or remove it']))


def _make(plan: Plan, number: int, todo: Sequence[int], workers: int) -> None:
    """Makes shards in worker processes."""
    finished_before = (json.loads(plan.report(n).read_text()) for n in range(plan.count) if plan.is_finished(n))
    skipped = [entry for report in finished_before for entry in report['skipped']]
    images, workers = sum(len(plan.indices(n)) for n in todo), min(workers or cores(), len(todo))
    todo = iter(todo)
    done = multiprocessing.get_context('spawn').RawArray('q', workers)  # one each: no lock that a worker could die with
    busy, given = {}, Given(plan)
    try:
        for place in range(workers):
            worker = Process('finished shards stay, and the same command goes on: give it fewer --workers',
                             _maker, given, number, done, place)
            busy[worker.pipe] = worker
            worker.ask(next(todo))
        with _progress(images) as show:
            while busy:
                for worker in busy.values():
                    worker.look()
                for pipe in multiprocessing.connection.wait(busy, 0.2):
                    skipped += busy[pipe].answer()
                    _refuse_too_many(plan, skipped)
                    if (following := next(todo, None)) is None:
                        busy.pop(pipe).kill()
                    else:
                        busy[pipe].ask(following)
                show(sum(done))
    finally:
        for worker in busy.values():  # after an error: shards under way are lost
            worker.kill()


def _maker(plan: Plan, number: int, done: MutableSequence[int], place: int) -> Callable[[int], list[list[str]]]:
    """In a worker: makes one shard, and counts its images."""
    def advance():
        done[place] += 1
    return partial(make_shard, plan, number, advance)


@contextlib.contextmanager
def _progress(total: int) -> Iterator:
    """Takes the number of images so far: a bar on a terminal, elsewhere a line now and then and at the end."""
    began = said = time.monotonic()
    count = 0

    def show(now: int):
        nonlocal count, said
        bar.update(now - count)
        count = now
        if bar.disable and time.monotonic() - said > _SAY:
            said = time.monotonic()
            say()

    def say():
        log.info(tqdm.format_meter(count, total, time.monotonic() - began, unit=' images',
                                   bar_format='{n_fmt} of {total_fmt} images, {rate_fmt}, {remaining} left'))

    with tqdm(total=total, unit=' images', disable=None, dynamic_ncols=True) as bar:
        yield show
    if bar.disable:
        say()


def _refuse_too_many(plan: Plan, skipped: Sequence[Sequence[str]]) -> None:
    limit = 0 if plan.on_error == 'raise' else plan.max_bad_fraction * len(plan.source)
    if len(skipped) > limit:
        first = ', '.join(f'{key} ({reason})' for key, reason in skipped[:10])
        raise UserError(f'{len(skipped)} of {len(plan.source)} images cannot be read, more than --max-bad-fraction and '
                        f'--on-error allow ({limit:g}); the first: {first}')


def _finish(plan: Plan, record: dict) -> dict:
    """The index, then the manifest, and at last the folder of the conversion goes."""
    reports = [json.loads(plan.report(n).read_text()) for n in range(plan.count)]
    skipped = [entry for report in reports for entry in report['skipped']]
    _refuse_too_many(plan, skipped)  # of all hosts, and of those found before an interruption
    keys = np.array([os.fsencode(key) for report in reports for key in report['keys']])
    labels = np.array([label for report in reports for label in report['labels']], plan.source.labels.dtype)
    if not len(labels):
        raise UserError(f'none of the {len(plan.source)} images can be read, the first {": ".join(skipped[0])}')
    for key, reason in skipped:
        log.warning('left out: %s: %s', key, reason)
    index, partial_index = plan.output / f'{plan.name}.index.npz', plan.partial('index')
    with partial_index.open('wb') as file:
        np.savez(file, labels=labels, keys=keys)
    entry = {'file': index.name, 'bytes': partial_index.stat().st_size, 'sha256': array_record.sha256(partial_index)}
    move(partial_index, index)
    words = {'class_words': dict(plan.source.class_words)} if plan.source.class_words else {}
    manifest = {
        'version': array_record.VERSION, 'conversion': _number(record), 'examples': len(labels),
        'class_names': list(plan.source.class_names), **words, 'made_of': record, 'path': plan.origin.get('path', ''),
        'index': entry,
        'shards': [{'file': plan.shard(n).name, 'examples': len(report['keys']), 'bytes': report['bytes'],
                    'sha256': report['sha256']} for n, report in enumerate(reports)],
        'skipped': [{'key': key, 'reason': reason} for key, reason in skipped]}
    write(plan, plan.manifest, json.dumps(manifest, indent=1) + '\n')
    shutil.rmtree(plan.folder, ignore_errors=True)
    return manifest
