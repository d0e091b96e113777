"""torchvision's published files of weights, told by their names: which model, and how it was evaluated.

A name ends in the first 8 digits of the file's SHA-256, so that a file is known under any name. Of torchvision.models'
metadata, the architectures that are here too; all are of ImageNet's 1000 classes, at 224 pixels, bilinear, with
ImageNet's mean and deviation.
"""

import logging
from pathlib import Path
from typing import NamedTuple

log = logging.getLogger(__name__)

SIZE = 224
# By the shorter side before the crop: the first weights of each (IMAGENET1K_V1, and the files of earlier versions), and
# those of the later recipe (IMAGENET1K_V2). Model -> names of files.
_FILES = {
    256: {
        'alexnet': ('alexnet-owt-7be5be79', 'alexnet-owt-4df8aa71'),
        'mobilenet_v2': ('mobilenet_v2-b0353104',),
        'mobilenet_v3_large': ('mobilenet_v3_large-8738ca79',),
        'mobilenet_v3_small': ('mobilenet_v3_small-047dcff4',),
        'regnetx_008': ('regnet_x_800mf-ad17e45c',),
        'regnetx_016': ('regnet_x_1_6gf-e3633e7f',),
        'regnetx_032': ('regnet_x_3_2gf-f342aeae',),
        'regnetx_080': ('regnet_x_8gf-03ceed89',),
        'regnetx_160': ('regnet_x_16gf-2007eb11',),
        'regnetx_320': ('regnet_x_32gf-9d47f8d0',),
        'regnety_004': ('regnet_y_400mf-c65dace8',),
        'regnety_016': ('regnet_y_1_6gf-b11a554e',),
        'regnety_032': ('regnet_y_3_2gf-b5a9779c',),
        'regnety_160': ('regnet_y_16gf-9e6ed7dd',),
        'regnety_320': ('regnet_y_32gf-4dee3f7a',),
        'resnet18': ('resnet18-f37072fd', 'resnet18-5c106cde'),
        'resnet34': ('resnet34-b627a593', 'resnet34-333f7ec4'),
        'resnet50': ('resnet50-0676ba61', 'resnet50-19c8e357'),
        'resnet101': ('resnet101-63fe2227', 'resnet101-5d3b4d8f'),
        'resnet152': ('resnet152-394f9c45', 'resnet152-b121ed2d'),
        'resnext50_32x4d': ('resnext50_32x4d-7cdf4587',),
        'resnext101_32x8d': ('resnext101_32x8d-8ba56ff5',),
        'vgg11': ('vgg11-8a719046', 'vgg11-bbd30ac9'),
        'vgg11_bn': ('vgg11_bn-6002323d',),
        'vgg13': ('vgg13-19584684', 'vgg13-c768596a'),
        'vgg13_bn': ('vgg13_bn-abd245e5',),
        'vgg16': ('vgg16-397923af',),
        'vgg16_bn': ('vgg16_bn-6c64b313',),
        'vgg19': ('vgg19-dcbb9e9d',),
        'vgg19_bn': ('vgg19_bn-c79401a0',),
        'wide_resnet50_2': ('wide_resnet50_2-95faca4d',),
    },
    232: {
        'mobilenet_v2': ('mobilenet_v2-7ebf99e0',),
        'mobilenet_v3_large': ('mobilenet_v3_large-5c1a4163',),
        'regnetx_008': ('regnet_x_800mf-94a99ebd',),
        'regnetx_016': ('regnet_x_1_6gf-a12f2b72',),
        'regnetx_032': ('regnet_x_3_2gf-7071aa85',),
        'regnetx_080': ('regnet_x_8gf-2b70d774',),
        'regnetx_160': ('regnet_x_16gf-ba3796d7',),
        'regnetx_320': ('regnet_x_32gf-6eb8fdc6',),
        'regnety_004': ('regnet_y_400mf-e6988f5f',),
        'regnety_016': ('regnet_y_1_6gf-0d7bc02a',),
        'regnety_032': ('regnet_y_3_2gf-9180c971',),
        'regnety_160': ('regnet_y_16gf-3e4a00f9',),
        'regnety_320': ('regnet_y_32gf-8db6d4b5',),
        'resnet50': ('resnet50-11ad3fa6',),
        'resnet101': ('resnet101-cd907fc2',),
        'resnet152': ('resnet152-f82ba261',),
        'resnext50_32x4d': ('resnext50_32x4d-1a0047aa',),
        'resnext101_32x8d': ('resnext101_32x8d-110c445d',),
        'wide_resnet50_2': ('wide_resnet50_2-9ba9bcbe',),
    },
}


class Published(NamedTuple):
    """One of torchvision's files.

    Attributes:
      file: its name, without the suffix.
      model: ours.
      resize: what the shorter side becomes in evaluation.
    """
    file: str
    model: str
    resize: int


FILES = {file: Published(file, model, resize) for resize, models in _FILES.items() for model, files in models.items()
         for file in files}
_BY_HASH = {file.rpartition('-')[2]: published for file, published in FILES.items()}


def published(path: Path, sha256: str) -> Published | None:
    """The published file that this one is by its bytes or, with a warning, by its name; None where it is none."""
    if known := _BY_HASH.get(sha256[:8]):
        return known
    if (known := FILES.get(path.stem)) and path.suffix != '.safetensors':  # there the bytes have to be others
        log.warning("%s is not torchvision's file of that name: its SHA-256 begins with %s; it is taken for weights of "
                    'the same model and view', path, sha256[:8])
    return known
