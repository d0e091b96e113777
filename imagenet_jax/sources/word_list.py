"""What WordNet ids mean, as it lies beside data sets whose class folders they name.

    root/words.txt                 Tiny ImageNet and ImageNet-21k: n00001740<TAB>entity, of more ids than the data has
    root/LOC_synset_mapping.txt    Kaggle's ImageNet, up to five folders above a split: n01440764 tench, Tinca tinca
"""

import logging
import re
from collections.abc import Collection
from pathlib import Path

from imagenet_jax.class_names import imagenet
from imagenet_jax.errors import UserError
from imagenet_jax.sources import label_file

log = logging.getLogger(__name__)

MAPPING = 'LOC_synset_mapping.txt'


def read(root: Path, names: Collection[str]) -> dict[str, str]:
    """Id -> its words, of those classes of a split that are ids and none of ImageNet's 1000.

    Args:
      root: the split's folder.
      names: its classes.
    """
    asked = {name for name in names if re.fullmatch(r'n\d{8}', name)} - imagenet().keys()
    root, found = root.absolute(), {}
    for file in (root / 'words.txt', root.parent / 'words.txt', *(up / MAPPING for up in root.parents[:5])):
        if asked and not found and file.is_file():
            try:
                rows = [line.split(None, 1) for line in label_file.lines(file)]
            except UserError as error:  # no reason not to train
                log.warning('%s', error)
                continue
            found = {row[0]: row[1].strip() for row in rows if len(row) == 2 and row[0] in asked}
    return found
