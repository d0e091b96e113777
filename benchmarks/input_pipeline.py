"""Training's input path beside tf.data's and PyTorch's: images/s from stored images to shuffled uint8 batches.

    python benchmarks/input_pipeline.py --data data/imagenet/train --output benchmarks/results/input_pipeline.json
    python benchmarks/input_pipeline.py --show benchmarks/results/input_pipeline.json

Every loader gives batches of 64 random resized crops of 224 pixels, half of them flipped:

  threads, processes  input_pipeline.train_batches with data.threads, data.processes: from the original JPEGs, from
                      shards of JPEGs with a shorter side of 256 (convert --resize-shorter 256), and from shards of
                      uint8 pixels (convert --raw 256)
  tf.data             decode_and_crop_jpeg of the originals, in a pool of as many threads
  torch DataLoader    torchvision's ImageFolder over the originals, where the two are installed

The loaders take turns, a fresh start and a warm-up each, for several rounds, so that whatever else the machine does
falls on all of them: read the ratios. Two numbers: images/s over workers, which other programs slow down, and images
per second of processor time, which they slow down less but which leaves waiting out. A data set of more than --images
is sampled: the images come from memory after the warm-up, disks are not measured.
"""

import argparse
import dataclasses
import json
import math
import multiprocessing
import os
import platform
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import loaders
import numpy as np
import outputs
from PIL import Image, features

WARM_UP = 4   # batches of each worker before the clock starts: by then no buffer is full from a head start
GPU_RATES = (3500, 7000)  # images/s that one GPU may train on
ORIGINALS = 'original JPEGs'
STORED = {'JPEGs of 256': ('--resize-shorter', '256'), 'pixels of 256 x 256': ('--raw', '256')}
PEERS = ('tf.data', 'torch DataLoader')
PACKAGES = ('imagenet_jax', 'jax', 'grain', 'numpy', 'opencv-python-headless', 'simplejpeg', 'pillow', 'array-record',
            'tensorflow-cpu', 'tensorflow', 'torch', 'torchvision')


@dataclasses.dataclass(frozen=True)
class Case:
    """One loader of one kind of stored images with so many workers; `open` starts it."""
    loader: str
    data: str
    workers: int
    open: Callable[[], Iterator[dict]]


def main() -> None:
    """Measures, prints a table and what it means, and writes the numbers."""
    arguments = parse()
    if arguments.show:
        return show(json.loads(Path(arguments.show).read_text()))
    os.environ['JAX_PLATFORMS'] = 'cpu'  # nothing here needs an accelerator
    load = os.getloadavg()
    with tempfile.TemporaryDirectory() as scratch:
        originals = Path(scratch) / 'originals'
        originals.mkdir()
        if arguments.data:
            sample(Path(arguments.data).absolute(), originals, arguments.images)
        else:
            make_jpegs(originals)
        images = len(loaders.listed(originals)[0])
        stored = {ORIGINALS: ('folder', originals, ''), **convert(originals, Path(scratch))}
        cases = open_cases(stored, arguments.workers)
        turns = {(case.loader, case.data, case.workers): [] for case in cases}
        for number in range(arguments.rounds):
            at = number % len(cases)
            for case in cases[at:] + cases[:at]:
                own = turns[case.loader, case.data, case.workers]
                own.append(turn(case, arguments.seconds))
                print(f'round {number + 1}/{arguments.rounds}  {case.loader}, {case.data}, {case.workers}: '
                      f'{own[-1]["images_per_s"]:.0f} images/s', file=sys.stderr)
        result = {
            'command': command(), 'date': datetime.now(UTC).isoformat(timespec='seconds'), **machine(),
            'load_average_before': [round(x, 2) for x in load],
            'data': {'made': not arguments.data, 'images': images,
                     'mean_bytes': {name: mean_bytes(path, images) for name, (_, path, _) in stored.items()}},
            'batch': loaders.BATCH, 'size': loaders.SIZE, 'seconds': arguments.seconds, 'rounds': arguments.rounds,
            'cases': summarise(turns)}
    show(result)
    if arguments.output:
        arguments.output.write_text(json.dumps(result, indent=1) + '\n')


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--data', metavar='DIR', help='a folder of class folders of JPEGs; default: JPEGs of '
                        "ImageNet's usual size, made in a temporary folder")
    parser.add_argument('--images', type=int, default=512, help='of the data, spread over it; default %(default)s')
    parser.add_argument('--seconds', type=float, default=3.0, help='measured of each turn, default %(default)s')
    parser.add_argument('--rounds', type=int, default=5, help='turns of each loader, default %(default)s')
    parser.add_argument('--workers', metavar='N,N', type=lambda text: [int(n) for n in text.split(',')],
                        default=worker_counts(cores()), help='default: 1, 2, 4, ... and the number of cores')
    parser.add_argument('--output', metavar='FILE', type=outputs.file, help='results as JSON')
    parser.add_argument('--show', metavar='FILE', help='measure nothing, print the tables of such a file')
    arguments = parser.parse_args()
    if arguments.rounds < 1 or arguments.seconds <= 0 or min(arguments.workers) < 1 or arguments.images < 1:
        parser.error('--images, --rounds, --seconds and --workers must be positive')
    if arguments.data and not Path(arguments.data).is_dir():
        parser.error(f'--data: no folder {arguments.data}')
    return arguments


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count()


def worker_counts(most: int) -> list[int]:
    """Powers of two under `most`, then `most`."""
    return [2**i for i in range(most.bit_length()) if 2**i < most] + [most]


def sample(folder: Path, to: Path, count: int) -> None:
    """Links `count` JPEGs, evenly spread, from class folders to class folders."""
    files = [Path(file) for file in loaders.listed(folder)[0] if file.lower().endswith(('.jpg', '.jpeg'))]
    if not files:
        sys.exit(f'error: {folder} holds no class folders with JPEGs')
    for i in np.unique(np.linspace(0, len(files) - 1, count).astype(int)):
        (to / files[i].parent.name).mkdir(exist_ok=True)
        (to / files[i].parent.name / files[i].name).symlink_to(files[i])


def make_jpegs(root: Path, count: int = 192, classes: int = 8) -> None:
    """Writes JPEGs of about ImageNet's mean size, 110 KB and 400 x 350 pixels, of shapes and grain like photographs."""
    rng = np.random.default_rng(0)
    for number in range(count):
        width, height = [(500, 375), (375, 500), (333, 250), (400, 300)][number % 4]
        picture = np.zeros((height, width, 3), np.float32)
        for cells in (4, 16, 64):
            field = rng.uniform(0, 255, (cells, cells, 3)).astype(np.uint8)
            picture += np.asarray(Image.fromarray(field).resize((width, height), Image.Resampling.BICUBIC)) / 3
        picture += rng.normal(0, 20, (height, width, 1))
        folder = root / f'class{number % classes}'
        folder.mkdir(exist_ok=True)
        pixels = Image.fromarray(picture.clip(0, 255).astype(np.uint8))
        pixels.save(folder / f'{number}.JPEG', quality=93)


def convert(originals: Path, to: Path) -> dict[str, tuple[str, Path, str]]:
    """The other ways of storing them: name -> (format, path, split)."""
    stored = {}
    for number, (name, how) in enumerate(STORED.items()):
        stored[name] = 'array_record', to / f'stored{number}', 'train'
        subprocess.run([sys.executable, '-m', 'imagenet_jax', 'convert', '--format', 'folder', '--path', str(originals),
                        '--split', '', '--output', str(to / f'stored{number}'), *how], check=True)
    return stored


def mean_bytes(path: Path, images: int) -> int:
    """Size on disk of one image."""
    return round(sum(file.stat().st_size for file in path.rglob('*') if file.is_file()) / images)


def open_cases(stored: dict, workers: list[int]) -> list[Case]:
    """Every loader with every number of workers."""
    originals = stored[ORIGINALS][1]
    peers = {'tf.data': loaders.tf_data, 'torch DataLoader': loaders.torch_data_loader}
    if not loaders.has_torch():
        del peers['torch DataLoader']
    return [case for n in workers for case in (
        *(Case(kind, data, n, partial(loaders.ours, *where, kind, n))
          for data, where in stored.items() for kind in ('threads', 'processes')),
        *(Case(name, ORIGINALS, n, partial(peer, originals, n)) for name, peer in peers.items()))]


def turn(case: Case, seconds: float) -> dict:
    """Starts a loader, warms it up, and counts for at least `seconds`, in whole rounds of its workers."""
    batches, images = case.open(), 0
    try:
        for _ in range(WARM_UP * case.workers):
            next(batches)
        used, began = cpu_seconds(), time.perf_counter()
        while time.perf_counter() - began < seconds:
            images += sum(len(next(batches)['image']) for _ in range(case.workers))
        rate = images / (time.perf_counter() - began)
        used = cpu_seconds() - used
    finally:
        batches.close()
    row = {'images_per_s': rate, 'images_per_s_per_core': rate / case.workers}
    return row | ({'images_per_cpu_s': images / used} if used else {})


def cpu_seconds() -> float:
    """Processor time of this process and its workers so far; 0 where the system does not tell."""
    ticks = 0
    for process in (os.getpid(), *(child.pid for child in multiprocessing.active_children())):
        stat = Path(f'/proc/{process}/stat')
        if not stat.exists():
            return 0.0
        user, system = stat.read_text().rpartition(')')[2].split()[11:13]
        ticks += int(user) + int(system)
    return ticks / os.sysconf('SC_CLK_TCK')


def summarise(turns: dict) -> list[dict]:
    """A row a case: each number over the rounds, and its ratio in the round to the peers and to the fewest workers."""
    rows, fewest = [], min(workers for _, _, workers in turns)
    for (loader, data, workers), own in turns.items():
        row = {'loader': loader, 'data': data, 'workers': workers, **{k: spread([t[k] for t in own]) for k in own[0]}}
        others = {f'to_{peer}': (peer, ORIGINALS, workers) for peer in PEERS if peer != loader}
        for name, other in {**others, f'to_{fewest}_worker': (loader, data, fewest)}.items():
            if other in turns:
                row[name] = {k: spread([t[k] / o[k] for t, o in zip(own, turns[other], strict=True)])
                             for k in ('images_per_s', 'images_per_cpu_s') if k in own[0]}
        rows.append(row)
    return rows


def spread(values: list[float]) -> dict:
    """Median, least, most, and all of them in order."""
    rounded = [float(f'{value:.4g}') for value in values]
    return {'median': float(f'{statistics.median(values):.4g}'), 'min': min(rounded), 'max': max(rounded),
            'rounds': rounded}


def machine() -> dict:
    """Where this runs, and with what."""
    from imagenet_jax import runtime
    from imagenet_jax.images import jpeg
    versions = {'python': platform.python_version()}
    for name in PACKAGES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    model = platform.processor()
    if Path('/proc/cpuinfo').exists():
        lines = Path('/proc/cpuinfo').read_text().splitlines()
        model = next((line.split(':')[1].strip() for line in lines if line.startswith('model name')), model)
    return {'cpu': model, 'cores': cores(), 'git_revision': runtime.describe()['git_revision'],
            'compiled_jpeg_reader': jpeg.BUILT,
            'versions': versions | {"pillow's libjpeg-turbo": features.version('libjpeg_turbo')}}


def command() -> str:
    """This command, the place of the data left out."""
    words = list(sys.argv[1:])
    for i, word in enumerate(words):
        if word.startswith('--data='):
            words[i] = '--data=DIR'
        elif word == '--data':
            words[i + 1] = 'DIR'
    return shlex.join(['python', f'benchmarks/{Path(sys.argv[0]).name}', *words])


def show(result: dict) -> None:
    """The tables."""
    print(f'{result["data"]["images"]} images; JPEG reader {"" if result["compiled_jpeg_reader"] else "not "}compiled; '
          f'{result["cores"]} x {result["cpu"]}; load average before: '
          f'{result["load_average_before"][0]}\nmedians of {result["rounds"]} rounds; ratios (least to most) by '
          'processor time, to one worker by the clock\n\n'
          f'{"loader":<17}{"data":<20} workers  images/s  a CPU second   to tf.data            to torch DataLoader   '
          'to fewest workers')
    for row in result['cases']:
        ratios = [ratio(row, f'to_{peer}', 'images_per_cpu_s') for peer in PEERS]
        ratios.append(next((ratio(row, name, 'images_per_s') for name in row if name.endswith('_worker')), ''))
        by_cpu = f'{row["images_per_cpu_s"]["median"]:.0f}' if 'images_per_cpu_s' in row else ''
        print(f'{row["loader"]:<17}{row["data"]:<20} {row["workers"]:>7} {row["images_per_s"]["median"]:>9.0f} '
              f'{by_cpu:>13}   ' + '  '.join(f'{text:<20}' for text in ratios))
    show_sizes(result)


def ratio(row: dict, to: str, number: str) -> str:
    """Median (least to most), or nothing where it was not measured."""
    values = row.get(to, {}).get(number)
    return f'{values["median"]:.2f} ({values["min"]:.2f} to {values["max"]:.2f})' if values else ''


def show_sizes(result: dict) -> None:
    """Cores for each GPU, as a Markdown table: the better of our two, at its rate with all workers measured."""
    most = max(row['workers'] for row in result['cases'])
    print('\n| ImageNet stored as | GB | images/s a core | ' + ' | '.join(
        f'cores a GPU at {rate:,} images/s' for rate in GPU_RATES) + ' |\n|---|---|---|' + '---|' * len(GPU_RATES))
    for data, size in result['data']['mean_bytes'].items():
        best = max(row['images_per_s_per_core']['median'] for row in result['cases']
                   if row['data'] == data and row['workers'] == most and row['loader'] not in PEERS)
        need = ' | '.join(str(math.ceil(rate / best)) for rate in GPU_RATES)
        print(f'| {data} | {size * loaders.IMAGENET / 1e9:.0f} | {best:.0f} | {need} |')


if __name__ == '__main__':  # workers import this file anew
    main()
