"""How far our pixels are from Pillow's and torchvision's: mean absolute difference in levels, image by image.

    python benchmarks/pixels.py --data data/imagenet/train --output benchmarks/results/pixels.json

  training    a random resized crop beside Pillow's: the whole image decoded, cropped, resized with its antialiased
              bilinear filter, as torchvision's RandomResizedCrop does; the same box for both
  evaluation  beside torchvision's Resize(256) and CenterCrop(224) of a Pillow image, where torchvision is installed
"""

import argparse
import json
from datetime import UTC, datetime
from pathlib import Path

import loaders
import numpy as np
import outputs
from input_pipeline import command, machine
from PIL import Image

from imagenet_jax.images.crops import RandomResized, crop_box
from imagenet_jax.images.eval_view import EvalView


def main() -> None:
    """Measures, prints and writes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--data', metavar='DIR', required=True, help='a folder of class folders of images')
    parser.add_argument('--images', type=int, default=500, help='of the data, spread over it; default %(default)s')
    parser.add_argument('--output', metavar='FILE', type=outputs.file, help='results as JSON')
    arguments = parser.parse_args()
    files = loaders.listed(Path(arguments.data))[0]
    files = [files[i] for i in np.unique(np.linspace(0, len(files) - 1, arguments.images).astype(int))]
    result = {'command': command(), 'date': datetime.now(UTC).isoformat(timespec='seconds'), **machine(),
              'images': len(files), 'training': summary([training(file, seed) for seed, file in enumerate(files)])}
    if loaders.has_torch():
        transforms = loaders.torchvision().transforms
        view = transforms.Compose([transforms.Resize(256), transforms.CenterCrop(224)])
        result['evaluation'] = summary([difference(EvalView(224, 256)(Path(file).read_bytes()),
                                                   view(Image.open(file).convert('RGB'))) for file in files])
    print(json.dumps(result, indent=1))
    if arguments.output:
        arguments.output.write_text(json.dumps(result, indent=1) + '\n')


def training(file: str, seed: int) -> float:
    """Ours against Pillow's, of one box."""
    settings = loaders.SCALE, loaders.RATIO
    ours = RandomResized(*settings)(Path(file).read_bytes(), loaders.SIZE, np.random.default_rng(seed))
    image = Image.open(file).convert('RGB')
    top, left, height, width = crop_box(image.height, image.width, *settings, np.random.default_rng(seed))
    crop = image.crop((left, top, left + width, top + height))
    return difference(ours, crop.resize((loaders.SIZE, loaders.SIZE), Image.Resampling.BILINEAR))


def difference(ours: np.ndarray, theirs: Image.Image) -> float:
    """Mean absolute difference in levels."""
    return float(np.abs(ours.astype(int) - np.asarray(theirs)).mean())


def summary(differences: list[float]) -> dict:
    """Over the images."""
    return {'mean': round(float(np.mean(differences)), 3), 'worst': round(max(differences), 3),
            'over_one_level': round(float(np.mean(np.array(differences) > 1)), 3)}


if __name__ == '__main__':
    main()
