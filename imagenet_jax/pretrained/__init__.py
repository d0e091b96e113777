"""Weights that were trained elsewhere, or copied: read with what their files say of them, as a folder would have it.

What a model is, how it sees an image and what its classes are called is told by the caller or, where it is not, by
torchvision's name of the file, by timm's config.json beside it, or by the config.json of a run.
"""

import dataclasses
import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from imagenet_jax import catalog, models, record, runtime, weight_files, weights
from imagenet_jax.checkpoint import load_variables
from imagenet_jax.class_names import of_published
from imagenet_jax.errors import UserError, expanded
from imagenet_jax.images.batch import Normalize
from imagenet_jax.images.eval_view import EvalView
from imagenet_jax.options import apply, chosen
from imagenet_jax.pretrained import hub_config, torchvision
from imagenet_jax.pretrained.hub_config import Described

log = logging.getLogger(__name__)

_SAY = '--model NAME of `weights import`, or model=NAME of `imagenet_jax.load`'
_NOTHING = Described('', '', {}, 0, {}, {}, (), {})


class Import(NamedTuple):
    """What `weights import` writes.

    Attributes:
      entry: config.json.
      variables: {'params', 'batch_stats'}, numpy arrays.
      view: how it sees an image.
    """
    entry: dict[str, Any]
    variables: dict[str, dict]
    view: EvalView


def read(source: str | Path, *, model: Mapping[str, Any] | None = None, view: Mapping[str, Any] | None = None,
         normalize: Mapping[str, Any] | None = None, class_names: Sequence[str] | None = None, best: bool = False,
         ema: bool | None = None) -> Import:
    """Weights of any kind, and what is known of them.

    Args:
      source: what `weight_files.find` takes, or the folder of a run or an import.
      model: options of the model that are known better than its files know them, its `name` too.
      view: of the section eval, likewise.
      normalize: likewise.
      class_names: in the order of the outputs, likewise.
      best: see `load_variables`; of a file, which holds one set of weights, that one.
      ema: see `weights.from_torch`, or `load_variables`.

    Raises:
      UserError: no such source, it is damaged, of a model that is not here or that is not known, or does not fit it.
    """
    options, view, normalize = dict(model or {}), dict(view or {}), dict(normalize or {})
    if not str(source).startswith('hf:') and os.path.isdir(expanded(source) / 'checkpoints'):
        return _copy(expanded(source), options, view, normalize, class_names, best, bool(ema))
    path, origin = weight_files.find(str(source))
    found = _described(path, origin['sha256'], view)
    if found:
        log.info('%s', _told(found))
    elif 'name' not in options:
        alike = weights.likeness(weight_files.read(path))
        raise UserError(f'{source} does not say which model it is of, {_SAY} does; {alike}')
    options = _options(found, options) if found else options
    made = models.create(**options)
    sections, seen = _sections(options['name'], found, view, normalize)
    names = _class_names(found, class_names, made.num_classes)
    variables = weights.from_torch(made, weight_files.read(path), ema)
    entry = {'model': options | {'num_classes': made.num_classes}, **sections,
             'run': {**runtime.describe(), 'weights': origin | (found.origin if found else {}),
                     'class_names': list(names)}}
    return Import(entry, variables, seen)


def import_view(name: str, kept: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """The section `eval` of weights: what is kept of it, changed.

    What is not told is the model's own: its size, and as much more as ImageNet's models are shown. Where the size alone
    changes, the shorter side grows alike.
    """
    kept = chosen(kept)
    if 'resize' in changes:  # the ratio would hold instead
        kept.pop('crop_ratio', None)
    elif 'size' in changes and {'size', 'resize'} <= kept.keys():
        kept['resize'] = round(changes['size'] * kept['resize'] / kept['size'])
    known = kept | dict(changes)
    size = known.get('size') or catalog.image_size(name)
    return {'size': size, 'resize': catalog.eval_resize(name, size), **known}


def _described(path: Path, sha256: str, view: Mapping) -> Described | None:
    if known := torchvision.published(path, sha256):
        return Described(
            by=f"torchvision's file {known.file}", title=known.model, model={'name': known.model}, num_classes=1000,
            eval={'size': torchvision.SIZE, 'resize': known.resize, 'interpolation': 'bilinear'},
            normalize=dataclasses.asdict(Normalize()), class_names=of_published(1000), origin={})
    return hub_config.described(path.with_name('config.json'), view)


def _told(found: Described) -> str:
    view = found.eval
    seen = f'crop {view["crop_ratio"]:g}' if 'crop_ratio' in view else f'out of {view["resize"]}'
    numbers = '; '.join(f'{name} {", ".join(f"{x:g}" for x in values)}' for name, values in found.normalize.items())
    names = f'{found.class_names[0]}, ...' if found.class_names else 'which have no names'
    return (f'from {found.by}: {found.title}; {view["size"]} pixels, {seen}, {view["interpolation"]}; {numbers}; '
            f'{found.num_classes} classes, {names}')


def _options(found: Described, given: dict[str, Any]) -> dict[str, Any]:
    """The section `model`, of what is found and what is given."""
    if not found.model and 'name' not in given:
        raise UserError(f'{found.by}: {found.stranger}; where one of the models here has its arrays, say so by '
                        f'{_SAY}')
    count = {'num_classes': found.num_classes}
    if given.get('name', found.model.get('name')) == found.model.get('name'):
        return found.model | count | given
    log.warning('%s says %s, and --model is %s, which is taken', found.by, found.title, given['name'])
    return count | given


def _sections(name, found: Described | None, view, normalize) -> tuple[dict[str, dict], EvalView]:
    kept = found or _NOTHING
    changed = ', with what options change' if view or normalize else ''
    where = f'{found.by}{changed}: ' if found and found.by else ''
    section = import_view(name, kept.eval, view)
    try:
        seen, seen_as = apply(EvalView, section, 'eval'), apply(Normalize, kept.normalize | normalize, 'normalize')
    except UserError as error:
        raise UserError(f'{where}{error}') from error
    return {'eval': section, 'normalize': dataclasses.asdict(seen_as)}, seen


def _class_names(found: Described | None, given: Sequence[str] | None, count: int) -> Sequence[str]:
    if given is not None:
        if len(given) != count:
            raise UserError(f'{len(given)} class names are given, and the model has {count} classes')
        return given
    if found and found.num_classes == count:
        return found.class_names
    return of_published(count)


def _copy(folder: Path, given, view, normalize, class_names, best: bool, ema: bool) -> Import:
    """Of a run or an import: its checkpoint alone, under another view where that is asked for."""
    options, variables = load_variables(folder, best=best, ema=ema)
    entry = record.read(folder)
    if given.get('name', options['name']) != options['name']:
        raise UserError(f'{folder} is of {options["name"]}, and --model is {given["name"]}: leave --model out')
    if 'dtype' in entry['model']:  # a run's: the answers of the copy are to be the same
        options = {'dtype': entry.get('run', {}).get('dtype') or runtime.default_dtype()} | options
    options |= given
    made = models.create(**options)
    weights.refuse_misfit(made, variables)
    kept = _NOTHING._replace(eval=entry.get('eval', {}), normalize=entry.get('normalize', {}))
    sections, seen = _sections(options['name'], kept, view, normalize)
    run = entry.get('run', {})
    names = class_names if class_names is not None else run.get('class_names', ())
    if names:
        names = _class_names(None, names, made.num_classes)
    origin = {'source': str(folder)} | {name: True for name, asked in (('best', best), ('ema', ema)) if asked}
    return Import({'model': options, **sections, 'loss': entry['loss'],
                   'exif': bool(entry.get('data', entry).get('exif')),
                   'run': {**runtime.describe(), 'weights': origin | {'of': run.get('weights')},
                           'class_names': list(names)}}, variables, seen)
