"""Training's input path beside the usual Pillow loader: images/s from a folder of JPEGs to shuffled uint8 batches.

    python benchmarks/input_pipeline.py --data data/imagenet/train --output benchmarks/results/input_pipeline.json

Every loader gives batches of 64 random resized crops of 224 pixels, half of them flipped:

  imagenet_jax threads    input_pipeline.train_batches with data.threads
  imagenet_jax processes  the same with data.processes
  pillow processes        what torchvision's ImageFolder and PyTorch's DataLoader do, in plain Python: Image.open,
                          convert to RGB, crop and resize, flip, in worker processes that write into shared memory
  torch DataLoader        those two themselves, where they are installed

The loaders take turns, a fresh start and a warm-up each, for several rounds, so that whatever else the machine does
falls on all of them: read the ratios. Two numbers a core: images/s over workers, which other programs slow down, and
images per second of processor time, which they hardly do but which leaves waiting out. Small data sets come from
memory after the warm-up: disks are not measured.
"""

import argparse
import dataclasses
import importlib.util
import itertools
import json
import math
import multiprocessing
import os
import platform
import shlex
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import version
from pathlib import Path

import numpy as np
from PIL import Image, features

from imagenet_jax.augment.host import crop_box  # and no JAX: Pillow's workers import this file

BATCH, SIZE = 64, 224
PREFETCH = 2  # batches ahead of each Pillow worker, as in the DataLoader
WARM_UP = 4   # batches of each worker before the clock starts: by then no buffer is full from a head start
GPU_RATE = 3500
PEER = 'pillow processes'
PACKAGES = ('imagenet_jax', 'jax', 'grain', 'numpy', 'opencv-python-headless', 'simplejpeg', 'pillow')


@dataclasses.dataclass(frozen=True)
class Case:
    """One loader with so many workers; `open` starts it."""
    loader: str
    workers: int
    open: Callable[[], Iterator[dict]]


def main() -> None:
    """Measures, prints a table and what it means, and writes the numbers."""
    arguments = parse()
    os.environ['JAX_PLATFORMS'] = 'cpu'  # nothing here needs an accelerator
    from imagenet_jax.errors import UserError
    load = os.getloadavg()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(arguments.data or make_jpegs(Path(scratch)))
        try:
            cases, data = open_cases(folder, arguments.workers)
        except UserError as error:
            sys.exit(f'error: {error}')
        turns = {(case.loader, case.workers): [] for case in cases}
        for number in range(arguments.rounds):
            at = number % len(cases)
            for case in cases[at:] + cases[:at]:
                turns[case.loader, case.workers].append(turn(case, arguments.seconds))
                print(f'round {number + 1}/{arguments.rounds}  {case.loader}, {case.workers}: '
                      f'{turns[case.loader, case.workers][-1]["images_per_s"]:.0f} images/s', file=sys.stderr)
    result = {
        'command': command(), 'date': datetime.now(UTC).isoformat(timespec='seconds'), **machine(),
        'load_average_before': [round(x, 2) for x in load],
        'data': {**data, 'made': not arguments.data}, 'batch': BATCH, 'size': SIZE, 'seconds': arguments.seconds,
        'rounds': arguments.rounds, 'cases': summarise(turns)}
    result[f'cores_for_{GPU_RATE}_images_per_s'] = cores_needed(result['cases'])
    show(result)
    if arguments.output:
        Path(arguments.output).write_text(json.dumps(result, indent=1) + '\n')


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--data', metavar='DIR', help='a folder of class folders of images; default: JPEGs of '
                        "ImageNet's usual size, made in a temporary folder")
    parser.add_argument('--seconds', type=float, default=3.0, help='measured of each turn, default %(default)s')
    parser.add_argument('--rounds', type=int, default=5, help='turns of each loader, default %(default)s')
    parser.add_argument('--workers', metavar='N,N', type=lambda text: [int(n) for n in text.split(',')],
                        default=worker_counts(cores()), help='default: 1, 2, 4, ... and the number of cores')
    parser.add_argument('--output', metavar='FILE', help='results as JSON')
    arguments = parser.parse_args()
    if arguments.rounds < 1 or arguments.seconds <= 0 or min(arguments.workers) < 1:
        parser.error('--rounds, --seconds and --workers must be positive')
    if arguments.output and not Path(arguments.output).parent.is_dir():  # not after minutes of measuring
        parser.error(f'--output: no folder {Path(arguments.output).parent}')
    return arguments


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count()


def worker_counts(most: int) -> list[int]:
    """Powers of two under `most`, then `most`."""
    return [2**i for i in range(most.bit_length()) if 2**i < most] + [most]


def make_jpegs(root: Path, count: int = 192, classes: int = 8) -> Path:
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
    return root


def open_cases(folder: Path, workers: list[int]) -> tuple[list[Case], dict]:
    """Every loader with every number of workers, and what the data is."""
    from imagenet_jax import input_pipeline
    from imagenet_jax.augment.host import TrainTransform
    from imagenet_jax.sources.folder import Folder
    source = Folder(str(folder), '')
    files = [str(folder / source.key(i)) for i in range(len(source))]
    torch = has_torch()

    def ours(**how):
        return input_pipeline.train_batches(source, TrainTransform(SIZE), BATCH, 0,
                                            workers=input_pipeline.Workers(**how))

    cases = []
    for n in workers:
        cases += [Case('imagenet_jax threads', n, partial(ours, threads=n)),
                  Case('imagenet_jax processes', n, partial(ours, processes=n)),
                  Case(PEER, n, partial(pillow_batches, files, source.labels, n))]
        if torch:
            cases.append(Case('torch DataLoader', n, partial(torch_batches, folder, n)))
    size = sum(os.path.getsize(file) for file in files) / len(files)
    return cases, {'images': len(files), 'mean_bytes': round(size)}


def has_torch() -> bool:
    """Whether PyTorch and torchvision are there and fit each other."""
    try:
        import torchvision  # noqa: F401
    except ModuleNotFoundError:
        return False
    except (ImportError, RuntimeError, OSError) as error:  # built for another PyTorch
        print(f'torch DataLoader is left out: {error}', file=sys.stderr)
        return False
    return True


def pillow_batches(files: list[str], labels: np.ndarray, workers: int) -> Iterator[dict]:
    """Endless batches made in worker processes, each of which fills its own slots of shared memory in turn."""
    context = multiprocessing.get_context('spawn')
    slots = [context.RawArray('B', BATCH * SIZE * SIZE * 3) for _ in range(PREFETCH * workers)]
    tasks, answers = ([context.SimpleQueue() for _ in range(workers)] for _ in range(2))
    pool = [context.Process(target=fill_slots, args=(files, slots, tasks[i], answers[i]), daemon=True)
            for i in range(workers)]
    order, asked = shuffled(len(files)), {}

    def ask(number):
        asked[number] = list(itertools.islice(order, BATCH))
        tasks[number % workers].put((number % len(slots), asked[number]))

    try:
        for process in pool:
            process.start()
        for number in range(len(slots)):
            ask(number)
        for number in itertools.count():
            if error := answers[number % workers].get():
                raise RuntimeError(f'a Pillow worker failed: {error}')
            pixels = np.frombuffer(slots[number % len(slots)], np.uint8).reshape(BATCH, SIZE, SIZE, 3)
            yield {'image': pixels, 'label': labels[asked.pop(number)]}
            ask(number + len(slots))
    finally:
        for process in pool:
            process.terminate()
        for process in pool:
            process.join()


def fill_slots(files, slots, tasks, answers) -> None:
    """A worker: answers '' for each batch written, or what went wrong."""
    rng = np.random.default_rng(os.getpid())
    try:
        while True:
            slot, indices = tasks.get()
            pixels = np.frombuffer(slots[slot], np.uint8).reshape(BATCH, SIZE, SIZE, 3)
            for place, index in enumerate(indices):
                pixels[place] = read_with_pillow(files[index], rng)
            answers.put('')
    except Exception as error:
        answers.put(repr(error))


def read_with_pillow(file: str, rng: np.random.Generator) -> np.ndarray:
    """The same crops as ours, so that reading and resizing alone differ."""
    with Image.open(file) as opened:
        image = opened.convert('RGB')
    top, left, height, width = crop_box(image.height, image.width, (0.08, 1.0), (3 / 4, 4 / 3), rng)
    image = image.resize((SIZE, SIZE), Image.Resampling.BILINEAR, box=(left, top, left + width, top + height))
    if rng.random() < 0.5:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return np.asarray(image)


def shuffled(count: int) -> Iterator[int]:
    """Endless epochs of indices."""
    rng = np.random.default_rng(0)
    while True:
        yield from rng.permutation(count).tolist()


def torch_batches(folder: Path, workers: int) -> Iterator[dict]:
    """The real ones, without an epoch's end, where the workers would run dry."""
    from torch.utils.data import DataLoader, RandomSampler
    from torchvision import datasets, transforms
    data = datasets.ImageFolder(str(folder), transforms.Compose([
        transforms.RandomResizedCrop(SIZE), transforms.RandomHorizontalFlip(), transforms.PILToTensor()]))
    sampler = RandomSampler(data, replacement=True, num_samples=10**9)
    for images, labels in DataLoader(data, BATCH, sampler=sampler, num_workers=workers, prefetch_factor=PREFETCH,
                                     multiprocessing_context='spawn'):
        yield {'image': images.numpy(), 'label': labels.numpy()}


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
    """A row a case: median, least and most of each number over the rounds, and of the ratio to Pillow in the round."""
    rows = []
    for (loader, workers), own in turns.items():
        row = {'loader': loader, 'workers': workers}
        for name in own[0]:
            row[name] = spread([t[name] for t in own])
            if name != 'images_per_s_per_core':  # its ratio is that of images_per_s
                row[f'{name}_to_pillow'] = spread([t[name] / p[name] for t, p in
                                                   zip(own, turns[PEER, workers], strict=True)])
        rows.append(row)
    return rows


def spread(values: list[float]) -> dict:
    """Median, least, most, and all of them in order."""
    rounded = [float(f'{value:.4g}') for value in values]
    return {'median': float(f'{statistics.median(values):.4g}'), 'min': min(rounded), 'max': max(rounded),
            'rounds': rounded}


def cores_needed(rows: list[dict]) -> dict:
    """Loader -> cores for one GPU, by the clock with the most workers measured and by processor time."""
    most = max(row['workers'] for row in rows)
    return {row['loader']: {
        'by_clock': round(GPU_RATE / row['images_per_s_per_core']['median'], 1),
        **({'by_cpu_time': round(GPU_RATE / row['images_per_cpu_s']['median'], 1)} if 'images_per_cpu_s' in row else {})
    } for row in rows if row['workers'] == most}


def machine() -> dict:
    """Where this runs, and with what."""
    from imagenet_jax import runtime
    names = [*PACKAGES, *(name for name in ('torch', 'torchvision') if importlib.util.find_spec(name))]
    model = platform.processor()
    if Path('/proc/cpuinfo').exists():
        lines = Path('/proc/cpuinfo').read_text().splitlines()
        model = next((line.split(':')[1].strip() for line in lines if line.startswith('model name')), model)
    return {'cpu': model, 'cores': cores(), 'git_revision': runtime.describe()['git_revision'],
            'versions': {'python': platform.python_version(), **{name: version(name) for name in names},
                         "pillow's libjpeg-turbo": features.version('libjpeg_turbo')}}


def command() -> str:
    """This command, the place of the data left out."""
    words = list(sys.argv[1:])
    for i, word in enumerate(words):
        if word.startswith('--data='):
            words[i] = '--data=DIR'
        elif word == '--data':
            words[i + 1] = 'DIR'
    return shlex.join(['python', 'benchmarks/input_pipeline.py', *words])


def show(result: dict) -> None:
    """The table, and what it means."""
    data = result['data']
    print(f'{data["images"]} images of {data["mean_bytes"] / 1000:.0f} KB; {result["cores"]} x {result["cpu"]}; load '
          f'average before: {result["load_average_before"][0]}\n'
          f'medians of {result["rounds"]} rounds; ratios to Pillow with as many workers: median (least to most)\n\n'
          f'{"loader":<22} workers  images/s  a core  ratio                a CPU second  ratio')
    for row in result['cases']:
        line = (f'{row["loader"]:<22} {row["workers"]:>7} {row["images_per_s"]["median"]:>9.0f} '
                f'{row["images_per_s_per_core"]["median"]:>7.0f}  {ratio(row["images_per_s_to_pillow"]):<20}')
        if 'images_per_cpu_s' in row:
            line += f'{row["images_per_cpu_s"]["median"]:>13.0f}  {ratio(row["images_per_cpu_s_to_pillow"])}'
        print(line)
    print(f'\nA GPU that trains on {GPU_RATE} images/s keeps busy (the clock counts what other programs took):')
    for loader, need in result[f'cores_for_{GPU_RATE}_images_per_s'].items():
        by_cpu = f', {math.ceil(need["by_cpu_time"])} by processor time' if 'by_cpu_time' in need else ''
        print(f'  {loader:<22} {math.ceil(need["by_clock"]):>4} cores by the clock{by_cpu}')


def ratio(values: dict) -> str:
    """Median (least to most)."""
    return f'{values["median"]:.2f} ({values["min"]:.2f} to {values["max"]:.2f})'


if __name__ == '__main__':  # workers import this file anew
    main()
