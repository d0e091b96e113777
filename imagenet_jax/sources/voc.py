"""PASCAL VOC, classification (Everingham et al., 2010, http://host.robots.ox.ac.uk/pascal/VOC/).

    root/VOC2012/JPEGImages/2007_000027.jpg
    root/VOC2012/Annotations/2007_000027.xml
    root/VOC2012/ImageSets/Main/train.txt      names of the split's images: also val, trainval, in VOC2007 test

The root may also be VOC2012 or VOC2007 itself.
"""

import math
import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np

from imagenet_jax.errors import UserError, unknown
from imagenet_jax.sources.base import Files

CLASSES = ('aeroplane', 'bicycle', 'bird', 'boat', 'bottle', 'bus', 'car', 'cat', 'chair', 'cow', 'diningtable', 'dog',
           'horse', 'motorbike', 'person', 'pottedplant', 'sheep', 'sofa', 'train', 'tvmonitor')
_CORNERS = ('xmin', 'ymin', 'xmax', 'ymax')


class Voc(Files):
    """Images in the order of the split's file.

    Args:
      path: as above.
      split: a file of ImageSets/Main.
      labels: 'largest', the class of the object with the largest box, those marked difficult only where there is no
        other; or 'all', float32 (N, 20): 1 where the class is there, 0 where not, NaN where all its objects are
        difficult, which VOC's own evaluation leaves out.
    """
    class_names = CLASSES

    def __init__(self, path: str, split: str, labels: str = 'largest'):
        if labels not in ('largest', 'all'):
            raise unknown('data.labels of VOC', labels, ('largest', 'all'))
        roots = _roots(path, split)
        if len(roots) != 1:
            there = ' and '.join(root.name for root in roots) or 'no VOC folder'
            raise UserError(f'{path} holds split {split!r} in {there}; expected '
                            f'ImageSets/Main/{split}.txt, there or in VOC2012 or VOC2007')
        names = _names(roots[0] / f'ImageSets/Main/{split}.txt')
        read = _largest if labels == 'largest' else _all
        found = [read(*_objects(roots[0] / 'Annotations' / f'{name}.xml')) for name in names]
        super().__init__(roots[0] / 'JPEGImages', [f'{name}.jpg' for name in names],
                         np.array(found, np.int32 if labels == 'largest' else np.float32))

    @classmethod
    def is_at(cls, path, split):
        return bool(path) and bool(_roots(path, split))


def _roots(path: str, split: str) -> list[Path]:
    root = Path(path).expanduser()
    return [folder for folder in (root, root / 'VOC2007', root / 'VOC2012')
            if (folder / f'ImageSets/Main/{split}.txt').is_file()]


def _names(file: Path) -> list[str]:
    try:
        lines = file.read_text('utf-8').rstrip().split('\n')
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f'{file} cannot be read: {error}') from error
    names = [line.strip() for line in lines if line.strip()]
    for name in names:
        if not name.replace('_', '').replace('-', '').isalnum():
            raise UserError(f'{file}: {name[:80]!r} is not the name of an image; each line is one, without its ending')
    return names


def _objects(file: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Class, area of the box and whether it is difficult, of every object in an annotation."""
    try:
        text = file.read_text('utf-8')
        if '<!DOCTYPE' in text:  # VOC has none, and entities can make a short file fill the memory
            raise UserError(f'{file} declares a document type, which no annotation of VOC does')
        objects = [_object(element) for element in ET.fromstring(text).iterfind('object')]
    except (OSError, ValueError, ET.ParseError) as error:
        raise UserError(f'{file} cannot be read as an annotation: {error}') from error
    if not objects:
        raise UserError(f'{file} has no object')
    return tuple(map(np.array, zip(*objects, strict=True)))


def _object(element: ET.Element) -> tuple[int, float, bool]:
    name = (element.findtext('name') or '').strip()
    if name not in CLASSES:
        raise ValueError(f'object {name[:40]!r} is none of the 20 classes')
    corners = [element.findtext(f'bndbox/{corner}') for corner in _CORNERS]
    if None in corners:
        raise ValueError(f'a {name} has no bndbox of {", ".join(_CORNERS)}')
    left, top, right, bottom = map(float, corners)
    area = (right - left) * (bottom - top)
    if not (right >= left and bottom >= top and math.isfinite(area)):
        raise ValueError(f'the box of a {name} is turned inside out')
    return CLASSES.index(name), area, (element.findtext('difficult') or '0').strip() == '1'


def _largest(classes, areas, difficult) -> int:
    return classes[np.lexsort((-areas, difficult))[0]]


def _all(classes, areas, difficult) -> np.ndarray:
    labels = np.zeros(len(CLASSES), np.float32)
    labels[classes[difficult]] = np.nan
    labels[classes[~difficult]] = 1
    return labels
