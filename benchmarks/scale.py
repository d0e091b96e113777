"""What the number of samples costs: shuffling them, opening them, and handing them to worker processes.

    python benchmarks/scale.py --output benchmarks/results/scale.json

  order    the first and the last sample of an epoch, and one of many between, beside a table of the epoch's order as
           numpy makes it; and batches of made images of 8 pixels, the first and the last of an epoch
  records  opening 1,400 records a shard, of which 10,000 are 14 million, and what two worker processes keep of the
           labels and names; the shards are links to one file, since opening reads one record of each
  folder   listing empty files in 1,000 class folders, once and then as it is kept

Each case is a process of its own, so that its memory is its own: the growth of its peak, and of a worker what it shares
with no other process.
"""

import argparse
import hashlib
import json
import multiprocessing
import os
import resource
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import outputs
from input_pipeline import command, machine

from imagenet_jax import input_pipeline, sources
from imagenet_jax.images.train_view import TrainView
from imagenet_jax.order import order
from imagenet_jax.sources import array_record
from imagenet_jax.workers import Workers

SAMPLES = (50_000, 1_281_167, 14_197_122, 10**9, 2**31 + 5)
TABLES = 2 * 10**7  # samples that a table is made of, for comparison
SHARDS, RECORDS = (10, 100, 1000, 10_000), 1400
FILES = (20, 200)  # in each of so many class folders
CLASSES = 1000
PICKED = 20_000


class Made(sources.Source):
    """So many images, of which nothing is kept."""

    def __init__(self, count: int):
        self.labels = Zeros(count)

    def image(self, index):
        return np.zeros((8, 8, 3), np.uint8)

    def key(self, index):
        return str(index)


class Zeros:
    """So many labels, of which nothing is kept."""
    ndim = 1

    def __init__(self, count: int):
        self._count = count

    def __len__(self):
        return self._count

    def __getitem__(self, index):
        return np.int32(0)


def main() -> None:
    """Measures each case in its process, prints a line a case, and writes the numbers."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--output', metavar='FILE', type=outputs.file, help='results as JSON')
    parser.add_argument('--case', nargs=2, metavar=('NAME', 'N'), help='measure one, here')
    arguments = parser.parse_args()
    if arguments.case:
        name, size = arguments.case
        with tempfile.TemporaryDirectory() as scratch:
            print(json.dumps(CASES[name][0](int(size), Path(scratch))))
        return
    load, rows = os.getloadavg()[0], {}
    for name, (_, sizes) in CASES.items():
        for size in sizes:
            ended = subprocess.run([sys.executable, __file__, '--case', name, str(size)], capture_output=True,
                                   text=True, check=True, env={**os.environ, 'JAX_PLATFORMS': 'cpu'})
            row = json.loads(ended.stdout.splitlines()[-1])
            rows.setdefault(name, []).append(row)
            print(f'{name:8}', '  '.join(f'{what} {value:,}' for what, value in row.items()), flush=True)
    if arguments.output:
        result = {'command': command(), 'date': datetime.now(UTC).isoformat(timespec='seconds'), **machine(),
                  'load_before': load, **rows}
        arguments.output.write_text(json.dumps(result, indent=1) + '\n')


def measure_order(samples: int, scratch: Path) -> dict:
    """Of an epoch's order, and of batches."""
    peak = peak_mb()
    first, last = (timed(lambda epoch=epoch, place=place: order(samples, 0, epoch)(place))[0] for epoch, place in (
        (1, 0), (2, samples - 1)))
    there = order(samples, 0, 2)
    each, _ = timed(lambda: [there(place) for place in range(PICKED)])
    row = {'samples': samples, 'first_us': micro(first), 'last_us': micro(last), 'each_us': micro(each / PICKED),
           'memory_mb': peak_mb() - peak}
    row |= {f'{name}_batch_ms': batch_ms(samples, step) for name, step in (
        ('first', -(-samples // 64)), ('last', samples // 64 - 2))}
    if samples <= TABLES:
        peak = peak_mb()
        table, _ = timed(lambda: np.random.default_rng((0, 1)).permutation(samples).astype(np.int32))
        row |= {'table_ms': round(1e3 * table, 1), 'table_memory_mb': peak_mb() - peak}
    return row


def batch_ms(samples: int, step: int) -> float:
    """Milliseconds until the batch of that step is there, of 64 images, where a run begins with it."""
    def take():
        batches = input_pipeline.train_batches(Made(samples), TrainView(8), 64, 0, step, Workers(threads=1))
        next(batches)
        batches.close()
    timed(take)
    order.cache_clear()
    return round(1e3 * timed(take)[0], 1)


def measure_records(shards: int, scratch: Path) -> dict:
    """Of a conversion of many shards."""
    making = multiprocessing.get_context('spawn').Process(target=make_shards, args=(scratch, shards))
    making.start()  # whose memory is not counted
    making.join()
    peak = peak_mb()
    seconds, source = timed(lambda: sources.create('array_record', str(scratch), 'train'))
    row = {'images': len(source), 'shards': shards, 'open_s': round(seconds, 2), 'memory_mb': peak_mb() - peak,
           'labels_and_names_mb': round((source.labels.nbytes + source._keys.nbytes) / 2**20)}
    batches = input_pipeline.train_batches(source, TrainView(8), 64, 0, workers=Workers(processes=2))
    row['first_batch_s'] = round(timed(lambda: next(batches))[0], 2)
    row['own_memory_of_a_worker_mb'] = max(own_mb(worker.pid) for worker in multiprocessing.active_children())
    batches.close()
    return row


def make_shards(folder: Path, shards: int) -> None:
    """A conversion whose shards all have the same images."""
    from array_record.python.array_record_module import ArrayRecordWriter
    keys = [f'n01440764/n01440764_{place:05d}.JPEG' for place in range(RECORDS)]
    writer = ArrayRecordWriter(str(folder / 'one'), 'group_size:1')
    for place, key in enumerate(keys):
        writer.write(array_record.pack(1, place, key, 0, np.zeros((8, 8, 3), np.uint8)))
    writer.close()
    names = [f'train-{number:05d}-of-{shards:05d}.array_record' for number in range(shards)]
    for name in names:
        os.link(folder / 'one', folder / name)
    index = folder / 'train.index.npz'
    np.savez(index, labels=np.zeros(shards * RECORDS, np.int32), keys=np.tile(np.array(keys, 'S'), shards))
    size = (folder / 'one').stat().st_size
    (folder / 'train.json').write_text(json.dumps({
        'version': 1, 'conversion': 1, 'examples': shards * RECORDS, 'class_names': ['fish'], 'made_of': {},
        'index': {'file': index.name, 'bytes': index.stat().st_size,
                  'sha256': hashlib.sha256(index.read_bytes()).hexdigest()},
        'shards': [{'file': name, 'examples': RECORDS, 'bytes': size} for name in names], 'skipped': []}))


def measure_folder(files: int, scratch: Path) -> dict:
    """Of class folders; a list is kept where no folder has changed for some seconds."""
    os.environ['XDG_CACHE_HOME'] = str(scratch / 'cache')
    for number in range(CLASSES):
        folder = scratch / 'train' / f'n{number:08d}'
        folder.mkdir(parents=True)
        for file in range(files):
            (folder / f'{folder.name}_{file}.JPEG').touch()
    time.sleep(3)
    peak = peak_mb()
    (first, source), (again, _) = (timed(lambda: sources.create('folder', str(scratch), 'train')) for _ in range(2))
    return {'files': len(source), 'listed_s': round(first, 2), 'again_s': round(again, 2),
            'memory_mb': peak_mb() - peak}


def timed(work) -> tuple[float, object]:
    """(seconds, what came of it)."""
    began = time.perf_counter()
    result = work()
    return time.perf_counter() - began, result


def micro(seconds: float) -> float:
    """In microseconds."""
    return round(1e6 * seconds, 1)


def peak_mb() -> int:
    """Of this process, so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


def own_mb(pid: int) -> int:
    """Memory that a process shares with no other."""
    lines = dict(line.split(':') for line in Path(f'/proc/{pid}/smaps_rollup').read_text().splitlines()[1:])
    return sum(int(lines[name].split()[0]) for name in ('Private_Clean', 'Private_Dirty')) // 1024


CASES = {'order': (measure_order, SAMPLES), 'records': (measure_records, SHARDS), 'folder': (measure_folder, FILES)}


if __name__ == '__main__':
    main()
