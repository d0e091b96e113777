"""Names the classes of images.

    python -m imagenet_jax predict --checkpoint runs/resnet50 cat.jpg dog.png
    python -m imagenet_jax predict --checkpoint runs/resnet50 --best --top 1 --json photos > photos.jsonl

An argument is an image, or a folder: every image at any depth in it. Prints the likeliest classes, or of a model for
images of several classes all those that are likelier than not; beside a WordNet id of ImageNet's the readable name.
With --json one line of JSON an image.

Leaves with 1 where an image cannot be read or a folder has none; it is named, and the others are answered all the same.
"""

import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from tqdm import tqdm

from imagenet_jax.class_names import readable, shown
from imagenet_jax.command_line import checkpoints, parsing
from imagenet_jax.errors import UserError
from imagenet_jax.sources.listing import EXTENSIONS, is_image, is_litter

if TYPE_CHECKING:
    from imagenet_jax.use.classifier import Classifier


def main() -> int | None:
    """The whole command."""
    parser = parsing.parser('predict', __doc__)
    checkpoints.add_arguments(parser)
    parser.add_argument('--top', metavar='N', type=parsing.positive, default=5, help='classes an image')
    parser.add_argument('--json', action='store_true', help='one line of JSON an image')
    parser.add_argument('images', metavar='IMAGE', nargs='+', type=parsing.path, help='a file, or a folder of them')
    return _predict(parser.parse_args())


def _predict(arguments) -> int:
    classifier = checkpoints.load(arguments)
    if not classifier.num_classes:
        raise UserError(f'{arguments.checkpoint[0]} holds a model without a head (num_classes=0), which names no class')
    files, code = [], 0
    for image in arguments.images:
        found = _files(image)
        files += found
        if not found:
            print(f'{image}: holds no image ({", ".join(EXTENSIONS)})', file=sys.stderr)
            code = 1
    answers = zip(files, classifier.answers(files), strict=True)
    hidden = not sys.stderr.isatty() or sys.stdout.isatty()  # answers that scroll by are progress enough
    for file, found in tqdm(answers, total=len(files), unit='image', disable=hidden):
        if isinstance(found, str):
            print(f'{file}: {found}', file=sys.stderr)
            code = 1
            continue
        classes = _classes(classifier, found, arguments.top)
        if arguments.json:
            print(json.dumps({'image': str(file), 'classes': classes}))
        else:
            lines = [f'  {one["probability"]:.4f}  {shown(one["class"])}' for one in classes]
            print('\n'.join([str(file), *(lines or ['  no class to name'])]))
    return code


def _files(image: Path) -> list[Path]:
    if not os.path.isdir(image):  # of any length
        return [image]
    return sorted(file for file in image.rglob('*') if is_image(file.name) and file.is_file()
                  and not any(map(is_litter, file.relative_to(image).parts)))


def _classes(classifier: 'Classifier', probabilities: np.ndarray, top: int) -> list[dict]:
    """The classes to show, likeliest first; those without a name have their number."""
    names = classifier.class_names
    answers = [{'class': names[i] if i < len(names) else str(i), 'index': int(i),
                'probability': round(float(probabilities[i]), 6)} for i in classifier.task.likely(probabilities, top)]
    return [one | ({'name': readable(one['class'])} if readable(one['class']) else {}) for one in answers]
