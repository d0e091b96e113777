"""What each of several hosts has to do for the same batches: 1, 2 and 4 processes joined on this machine.

    python benchmarks/hosts.py --output benchmarks/results/hosts.json

Each process takes its share of the same 40 training batches of 64 random resized crops of 224 pixels, with one thread,
then of one pass through the images in evaluation's view. Told of each are the images and bytes that it read, batches
that were begun ahead among them, and its processor time; on the clock, images/s of all together, for which there are no
more cores where there are more processes.
"""

import argparse
import itertools
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import outputs
from input_pipeline import command, machine, make_jpegs

from imagenet_jax import hosts, input_pipeline, sources
from imagenet_jax.images.eval_view import EvalView
from imagenet_jax.images.train_view import TrainView
from imagenet_jax.workers import Workers

HOSTS, IMAGES, BATCH, STEPS = (1, 2, 4), 500, 64, 40


def main() -> None:
    """Measures, prints a line a process, and writes the numbers."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--output', metavar='FILE', type=outputs.file, help='results as JSON')
    parser.add_argument('--process', nargs=4, metavar=('DATA', 'ADDRESS', 'COUNT', 'RANK'), help='be one of them')
    arguments = parser.parse_args()
    if arguments.process:
        data, address, count, rank = arguments.process
        print(json.dumps(process(data, address, int(count), int(rank))))
        return
    load, rows = os.getloadavg()[0], []
    with tempfile.TemporaryDirectory() as scratch:
        (Path(scratch) / 'train').mkdir()
        make_jpegs(Path(scratch) / 'train', IMAGES)
        for count in HOSTS:
            found = together(scratch, count)
            row = {'hosts': count}
            for what in ('train', 'eval'):
                each = [one[what] for one in found]
                row[what] = {'of_each': each, 'sum': {name: round(sum(one[name] for one in each), 2) for name in (
                    'images', 'bytes', 'processor_s')}}
            row['train']['images_per_s'] = round(STEPS * BATCH / max(one['train']['seconds'] for one in found), 1)
            rows.append(row)
            print(json.dumps(row), flush=True)
    if arguments.output:
        result = {'command': command(), 'date': datetime.now(UTC).isoformat(timespec='seconds'), **machine(),
                  'load_before': load, 'images': IMAGES, 'batch_size': BATCH, 'steps': STEPS, 'rows': rows}
        arguments.output.write_text(json.dumps(result, indent=1) + '\n')


def together(data: str, count: int) -> list[dict]:
    """What each of so many processes says of itself."""
    with socket.socket() as free:
        free.bind(('localhost', 0))
        address = f'localhost:{free.getsockname()[1]}'
    started = [subprocess.Popen([sys.executable, __file__, '--process', data, address, str(count), str(rank)],
                                stdout=subprocess.PIPE, text=True, env={**os.environ, 'JAX_PLATFORMS': 'cpu'})
               for rank in range(count)]
    said = [one.communicate(timeout=300)[0] for one in started]
    if any(one.returncode for one in started):
        raise SystemExit('a process failed; what it said is above')
    return [json.loads(one.splitlines()[-1]) for one in said]


class Counted:
    """A source that counts what is read of it."""

    def __init__(self, source: sources.Source):
        self._source, self.sizes = source, []

    def __getattr__(self, name):
        return getattr(self._source, name)

    def __len__(self):
        return len(self._source)

    def image(self, index: int) -> bytes:
        encoded = self._source.image(index)
        self.sizes.append(len(encoded))
        return encoded


def process(data: str, address: str, count: int, rank: int) -> dict:
    """This host's part of both."""
    with hosts.together():
        hosts.join(address, count, rank)
        source, one = sources.create('folder', data, 'train'), Workers(threads=1)
        batches = input_pipeline.train_batches(source, TrainView(224), BATCH, 0, workers=one)
        next(batches)  # what is done once
        batches.close()
        hosts.compare('start', {})  # all begin at once
        train, _ = measured(source, lambda source: itertools.islice(
            input_pipeline.train_batches(source, TrainView(224), BATCH, 0, workers=one), STEPS))
        last, masks = measured(source, lambda source: input_pipeline.eval_batches(
            source, EvalView(224, 256), BATCH, one))
        return {'train': train, 'eval': last | {'padding': int((~masks).sum())}}


def measured(source: sources.Source, open_batches) -> tuple[dict, np.ndarray]:
    """What going through the batches took, and the masks of those of an evaluation."""
    counted = Counted(source)
    clock, processor = time.perf_counter(), time.process_time()
    masks = [batch.get('mask', np.ones(0, bool)) for batch in open_batches(counted)]
    return {'images': len(counted.sizes), 'bytes': sum(counted.sizes),
            'processor_s': round(time.process_time() - processor, 2),
            'seconds': round(time.perf_counter() - clock, 2)}, np.concatenate(masks)


if __name__ == '__main__':
    main()
