"""Throughput of the train step alone: images already on the device, the whole update as training makes it.

    python benchmarks/train_step.py --model resnet50,resnet101 --dtype bfloat16,float32 --output steps.jsonl
    python benchmarks/train_step.py --model resnet20_cifar --dtype float32 --size 32 --batch 8     # seconds on a CPU
    python benchmarks/train_step.py --model resnet50 --trace traces    # and what took how long

One line of JSON a case: every model with every dtype, on all devices together, for a table beside other frameworks';
`python -m imagenet_jax benchmark` measures the same, and more, for its own table. The step is that of `train --model`.
Times are the median, least and most over blocks of steps; each block ends when its last update is there.
`mem_compiled_gb` is what the compiled step takes on a device, `peak_mem_gb` the device's own highest mark since the
start, where this case set it.
"""

import argparse
import itertools
import json
import os
import shlex
import sys
from datetime import UTC, datetime
from pathlib import Path

import jax
import jaxlib
import outputs

from imagenet_jax import profiling, runtime
from imagenet_jax.command_line import without_recipe
from imagenet_jax.use import benchmark, workloads


def main() -> None:
    """Measures every case; one that fails has its error in its line, and the others go on."""
    arguments = parse()
    failed = False
    for name, dtype in itertools.product(arguments.model.split(','), arguments.dtype.split(',')):
        row = {'framework': 'imagenet_jax', 'model': name, 'mode': 'jit', 'batch': arguments.batch,
               'image': arguments.size, 'dtype': dtype, 'layout': 'nhwc'}
        try:
            row |= measure(name, dtype, arguments)
        except Exception as error:  # out of memory, above all
            row['error'] = f'{type(error).__name__}: {error}'[:500]
            failed = True
        line = json.dumps(row | environment())
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
    parser.add_argument('--seconds', type=float, default=20, help='of measured steps; default %(default)s')
    parser.add_argument('--output', metavar='FILE', type=outputs.file, help='the lines are added to it')
    parser.add_argument('--trace', metavar='DIR', type=outputs.folder, help='also trace three steps of each case, into '
                        'a folder of its own there, with a summary as profile.json')
    arguments = parser.parse_args()
    if min(arguments.batch, arguments.size) < 1 or arguments.seconds < 0:
        parser.error('--batch and --size must be at least 1, --seconds not negative')
    return arguments


def measure(name: str, dtype: str, arguments: argparse.Namespace) -> dict:
    """One case: compile, warm up, time."""
    config = without_recipe.get_config(name).to_dict()
    config['model'] |= {'dtype': dtype, 'num_classes': None}
    model, _, training = workloads.works(config, size=arguments.size)
    found = {key.removeprefix('train_'): value
             for key, value in benchmark.run(training, arguments.batch, arguments.seconds).items()}
    if arguments.trace:
        trace(training, arguments.batch, arguments.trace / f'{name}_{dtype}')
    # Other frameworks' yardsticks print img_per_s: with both, one table can hold all of them.
    return {'classes': model.num_classes, 'compile_s': found['compile_s'],
            'params_m': round(benchmark.about(model, arguments.size)['param_count'], 2),
            'images_per_s': found['samples_per_sec'], 'img_per_s': found['samples_per_sec'],
            'step_ms': found['step_time'], 'step_ms_min': found['step_time_min'], 'step_ms_max': found['step_time_max'],
            'mem_compiled_gb': found['planned_gb'], 'peak_mem_gb': found['peak_gb']}


def trace(training: workloads.Training, batch: int, folder: Path) -> None:
    """Of three steps, behind two; compiled again. The summary goes to the folder, what took longest to stderr."""
    step = training.begin(workloads.compiled(training, batch).step, batch)
    for _ in range(2):
        jax.block_until_ready(step())
    with profiling.traced(folder):
        for number in range(3):
            with profiling.step(number):
                done = step()
        jax.block_until_ready(done)
    print('\n'.join(profiling.lines(profiling.write_summary(folder), 20)), file=sys.stderr)


def environment() -> dict:
    """Where this runs, and with what."""
    known = runtime.describe()
    return {'device': known['device_kind'], 'devices': known['devices'], 'jax': jax.__version__,
            'jaxlib': jaxlib.__version__, 'xla_flags': os.environ.get('XLA_FLAGS', ''),
            'git_revision': known['git_revision'], 'date': datetime.now(UTC).isoformat(timespec='seconds'),
            'command': shlex.join(['python', 'benchmarks/train_step.py', *sys.argv[1:]])}


if __name__ == '__main__':
    main()
