"""How long commands take to answer: help, the list of models, and the classes of one image.

    python benchmarks/startup.py --output benchmarks/results/startup.json

Each is a process of its own, started in turns for several rounds; times are medians, of the clock and of the processor,
of which a busy machine changes the first. `predict` has ResNet-50 with weights drawn at random and one photograph that
is made; cold, with no compiled program kept from before, and warm. Files are in memory after the first round: disks are
not measured.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from input_pipeline import command, machine
from PIL import Image

from imagenet_jax import __main__

# Seconds that each is to stay under on two cores.
HELP_S, MODELS_S, PREDICT_S = 0.5, 1.0, 6.0


def main() -> None:
    """Measures, prints a line a command, and writes the numbers."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--rounds', type=int, default=7, help='default %(default)s')
    parser.add_argument('--output', metavar='FILE', help='results as JSON')
    arguments = parser.parse_args()
    load = os.getloadavg()[0]
    cases = {'': (HELP_S, ['--help']),
             **{f'{name} --help': (HELP_S, [name, '--help']) for name in __main__._COMMANDS},
             'train --config resnet50 --help': (HELP_S, ['train', '--config', 'resnet50', '--help']),
             'models': (MODELS_S, ['models'])}
    with tempfile.TemporaryDirectory() as scratch:
        predict = ['predict', '--checkpoint', f'{scratch}/resnet50', f'{scratch}/image.png']
        prepare(Path(scratch))
        cold = seconds(predict, f'{scratch}/cache')
        cases['predict, one image, warm'] = PREDICT_S, predict
        times = {name: [] for name in cases}
        for _ in range(arguments.rounds):
            for name, (_, words) in cases.items():
                times[name].append(seconds(words, f'{scratch}/cache'))
    rows = {name: {'seconds': median(clock for clock, _ in times[name]),
                   'processor_seconds': median(processor for _, processor in times[name]), 'under': limit}
            for name, (limit, _) in cases.items()}
    rows['predict, one image, cold'] = dict(zip(('seconds', 'processor_seconds'), map(rounded, cold), strict=True))
    for name, row in rows.items():
        print(f'{name or "--help":32} {row["seconds"]:6.2f} s {row["processor_seconds"]:6.2f} s of the processor')
    result = {'command': command(), 'date': datetime.now(UTC).isoformat(timespec='seconds'), **machine(),
              'load_before': load, 'rounds': arguments.rounds, 'commands': rows}
    if arguments.output:
        Path(arguments.output).write_text(json.dumps(result, indent=1) + '\n')


def prepare(folder: Path) -> None:
    """An import of ResNet-50 with weights at random, as resnet50/, and image.png, in a process that ends with it."""
    noise = np.random.default_rng(0).integers(0, 256, (12, 16, 3), np.uint8)
    Image.fromarray(noise).resize((500, 375)).save(folder / 'image.png')
    code = ('import jax, sys\nfrom imagenet_jax import models, weight_files, weights\n'
            'model = models.create("resnet50")\n'
            'variables = jax.jit(model.init)(jax.random.key(0), jax.numpy.zeros((1, 224, 224, 3)))\n'
            'weight_files.write(sys.argv[1], weights.to_torch(model, variables))')
    file = folder / 'resnet50.safetensors'
    subprocess.run([sys.executable, '-c', code, file], check=True)
    seconds(['weights', 'import', '--model', 'resnet50', '--input', str(file), '--output', str(folder / 'resnet50')],
            str(folder / 'unused'))


def seconds(words: list[str], cache: str) -> tuple[float, float]:
    """Of a command: on the clock, and of the processor; `cache` is where it keeps programs."""
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run([sys.executable, '-m', 'imagenet_jax', *words], check=True, capture_output=True,
                   env={**os.environ, 'JAX_PLATFORMS': 'cpu', 'XDG_CACHE_HOME': cache})
    took, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    return took, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def median(values) -> float:
    return rounded(statistics.median(values))


def rounded(value: float) -> float:
    return round(value, 3)


if __name__ == '__main__':
    main()
