"""A trained model as one file that JAX alone can run: StableHLO, and a JSON that says what goes in and out."""

import dataclasses
import hashlib
import json
from pathlib import Path

import jax
import numpy as np
from jax import export

from imagenet_jax import runtime
from imagenet_jax.class_names import readable
from imagenet_jax.errors import UserError, replacing
from imagenet_jax.use.classifier import Classifier

SUFFIX = '.stablehlo'
PLATFORMS = 'cpu', 'cuda'


def write(classifier: Classifier, output: Path) -> dict:
    """Writes OUTPUT.stablehlo and OUTPUT.json, each whole or not at all; answers what is in the JSON.

    The program takes uint8 (batch, size, size, 3), RGB, of any batch, and answers float32 (batch, classes), what is
    likely; weights, normalisation and mirror images are in it. `docs/export.md` loads it without this package.

    Raises:
      UserError: another suffix, there is no writing to the path, or the model is shown more than one crop of an image.
    """
    check(classifier, output)
    program = serialized(classifier)
    about = describe(classifier) | {'sha256': hashlib.sha256(program).hexdigest()}
    text = json.dumps(about, indent=2).encode() + b'\n'
    for path, content in ((output, program), (output.with_suffix('.json'), text)):
        with replacing(path) as partial:
            partial.write_bytes(content)
    return about


def check(classifier: Classifier, output: Path) -> None:
    """Raises UserError where `write` would, but for a disk that is full."""
    if output.suffix != SUFFIX:
        raise UserError(f'{output}: name a file that ends in {SUFFIX}; PyTorch\'s files are for `weights export`')
    if len(classifier.view.shape) != 3:
        raise UserError('an exported program takes one crop of an image, and here it would be shown several: leave out '
                        '--views and --scales, or export models of different views alone')


def serialized(classifier: Classifier) -> bytes:
    """The program, for `jax.export.deserialize`."""
    batch, = export.symbolic_shape('batch')
    images = jax.ShapeDtypeStruct((batch, *classifier.view.shape), np.uint8)

    def probabilities(images):
        return classifier.task.probabilities(classifier.answer(classifier.arguments, images))
    return bytes(export.export(jax.jit(probabilities), platforms=PLATFORMS)(images).serialize())


def describe(classifier: Classifier) -> dict:
    """What one has to know to use the program."""
    view = classifier.view
    (size, _), = view.crops
    names = classifier.class_names or tuple(map(str, range(classifier.num_classes)))
    return {
        'input': {'dtype': 'uint8', 'shape': ['batch', size, size, 3], 'channels': 'RGB'},
        'output': {'dtype': 'float32', 'shape': ['batch', classifier.num_classes],
                   'of': 'each class is likely or not' if classifier.task.multi_label else 'the classes, sum 1'},
        'view': {'shorter_side': size if view.whole else view.shorter, 'center_crop': size,
                 'interpolation': view.interpolation, 'exif': classifier.exif},
        'normalized_inside': [dataclasses.asdict(each.normalize) for each in classifier.members],
        'models': [each.entry['model'] for each in classifier.members],
        'classes': list(names), 'readable': [readable(name, classifier.class_words) for name in names],
        'platforms': list(PLATFORMS), 'calling_convention': export.maximum_supported_calling_convention_version,
        'versions': runtime.versions()}
