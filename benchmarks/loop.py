"""What the loop costs beside the step: milliseconds of Python a step, of a step that does nothing.

    python benchmarks/loop.py --output benchmarks/results/loop.json
    python benchmarks/loop.py --model resnet50 --batch 256 --size 224 --steps 500

The whole of `train` runs, on a host batch that is there already, copied to the devices each time, with a row of
metrics each hundredth step. `nothing`: the step answers what it was given. `passed on`: a program takes the whole
state, donated, and answers it, which is what calling one costs, beside the small one of the rate. The time is that
between one call of the step and the hundredth after it, rows and all. On a CPU the copies to the devices are copies in
memory.
"""

import argparse
import itertools
import json
import shlex
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime

sys.modules['clu'] = None  # TensorFlow is no part of what is measured
import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402
import outputs  # noqa: E402

from imagenet_jax import input_pipeline, runtime, train  # noqa: E402
from imagenet_jax.command_line import without_recipe  # noqa: E402
from imagenet_jax.experiment import Experiment  # noqa: E402
from imagenet_jax.step import TrainStep  # noqa: E402

METRICS = ('loss', 'accuracy', 'learning_rate', 'grad_norm', 'loss_scale', 'bad_steps', 'bad_in_a_row')


def main() -> None:
    """Measures both steps, prints a line each, and writes the numbers."""
    arguments = parse()
    result = {'command': shlex.join(['python', 'benchmarks/loop.py', *sys.argv[1:]]),
              'date': datetime.now(UTC).isoformat(timespec='seconds'), **runtime.describe(), **vars(arguments)}
    del result['output']
    for name, step in (('nothing', nothing), ('passed_on', passed_on)):
        result[name] = measure(step(), arguments)
        print(f'{name:<10} {result[name]["ms"]:.3f} ms a step ({result[name]["least"]:.3f} to '
              f'{result[name]["most"]:.3f})', flush=True)
    if arguments.output:
        arguments.output.write_text(json.dumps(result, indent=1) + '\n')


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--model', metavar='NAME', default='resnet20_cifar', help='whose state; default %(default)s')
    parser.add_argument('--batch', type=int, default=128, help='images a step; default %(default)s')
    parser.add_argument('--size', type=int, default=32, help='side of the images; default %(default)s')
    parser.add_argument('--steps', type=int, default=3000, help='default %(default)s')
    parser.add_argument('--output', metavar='FILE', type=outputs.file, help='results as JSON')
    arguments = parser.parse_args()
    if min(arguments.batch, arguments.size) < 1 or arguments.steps < 300:
        parser.error('--batch and --size must be at least 1, --steps 300')
    return arguments


def nothing() -> Callable:
    """A step that answers the state it was given, and metrics that are there."""
    metrics = {name: jnp.float32(0) for name in METRICS}
    return lambda self, state, batch: (state, metrics)


def passed_on() -> Callable:
    """The same by a program, the state donated, the schedule's rate asked for."""
    call = jax.jit(lambda state, batch, rate: (state, {name: batch['label'][0] * rate for name in METRICS}),
                   donate_argnums=0)
    return lambda self, state, batch: call(state, batch, *self.given(state))


def measure(step: Callable, arguments: argparse.Namespace) -> dict:
    """A run of it: ms a step, the median, least and most over hundreds of them."""
    config = without_recipe.get_config(arguments.model)
    config.update({'steps': arguments.steps, 'log_steps': 100, 'batch_size': arguments.batch, 'eval_epochs': 0.0,
                   'checkpoint_steps': 0, 'compilation_cache': False})
    config.data.format = 'synthetic'
    config.augment.size = arguments.size
    shape = (arguments.batch, arguments.size, arguments.size, 3)
    batch = {'image': np.zeros(shape, np.uint8), 'label': np.zeros(arguments.batch, np.int32),
             'index': np.arange(arguments.batch, dtype=np.int32), 'bad': np.full(arguments.batch, -1, np.int32)}

    def batches(self, start):
        del start
        return input_pipeline.to_devices((dict(batch) for _ in iter(int, 1)), self.mesh)
    called = []

    def timed(*given):
        called.append(time.perf_counter())
        return step(*given)
    TrainStep.__call__, Experiment.train_batches, Experiment.check_memory = timed, batches, lambda *_: None
    with tempfile.TemporaryDirectory() as workdir:
        train.train_and_evaluate(config, workdir)
    return of_hundreds(called)


def of_hundreds(called: Sequence[float]) -> dict:
    """ms a step, from the seconds at which they were called; the first hundred warms up."""
    took = [10 * (after - before) for before, after in itertools.pairwise(called[100::100])]
    return {'ms': round(statistics.median(took), 4), 'least': round(min(took), 4), 'most': round(max(took), 4)}


if __name__ == '__main__':
    main()
