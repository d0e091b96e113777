"""config.json beside weights of timm's: which model they are of, how it sees an image, what its classes are called."""

import dataclasses
import json
import logging
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from imagenet_jax import models
from imagenet_jax.class_names import of_published
from imagenet_jax.errors import UserError, first_line, unknown
from imagenet_jax.images.batch import Normalize
from imagenet_jax.options import apply, reads

log = logging.getLogger(__name__)

# timm's architecture -> our model and its options, where ours has another name.
NAMES = {
    **{f'mobilenetv1_{width:03}': {'name': 'mobilenet_v1'} | ({'width': width / 100} if width != 100 else {})
       for width in (100, 125)},
    **{f'mobilenetv2_{width:03}': {'name': 'mobilenet_v2'} | ({'width': width / 100} if width != 100 else {})
       for width in (35, 50, 75, 100, 140)},
    **{f'mobilenetv3_{kind}_100': {'name': f'mobilenet_v3_{kind}'} for kind in ('large', 'small')},
    **{f'resnetv2_{depth}': {'name': f'resnet{depth}v2'} for depth in (18, 34, 50, 101, 152)},
}
# Arguments of timm's models that change nothing in evaluation or are told elsewhere, and values that models here have.
_HARMLESS = ('num_classes', 'drop_rate', 'drop_path_rate', 'drop_block_rate', 'img_size')
_OURS = {'in_chans': 3, 'global_pool': 'avg'}


class Described(NamedTuple):
    """What is known of weights before they are read.

    Attributes:
      by: where it is from, for messages.
      title: what it says they are.
      model: the section `model`: its name and options, but for the number of classes; {} where there is none such here.
      num_classes: of the weights.
      eval, normalize: sections.
      class_names: in the order of the outputs; () where unknown.
      origin: for a record: tag, license.
      stranger: why `model` is {}.
    """
    by: str
    title: str
    model: dict[str, Any]
    num_classes: int
    eval: dict[str, Any]
    normalize: dict[str, Any]
    class_names: Sequence[str]
    origin: dict[str, str]
    stranger: str = ''


def described(path: Path, given: Collection[str]) -> Described | None:
    """What a config.json says; None where there is none, or where it is about no model.

    Args:
      path: of the file.
      given: names of the options of a view that are known better, so that what it says of them need not be ours.

    Raises:
      UserError: it is damaged, another library's, or of a view that is not ours.
    """
    try:
        config = json.loads(path.read_text())
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f'{path} cannot be read: {type(error).__name__}: {first_line(error)}; mend it, or move it away '
                        'and say by options what it would') from error
    if not isinstance(config, dict):
        raise UserError(f'{path} must be an object of JSON, and is {json.dumps(config)[:40]}')
    if isinstance(config.get('architecture'), str):
        return _of_timm(path, config, given)
    if config.get('architectures') or config.get('model_type'):
        name = str(*(config.get('architectures') or [config.get('model_type')])[:1])
        raise UserError(f"{path} is of {name} of transformers, whose arrays have other names than timm's and "
                        "torchvision's, which are read here: take the same model in one of these forms, such as "
                        'hf:timm/NAME')
    log.info('%s names no architecture: it is passed over', path)
    return None


def _of_timm(path: Path, config: dict, given: Collection[str]) -> Described:
    # Earlier versions of timm wrote one level, with the names under `labels`.
    pretrained = _mapping(path, config.get('pretrained_cfg', config), 'pretrained_cfg') | {
        name: config[name] for name in ('num_classes', 'label_names') if name in config}
    architecture, tag = config['architecture'], str(pretrained.get('tag') or '')
    fields = {name: value for name, value in pretrained.items() if name in reads(_View)}
    view = apply(_View, fields, f'{path}: pretrained_cfg')
    count = apply(_count, {'num_classes': pretrained.get('num_classes')}, f'{path}: pretrained_cfg')
    arguments = {name: value for name, value in _mapping(path, config.get('model_args') or {}, 'model_args').items()
                 if name not in _HARMLESS and value is not None and value != _OURS.get(name)}
    model, stranger = _model(architecture, arguments)
    names = next((pretrained[key] for key in ('label_names', 'labels') if pretrained.get(key)), None)
    return Described(
        by=str(path), title='.'.join(filter(None, (architecture, tag))),
        model=model, num_classes=count, eval=_section(path, view, given),
        normalize={'mean': view.mean, 'std': view.std}, stranger=stranger,
        class_names=of_published(count) if names is None else _class_names(path, names, count),
        origin={key: str(value) for key, value in (('license', pretrained.get('license')), ('tag', tag)) if value})


def _mapping(path: Path, value: Any, name: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise UserError(f'{path}: {name} must be an object of JSON')
    return value


@dataclasses.dataclass(frozen=True, kw_only=True)
class _View:
    """timm's fields and defaults.

    In evaluation a model is shown `test_input_size` where it has one: so its published accuracy was measured.
    """
    input_size: tuple[int, int, int] = (3, 224, 224)
    test_input_size: tuple[int, int, int] = None
    crop_pct: float = 0.875
    test_crop_pct: float = None
    crop_mode: str = 'center'
    interpolation: str = 'bicubic'
    mean: tuple[float, ...] = Normalize.mean
    std: tuple[float, ...] = Normalize.std


def _count(*, num_classes: int = 1000) -> int:
    return num_classes


def _section(path: Path, view: _View, given: Collection[str]) -> dict[str, Any]:
    channels, height, width = view.test_input_size or view.input_size
    if channels != 3:
        raise UserError(f'{path} is of a model for images of {channels} channels, and models here are for 3')
    if height != width and 'size' not in given:
        raise UserError(f'{path} is of a model for images of {height} x {width} pixels, and a view here is square: '
                        '--size says how large')
    if view.crop_mode != 'center' and 'views' not in given:
        raise UserError(f'{path} has crop_mode {view.crop_mode!r}, which is no view here: --views center shows the '
                        'centre crop instead')
    return {'size': height, 'crop_ratio': view.test_crop_pct or view.crop_pct, 'interpolation': view.interpolation}


def _model(architecture: str, arguments: Mapping) -> tuple[dict[str, Any], str]:
    """(the section `model` without the number of classes, why there is none)."""
    known = NAMES | {name: {'name': name} for name in models.names()}
    if architecture not in known:
        return {}, str(unknown('architecture', architecture, known))
    if arguments:
        told = ', '.join(f'{name}={value!r}' for name, value in arguments.items())
        return {}, f'{architecture} is made with {told} of timm there'
    return known[architecture], ''


def _class_names(path: Path, names: Any, count: int) -> Sequence[str]:
    """A list, or {number: name} with a number where there is no name; () where they are not as many as the outputs."""
    if isinstance(names, Mapping):
        try:
            by_number = {int(number): str(name) for number, name in names.items()}
        except ValueError:
            by_number = {}
        names = [by_number.get(i, str(i)) for i in range(count)] if by_number and max(by_number) < count else []
    if not isinstance(names, list) or len(names) != count:
        log.warning('%s: its label_names are not those of %d classes, and are passed over', path, count)
        return ()
    return tuple(map(str, names))
