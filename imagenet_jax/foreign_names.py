"""Arrays that timm and torchvision name each in its own way: those of the names that no model here has, renamed.

    timm's VGG          its first two dense layers are convolutions, pre_logits.fc1 and fc2
    timm's MobileNets   V2 and V3 have blocks of their own names; here the names are torchvision's
    torchvision's RegNet  stages are trunk_output.block1; here the names are timm's
"""

import re
from collections.abc import Collection, Mapping
from typing import Any

_VGG = {'pre_logits.fc1': 'classifier.0', 'pre_logits.fc2': 'classifier.3', 'head.fc': 'classifier.6'}
# Of a block of timm's, by which convolution it has: its modules in the order of torchvision's.
_BLOCKS = {
    'conv_pwl': ('conv_pw', 'bn1', 'conv_dw', 'bn2', 'se.conv_reduce', 'se.conv_expand', 'conv_pwl', 'bn3'),
    'conv_dw': ('conv_dw', 'bn1', 'se.conv_reduce', 'se.conv_expand', 'conv_pw', 'bn2'),
    'conv': ('conv', 'bn1'),
}
# torchvision's norms of MobileNetV3 have the first, as models here; timm's the second.
_EPSILON, _EPSILON_OF_TIMM = 1e-3, 1e-5
_REGNET = tuple((re.compile(pattern), name) for pattern, name in (
    (r'^stem\.0\.', 'stem.conv.'), (r'^stem\.1\.', 'stem.bn.'), (r'^fc\.', 'head.fc.'),
    (r'^trunk_output\.block(\d+)\.block\d+-(\d+)\.', lambda m: f's{m[1]}.b{int(m[2]) + 1}.'),
    (r'(\.b\d+)\.proj\.0\.', r'\1.downsample.conv.'), (r'(\.b\d+)\.proj\.1\.', r'\1.downsample.bn.'),
    (r'\.f\.se\.', '.se.'),
    *((rf'\.f\.{part}\.{i}\.', f'.conv{number}.{kind}.') for number, part in enumerate('abc', 1)
      for i, kind in enumerate(('conv', 'bn')))))


def renamed(found: Mapping[str, Any], expected: Collection[str]) -> dict[str, Any]:
    """The arrays under the names of the model that has `expected`; as they are where they are of no such form."""
    if 'pre_logits.fc1.weight' in found and 'classifier.0.weight' in expected:
        return {_replaced(name): _dense(name, value) for name, value in found.items()}
    if 'trunk_output.block1.block1-0.f.a.0.weight' in found and 's1.b1.conv1.conv.weight' in expected:
        return {_of_regnet(name): value for name, value in found.items()}
    if 'conv_stem.weight' in found and 'features.0.0.weight' in expected:
        return _of_mobilenet(found, expected)
    return dict(found)


def _replaced(name: str) -> str:
    module, _, array = name.rpartition('.')
    return f'{_VGG.get(module, module)}.{array}'


def _dense(name: str, value: Any) -> Any:
    """The weight of a convolution of a whole map as a dense layer's, which takes it flattened: channels first, too."""
    is_dense = name in ('pre_logits.fc1.weight', 'pre_logits.fc2.weight')
    return value.reshape(value.shape[0], -1) if is_dense else value


def _of_regnet(name: str) -> str:
    for pattern, ours in _REGNET:
        name = pattern.sub(ours, name)
    return name


def _of_mobilenet(found: Mapping[str, Any], expected: Collection[str]) -> dict[str, Any]:
    """By order: both have the same modules, one after the other. What is left over keeps its name."""
    theirs = sorted({name.rpartition('.')[0] for name in found}, key=lambda name: _order(name, found))
    ours = sorted({name.rpartition('.')[0] for name in expected}, key=_by_number)
    if len(theirs) != len(ours):
        return dict(found)
    has_hidden = 'classifier.3.weight' in expected  # V3: there the head's convolution is a dense layer here
    places, arrays = dict(zip(theirs, ours, strict=True)), {}
    for name, value in found.items():
        module, _, array = name.rpartition('.')
        if name == 'conv_head.weight' and has_hidden:
            value = value.reshape(value.shape[0], -1)
        if has_hidden and array == 'weight' and f'{module}.running_var' in found:
            variance = found[f'{module}.running_var']  # an array or a tensor, and so no numpy
            value = value * ((variance + _EPSILON) / (variance + _EPSILON_OF_TIMM)) ** 0.5
        arrays[f'{places[module]}.{array}'] = value
    return arrays


def _order(module: str, found: Mapping[str, Any]) -> tuple:
    """Of a module of timm's, its place from the image to the answer."""
    parts = re.fullmatch(r'blocks\.(\d+)\.(\d+)\.(.+)', module)
    if not parts:
        outer = {'conv_stem': (0, 0), 'bn1': (0, 1), 'conv_head': (2, 0), 'bn2': (2, 1), 'classifier': (2, 2)}
        return outer.get(module, (3, module))
    block = module.removesuffix(parts[3])
    kind = next((kind for kind in _BLOCKS if f'{block}{kind}.weight' in found), 'conv')
    inside = _BLOCKS[kind].index(parts[3]) if parts[3] in _BLOCKS[kind] else len(_BLOCKS[kind])
    return 1, int(parts[1]), int(parts[2]), inside


def _by_number(name: str) -> list:
    # By name the classifier would come first.
    return [(int(part), '') if part.isdigit() else (-(part != 'classifier'), part)
            for part in re.split(r'\.|(?<=fc)', name)]
