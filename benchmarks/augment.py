"""Policies and colour jitter beside torchvision's and timm's: time an image, and how far the pixels are apart.

    python benchmarks/augment.py --path data/imagenet/train --output benchmarks/results/augment.json
    python benchmarks/augment.py --show benchmarks/results/augment.json

The photographs, or some that are made where no path is given, are cut to 224 x 224 before the clock starts, and each
library gets them as its own kind: ours a NumPy array, torchvision an image of Pillow's and, in another run, a uint8
tensor, timm an image of Pillow's. All on one core: processor time an image, the least of several rounds that take
turns, each library's draws the same in each round. timm's policies are its own, near the same only in name.

The difference is in levels, the mean over the pixels and the photographs, from what torchvision makes of an image of
Pillow's with the same magnitude; `worst` is of the photograph where it is largest.
"""

import argparse
import json
import math
import random
import tempfile
import time
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import version
from pathlib import Path

import cv2
import loaders
import numpy as np
import outputs
from input_pipeline import command, machine, make_jpegs
from PIL import Image

from imagenet_jax.images.distort import Distort
from imagenet_jax.images.eval_view import EvalView
from imagenet_jax.images.ops import OPERATIONS
from imagenet_jax.images.policies import AugMix, AutoAugment, RandAugment, ThreeAugment, TrivialAugment

OURS = {'autoaugment': AutoAugment(), 'autoaugment, cifar10': AutoAugment(dataset='cifar10'),
        'autoaugment, svhn': AutoAugment(dataset='svhn'), 'randaugment': RandAugment(),
        'trivialaugment': TrivialAugment(), 'augmix': AugMix(), 'three_augment': ThreeAugment(),
        'color_jitter 0.4': Distort(color_jitter=0.4), 'color_jitter 0.4, hue 0.1': Distort(color_jitter=0.4, hue=0.1)}
FACTORS = (0.1, 0.5, 0.9, 1.3, 1.9)
SLOPES, ANGLES, SHIFTS = (-0.99, -0.3, 0.09, 0.3), (-135, -30, 9, 45), (-32, 30.4, 100)
MAGNITUDES = {'shear_x': SLOPES, 'shear_y': SLOPES, 'translate_x': SHIFTS, 'translate_y': SHIFTS, 'rotate': ANGLES,
              'brightness': FACTORS, 'contrast': FACTORS, 'saturation': FACTORS, 'sharpness': FACTORS,
              'posterize': (2, 4, 7), 'solarize': (0, 76.5, 128, 255), 'auto_contrast': (0,), 'equalize': (0,),
              'invert': (0,), 'grey': (0,), 'hue': (-0.5, -0.1, 0.05, 0.25), 'blur': (0.1, 0.5, 1.0, 2.0)}


def main() -> None:
    """Measures, prints the two tables and writes the numbers."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--path', metavar='DIR', help='a folder of class folders of photographs')
    parser.add_argument('--images', type=int, default=200, help='of them, spread over it; default %(default)s')
    parser.add_argument('--rounds', type=int, default=5, help='default %(default)s')
    parser.add_argument('--output', metavar='FILE', type=outputs.file, help='results as JSON')
    parser.add_argument('--show', metavar='FILE', help='only print the tables of such a file')
    arguments = parser.parse_args()
    if arguments.show:
        return show(json.loads(Path(arguments.show).read_text()))
    with tempfile.TemporaryDirectory() as scratch:
        if not arguments.path:
            make_jpegs(Path(scratch))
        crops = photographs(Path(arguments.path or scratch), arguments.images)
    about = machine()
    about['versions']['timm'] = version('timm')
    words = command()
    result = {'command': words.replace(arguments.path, 'DIR') if arguments.path else words,
              'date': datetime.now(UTC).isoformat(timespec='seconds'), **about,
              'images': len(crops), 'photographs': bool(arguments.path), 'threads': 1,
              'microseconds': times(crops, arguments.rounds), 'difference': differences(crops)}
    show(result)
    if arguments.output:
        arguments.output.write_text(json.dumps(result, indent=1) + '\n')


def photographs(path: Path, count: int) -> list[np.ndarray]:
    """Centre crops, uint8 (224, 224, 3)."""
    files = loaders.listed(path)[0]
    files = [files[i] for i in np.unique(np.linspace(0, len(files) - 1, count).astype(int))]
    return [np.array(EvalView(224, 256)(Path(file).read_bytes())) for file in files]


def times(crops: list[np.ndarray], rounds: int) -> dict:
    """Policy -> library -> microseconds an image, and how many times as fast as the fastest peer ours is."""
    import torch
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    kinds = {'ours': crops, 'torchvision, Pillow': [Image.fromarray(crop) for crop in crops],
             'torchvision, tensor': [torch.from_numpy(crop).permute(2, 0, 1).contiguous() for crop in crops]}
    kinds['timm'] = kinds['torchvision, Pillow']
    made = {'torchvision, Pillow': torchvisions(), 'torchvision, tensor': torchvisions(), 'timm': timms()}
    table = {}
    for name, policy in OURS.items():
        calls = {library: peers[name] for library, peers in made.items() if name in peers}
        least = dict.fromkeys(['ours', *calls], math.inf)
        for _ in range(rounds):
            calls['ours'] = partial(policy, rng=np.random.default_rng(0))
            for library, call in calls.items():
                for seed in (random.seed, np.random.seed, torch.manual_seed):
                    seed(0)
                start = time.process_time()
                for image in kinds[library]:
                    call(image)
                least[library] = min(least[library], (time.process_time() - start) / len(crops))
        row = {library: round(1e6 * seconds, 1) for library, seconds in least.items()}
        fastest = min(value for library, value in row.items() if library != 'ours')
        table[name] = row | {'ratio': round(fastest / row['ours'], 2)}
    return table


def torchvisions() -> dict:
    """Its transforms, version 2."""
    loaders.torchvision()
    from torchvision.transforms import v2
    datasets = v2.AutoAugmentPolicy
    three = [v2.Grayscale(3), v2.RandomSolarize(128, p=1), v2.GaussianBlur(13, (0.1, 2.0))]
    return {'autoaugment': v2.AutoAugment(), 'autoaugment, cifar10': v2.AutoAugment(datasets.CIFAR10),
            'autoaugment, svhn': v2.AutoAugment(datasets.SVHN), 'randaugment': v2.RandAugment(),
            'trivialaugment': v2.TrivialAugmentWide(), 'augmix': v2.AugMix(), 'three_augment': v2.RandomChoice(three),
            'color_jitter 0.4': v2.ColorJitter(0.4, 0.4, 0.4),
            'color_jitter 0.4, hue 0.1': v2.ColorJitter(0.4, 0.4, 0.4, 0.1)}


def timms() -> dict:
    """What timm has of its own."""
    from timm.data import auto_augment as timm
    return {'autoaugment': timm.auto_augment_transform('original'),
            'randaugment': timm.rand_augment_transform('rand-m9-mstd0.5'),
            'augmix': timm.augment_and_mix_transform('augmix-m3-w3'),
            'three_augment': timm.auto_augment_transform('3a')}


def differences(crops: list[np.ndarray]) -> dict:
    """Operation -> magnitude -> levels."""
    images = [Image.fromarray(crop) for crop in crops]
    table = {}
    for name, peer in references().items():
        table[name] = {}
        for magnitude in MAGNITUDES[name]:
            levels = [float(np.abs(OPERATIONS[name](crop, magnitude).astype(int) - np.asarray(peer(image, magnitude)))
                            .mean()) for crop, image in zip(crops, images, strict=True)]
            table[name][str(magnitude)] = {'mean': round(float(np.mean(levels)), 3), 'worst': round(max(levels), 3)}
    return table


def references() -> dict:
    """Operation -> torchvision's (image, magnitude) -> image, as its policies call it."""
    loaders.torchvision()
    from torchvision.transforms.v2 import functional as F

    def affine(image, shear=(0, 0), shift=(0, 0), center=None):
        return F.affine(image, 0, list(shift), 1, list(shear), center=center)

    def degrees(slope):
        return math.degrees(math.atan(slope))

    return {'shear_x': lambda image, slope: affine(image, (degrees(slope), 0), center=[0, 0]),
            'shear_y': lambda image, slope: affine(image, (0, degrees(slope)), center=[0, 0]),
            'translate_x': lambda image, shift: affine(image, shift=(int(shift), 0)),
            'translate_y': lambda image, shift: affine(image, shift=(0, int(shift))),
            'rotate': F.rotate, 'brightness': F.adjust_brightness, 'contrast': F.adjust_contrast,
            'saturation': F.adjust_saturation, 'sharpness': F.adjust_sharpness, 'posterize': F.posterize,
            'solarize': F.solarize, 'auto_contrast': lambda image, _: F.autocontrast(image),
            'equalize': lambda image, _: F.equalize(image), 'invert': lambda image, _: F.invert(image),
            'grey': lambda image, _: F.rgb_to_grayscale(image, 3), 'hue': F.adjust_hue,
            'blur': lambda image, sigma: F.gaussian_blur(image, [13, 13], [sigma, sigma])}


def show(result: dict) -> None:
    """Both tables, as Markdown."""
    libraries = ('ours', 'torchvision, Pillow', 'torchvision, tensor', 'timm')
    print(f'| microseconds an image | {" | ".join(libraries)} | times as fast |\n|---|{"---:|" * (len(libraries) + 1)}')
    for name, row in result['microseconds'].items():
        cells = [f'{row[library]:.0f}' if library in row else '' for library in libraries]
        print(f'| {name} | {" | ".join(cells)} | {row["ratio"]:.1f} |')
    print('\n| operation | magnitude: mean difference in levels | worst photograph |\n|---|---|---:|')
    for name, rows in result['difference'].items():
        cells = ', '.join(f'{magnitude}: {row["mean"]:.2f}' for magnitude, row in rows.items())
        print(f'| {name} | {cells} | {max(row["worst"] for row in rows.values()):.2f} |')


if __name__ == '__main__':
    main()
