"""Throughput of the train step alone: images already on the device, the whole update as training makes it.

    python benchmarks/train_step.py --model resnet50,resnet101 --dtype bfloat16,float32 --output steps.jsonl
    python benchmarks/train_step.py --model resnet20_cifar --dtype float32 --size 32 --batch 8     # seconds on a CPU

One line of JSON a case: every model with every dtype, on all devices together. Times are the median, least and most
over five blocks of steps; each block ends when its last update is there. `mem_compiled_gb` is what the compiled step
takes on a device, `peak_mem_gb_process` the device's own highest mark since the start, other cases before it included.
"""

import argparse
import itertools
import json
import os
import shlex
import statistics
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime

import jax
import jaxlib

from imagenet_jax import input_pipeline, models, runtime, step
from imagenet_jax.images.batch import Normalize
from imagenet_jax.optim import SGD
from imagenet_jax.schedules import Cosine
from imagenet_jax.sources import Synthetic
from imagenet_jax.task import Softmax

BLOCKS = 5


def main() -> None:
    """Measures every case; one that fails has its error in its line, and the others go on."""
    arguments = parse()
    where = environment()
    failed = False
    for name, dtype in itertools.product(arguments.model.split(','), arguments.dtype.split(',')):
        row = {'framework': 'imagenet_jax', 'model': name, 'mode': 'jit', 'batch': arguments.batch,
               'image': arguments.size, 'dtype': dtype, 'layout': 'nhwc'}
        try:
            row |= measure(name, dtype, arguments)
        except Exception as error:  # out of memory, above all
            row['error'] = f'{type(error).__name__}: {error}'[:500]
            failed = True
        line = json.dumps(row | where)
        print(line, flush=True)
        if arguments.output:
            with open(arguments.output, 'a') as file:
                file.write(line + '\n')
    sys.exit(failed)


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--model', metavar='NAME,NAME', default='resnet50', help='default %(default)s; the names: '
                        'python -m imagenet_jax models')
    parser.add_argument('--dtype', metavar='DTYPE,DTYPE', default='bfloat16',
                        help='bfloat16, float16 (with loss scaling) or float32; default %(default)s')
    parser.add_argument('--batch', type=int, default=256, help='images a step, on all devices; default %(default)s')
    parser.add_argument('--size', type=int, default=224, help='side of the images; default %(default)s')
    parser.add_argument('--steps', type=int, default=100, help='measured, in blocks; default %(default)s')
    parser.add_argument('--warmup', type=int, default=10, help='steps before; default %(default)s')
    parser.add_argument('--output', metavar='FILE', help='the lines are added to it')
    arguments = parser.parse_args()
    if arguments.steps < BLOCKS or arguments.warmup < 1 or min(arguments.batch, arguments.size) < 1:
        parser.error(f'--steps must be at least {BLOCKS}; --warmup, --batch and --size at least 1')
    if arguments.batch % jax.device_count():
        parser.error(f'--batch {arguments.batch} does not divide among {jax.device_count()} devices')
    return arguments


def measure(name: str, dtype: str, arguments: argparse.Namespace) -> dict:
    """One case: compile, warm up, time."""
    model = models.create(name, dtype=dtype)
    schedule = Cosine(learning_rate=0.1, batch_size=arguments.batch, steps=100_000, steps_per_epoch=1000)
    training = step.TrainStep(model=model, optimizer=SGD(), schedule=schedule, task=Softmax(), normalize=Normalize(),
                              mesh=step.make_mesh())
    state = training.init(0, arguments.size)
    source = Synthetic('', 'train', model.num_classes, arguments.size, arguments.batch)
    shape = (arguments.batch, arguments.size, arguments.size, 3)
    _, batch = next(input_pipeline.drawn_batches(source, shape, 0, training.mesh))
    parameters = sum(leaf.size for leaf in jax.tree.leaves(state.params))

    began = time.perf_counter()
    train_step = training.compiled.lower(state, batch).compile()
    row = {'classes': model.num_classes, 'params_m': round(parameters / 1e6, 2),
           'compile_s': round(time.perf_counter() - began, 2)}
    for _ in range(arguments.warmup):
        state, metrics = train_step(state, batch)
    float(metrics['loss'])
    state, metrics, seconds = time_blocks(train_step, state, batch, arguments.steps // BLOCKS)
    median = statistics.median(seconds)
    rate = round(arguments.batch / median, 1)
    # Other frameworks' yardsticks print img_per_s: with both, one table can hold all of them.
    return row | {'images_per_s': rate, 'img_per_s': rate, 'step_ms': round(1e3 * median, 3),
                  'step_ms_min': round(1e3 * min(seconds), 3), 'step_ms_max': round(1e3 * max(seconds), 3),
                  'loss': round(float(metrics['loss']), 4), **memory(train_step)}


def time_blocks(train_step: Callable, state, batch: dict, steps: int) -> tuple:
    """The last state and metrics, and seconds a step in each block."""
    seconds = []
    for _ in range(BLOCKS):
        began = time.perf_counter()
        for _ in range(steps):
            state, metrics = train_step(state, batch)
        jax.block_until_ready((state, metrics))
        seconds.append((time.perf_counter() - began) / steps)
    return state, metrics, seconds


def memory(train_step) -> dict:
    """Gigabytes of one device, as far as the backend tells."""
    row = {}
    if plan := train_step.memory_analysis():
        size = (plan.temp_size_in_bytes + plan.argument_size_in_bytes + plan.output_size_in_bytes
                - plan.alias_size_in_bytes)
        row['mem_compiled_gb'] = round(size / 1e9, 3)
    if stats := jax.local_devices()[0].memory_stats():
        row['peak_mem_gb_process'] = round(stats['peak_bytes_in_use'] / 1e9, 3)
    return row


def environment() -> dict:
    """Where this runs, and with what."""
    known = runtime.describe()
    return {'device': known['device_kind'], 'devices': known['devices'], 'jax': jax.__version__,
            'jaxlib': jaxlib.__version__, 'xla_flags': os.environ.get('XLA_FLAGS', ''),
            'git_revision': known['git_revision'], 'date': datetime.now(UTC).isoformat(timespec='seconds'),
            'command': shlex.join(['python', 'benchmarks/train_step.py', *sys.argv[1:]])}


if __name__ == '__main__':
    main()
