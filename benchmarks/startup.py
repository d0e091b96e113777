"""How long commands take to answer: help, the list of models, the classes of one image; and a run to its first step.

    python benchmarks/startup.py --output benchmarks/results/startup.json

Each is a process of its own, started in turns for several rounds; times are medians, of the clock and of the processor,
of which a busy machine changes the first. `predict` has ResNet-50 with weights drawn at random and one photograph that
is made; cold, with no compiled program kept from before, and warm. `train` has ResNet-50's recipe on a folder of as
many files as ImageNet has, all links to one photograph a class, in batches of 16 images of 64 pixels: cold, warm, and
resumed from a checkpoint; its parts are those of the run's own line. Files are in memory after the first round: disks
are not measured.
"""

import argparse
import json
import os
import re
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import outputs
from input_pipeline import command, machine
from PIL import Image

from imagenet_jax import __main__

# Seconds that each is to stay under on two cores.
HELP_S, MODELS_S, PREDICT_S = 0.5, 1.0, 6.0
# ImageNet's: images in each of so many classes. Its kept list holds where no folder has changed for some seconds.
CLASSES, TRAIN_IMAGES, EVAL_IMAGES, SETTLED_S = 1000, 1281, 50, 3


def main() -> None:
    """Measures, prints a line a command, and writes the numbers."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--rounds', type=int, default=7, help='default %(default)s')
    parser.add_argument('--output', metavar='FILE', type=outputs.file, help='results as JSON')
    parser.add_argument('--only-train', action='store_true', help='the first step alone, into the results there are')
    arguments = parser.parse_args()
    if arguments.only_train:
        return write(arguments.output, {'train': first_steps(arguments.rounds)})
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
              'load_before': load, 'rounds': arguments.rounds, 'commands': rows,
              'train': first_steps(arguments.rounds)}
    write(arguments.output, result)


def write(file: Path | None, result: dict) -> None:
    """Puts results in the place of those of the same names, where there is a file."""
    if file:
        kept = json.loads(file.read_text()) if file.exists() else {}
        file.write_text(json.dumps(kept | result, indent=1) + '\n')


def first_steps(rounds: int) -> dict:
    """Of runs of ResNet-50: seconds of each part until the first step, medians but of the cold one."""
    found, load = {'cold': [], 'warm': [], 'resumed': []}, os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        make_folders(folder / 'data')
        time.sleep(SETTLED_S)
        first_step(folder, 'listing', '--config.model.name=resnet18')  # what is kept of the files
        found['cold'].append(first_step(folder, 'cold'))
        for number in range(rounds):
            found['warm'].append(first_step(folder, f'warm{number}'))
            shutil.rmtree(folder / 'cold' / 'checkpoints' / '4')
            found['resumed'].append(first_step(folder, 'cold'))
    rows = {name: {part: median(one[part] for one in runs) for part in runs[0]} for name, runs in found.items()}
    for name, row in rows.items():
        print(f'first step, {name:8}', '  '.join(f'{part} {seconds:.1f}' for part, seconds in row.items()))
    return {'command': command(), 'date': datetime.now(UTC).isoformat(timespec='seconds'), **machine(),
            'load_before': load, 'rounds': rounds, 'files': CLASSES * (TRAIN_IMAGES + EVAL_IMAGES), 'seconds': rows}


def make_folders(root: Path) -> None:
    """Class folders of as many images as ImageNet has, all of a class one file."""
    noise = np.random.default_rng(0).integers(0, 256, (12, 16, 3), np.uint8)
    for split, count in (('train', TRAIN_IMAGES), ('val', EVAL_IMAGES)):
        for number in range(CLASSES):
            folder = root / split / f'n{number:08d}'
            folder.mkdir(parents=True)
            Image.fromarray(noise).resize((500, 375)).save(folder / '0.JPEG')
            for image in range(1, count):
                os.link(folder / '0.JPEG', folder / f'{image}.JPEG')


def first_step(folder: Path, name: str, *more: str) -> dict[str, float]:
    """Of a run of four steps that saves after two."""
    words = ['train', '--config', 'configs/resnet50.py', '--workdir', str(folder / name),
             f'--config.data.path={folder / "data"}', '--config.steps=4', '--config.checkpoint_steps=2',
             '--config.eval_epochs=0', '--config.batch_size=16', '--config.eval_batch_size=16',
             '--config.augment.size=64', '--config.eval.size=64', '--config.eval.resize=73', *more]
    ended = subprocess.run([sys.executable, '-m', 'imagenet_jax', *words], check=True, capture_output=True, text=True,
                           env={**os.environ, 'JAX_PLATFORMS': 'cpu', 'XDG_CACHE_HOME': str(folder / 'cache')})
    said = re.search(r'first step after ([\d.]+) s: (.*)', ended.stderr)
    parts = (part.rpartition(' ') for part in said[2].split(', '))
    return {'all': float(said[1]), **{part: float(seconds) for part, _, seconds in parts}}


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
