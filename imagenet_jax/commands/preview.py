"""Draws what a model will see: images as they are stored, each beside what becomes of it on the host and the device.

    python -m imagenet_jax preview --config configs/imagenette_resnet18.py --output preview.png
    python -m imagenet_jax preview --config configs/resnet50.py --output preview.png --count 32 --step 1000 \\
        --config.augment.color_jitter=0.4
    python -m imagenet_jax preview --config configs/resnet50.py --output preview.png --split eval

  --config FILE        the recipe
  --config.NAME=VALUE  changes one option of it
  --output FILE        the picture, PNG by its ending, or another that Pillow writes
  --count N            images in it, 16 where not given; of several views (config.augment.views) each counts
  --step N             from which batch on: those that a run trains on at that step, the first where not given
  --split train|eval   train where not given

The device's part is computed here on the CPU; its normalising is undone at the end, so that colours are as usual.
"""

from typing import NoReturn

from absl import flags

from imagenet_jax.command_line import recipes, running
from imagenet_jax.errors import UserError, expanded, writing
from imagenet_jax.options import apply

_OUTPUT = flags.DEFINE_string('output', None, 'the picture')
_COUNT = flags.DEFINE_integer('count', 16, 'images in it', 1, 400)
_STEP = flags.DEFINE_integer('step', 0, 'from which batch on', 0, 2**31 - 1)
_SPLIT = flags.DEFINE_enum('split', 'train', ['train', 'eval'], 'which images')


def main() -> NoReturn:
    """The whole command."""
    recipes.run(_run, __doc__)


def _run(argv: list[str]) -> None:
    config = recipes.config(argv)
    with running.importing():  # JAX, for which help does not wait
        from imagenet_jax import runtime
    runtime.keep_to_cpu()
    _preview(config)


def _preview(config) -> None:
    if not _OUTPUT.value:
        raise UserError('where should the picture go? Give --output, such as --output preview.png')
    output = expanded(_OUTPUT.value)
    with running.importing():
        from PIL import Image

        from imagenet_jax import preview, seen
        from imagenet_jax.run_options import Options
    if output.suffix.lower() not in Image.registered_extensions():
        raise UserError(f'--output {output}: name a picture, such as {output.with_suffix(".png")}')
    shown = seen.pairs(apply(Options, config, 'config'), _SPLIT.value, _STEP.value, _COUNT.value)
    heading = f'{recipes.name()}, {_SPLIT.value}, step {_STEP.value}'
    with writing(output):
        preview.sheet(shown, heading).save(output)
    print(f'{len(shown)} images are in {output}')
