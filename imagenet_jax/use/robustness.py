"""ImageNet's sets of harder images: -V2, -A, -R, -Sketch and -C, in the layouts that they are published in.

    0/, 1/, ..., 999/                       imagenet-v2 (arXiv 1902.10811): ImageNet's numbers
    n01498041/, ...: 200 of the 1000        imagenet-a (arXiv 1907.07174) and imagenet-r (arXiv 2006.16241)
    n01440764/, ...: any of the 1000        imagenet-sketch (arXiv 1905.13549), or other images of these classes
    gaussian_noise/1/n01440764/, ...        imagenet-c (arXiv 1903.12261); also in its archives' folders, as noise/

Accuracy on -A and -R is over the model's outputs for their 200 classes, as the authors measure it, and over all outputs
on the others. imagenet_sets.json has these classes, as ImageNet's numbers, and AlexNet's errors on -C.
"""

import dataclasses
import functools
import json
import logging
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np

from imagenet_jax import class_names, sources
from imagenet_jax.errors import UserError, beside, few
from imagenet_jax.evaluation import Evaluator
from imagenet_jax.images.eval_view import EvalView
from imagenet_jax.sources.listing import archives, class_folders, is_image
from imagenet_jax.use import imagenet

log = logging.getLogger(__name__)

# Folders of archives of imagenet-c, and how deep below the folder that is named a set may lie.
_ARCHIVES, _DEPTH = {'blur', 'noise', 'weather', 'digital', 'extra'}, 2
_SEVERITIES = range(1, 6)


@dataclasses.dataclass(frozen=True)
class Found:
    """A set on disk.

    Attributes:
      name: 'imagenet-v2', 'imagenet-a', 'imagenet-r', 'imagenet-sketch', 'imagenet-c', or 'imagenet' for class folders
        that are none of these by their name or number.
      path: its folder.
      parts: folder of class folders by name: {'': path}, or of imagenet-c {('gaussian_noise', 1): ..., ...}.
    """
    name: str
    path: Path
    parts: Mapping[Any, Path]

    @property
    def restricted(self) -> Sequence[int] | None:
        """ImageNet's numbers of the only classes that answers are taken from; None: of all."""
        return _sets().get(self.name)


@functools.cache
def _sets() -> Mapping[str, Any]:
    return json.loads(resources.files('imagenet_jax.use').joinpath('imagenet_sets.json').read_text())


def find(root: Path) -> list[Found]:
    """The sets in a folder, which may be one itself; they are told by what they hold.

    Raises:
      UserError: there is none, or one that cannot be told.
    """
    try:
        found = list(_find(root, _DEPTH)) if root.is_dir() else []
    except OSError as error:
        raise UserError(f'{root} cannot be read: {error}') from error
    if not found:
        what = f'{root} holds {few(class_folders(root))}{archives(root)}' if root.is_dir() else (
            f'{root} is a file' if root.exists() else f'{root} does not exist; {beside(root)}')
        raise UserError("no set of images there: expected class folders that are ImageNet's numbers (ImageNet-V2) or "
                        'WordNet ids (-A, -R, -Sketch), or folders <corruption>/<severity>/<WordNet id> (-C), or a '
                        f'folder of such folders. {what}')
    return found


def _find(path: Path, depth: int) -> Iterator[Found]:
    folders = class_folders(path)
    if corruptions := _corruptions(path, folders):
        yield Found('imagenet-c', path, corruptions)
    elif name := _name(path, folders):
        if name == 'imagenet-v2' and len(folders) < len(class_names.imagenet()):
            log.warning('%s has %d numbered classes, and ImageNet-V2 has 1000', path, len(folders))
        yield Found(name, path, {'': path})
    elif depth:
        for folder in folders:
            below = list(_find(path / folder, depth - 1))
            if not below and depth == _DEPTH:
                log.warning('%s is no set of images that is known, and is left out', path / folder)
            yield from below


def _corruptions(path: Path, folders: Sequence[str]) -> dict[tuple[str, int], Path]:
    """(corruption, severity) -> its folder of class folders; {} where there is none."""
    if _is_corruption(path, folders):
        path, folders = path.absolute().parent, [path.absolute().name]
    within = [path / folder / name if folder in _ARCHIVES else path / folder
              for folder in folders for name in (class_folders(path / folder) if folder in _ARCHIVES else [''])]
    found = {}
    for corruption in within:
        severities = class_folders(corruption)
        if not _is_corruption(corruption, severities):
            continue
        for severity in severities:
            part = corruption.name, int(severity)
            if part in found:
                raise UserError(f'{found[part]} and {corruption / severity} are the same corruption')
            found[part] = corruption / severity
    if found and (left := [str(each) for each in within if each.name not in {name for name, _ in found}]):
        log.warning('no corruption, and left out: %s', few(left))
    return dict(sorted(found.items()))


def _is_corruption(path: Path, severities: Sequence[str]) -> bool:
    if not class_names.are_numbers(severities) or not all(int(name) in _SEVERITIES for name in severities):
        return False
    inside = class_folders(path / severities[0])
    return bool(inside) and set(inside) <= class_names.imagenet().keys()


def _name(path: Path, folders: Sequence[str]) -> str:
    """Of a folder of class folders; '' where it is none. Raises UserError."""
    wnids = class_names.imagenet()
    if class_names.are_numbers(folders):
        if not any(is_image(file.name) for name in folders[:3] for file in (path / name).iterdir()):
            return ''  # of a run's checkpoints, or whatever else is counted
        if len(set(map(int, folders))) < len(folders) or max(map(int, folders)) >= len(wnids):
            raise UserError(f"{path}: its class folders are numbers, but not ImageNet's 0 to 999, each once: "
                            f'{few(folders, 5)}')
        return 'imagenet-v2'
    strangers = [name for name in folders if name not in wnids]
    if len(strangers) == len(folders):
        return ''
    if strangers:
        raise UserError(f"{path} holds folders of ImageNet's classes beside others: {few(strangers, 5)}")
    held, said = set(folders), _said(path)
    of = {name: {list(wnids)[number] for number in _sets()[name]} for name in ('imagenet-a', 'imagenet-r')}
    if exact := [name for name, classes in of.items() if classes == held]:
        return exact[0]
    if said in of and not held <= of[said]:
        raise UserError(f'{path} is called {said}, but holds classes that {said} has not: '
                        f'{few(sorted(held - of[said]), 5)}')
    fits = [name for name, classes in of.items() if held <= classes]
    if fits and not said:
        raise UserError(f'{path} holds {len(held)} classes, all of them of {" and of ".join(fits)}, but not all of the '
                        '200: call the folder imagenet-a, imagenet-r or imagenet-sketch to say what it is')
    if said in of:
        log.warning('%s: %d of the 200 classes of %s', path, len(held), said)
    return said or 'imagenet'


def _said(path: Path) -> str:
    """What a folder is by its own name; '' where that says nothing."""
    name = path.absolute().name.lower()
    if 'sketch' in name:
        return 'imagenet-sketch'
    said = re.search(r'(?:^|[^a-z]|imagenet)([ar])(?![a-z0-9])', name)
    return f'imagenet-{said[1]}' if said else ''


@dataclasses.dataclass(frozen=True)
class Opened:
    """A set, its sources by part, and the model's outputs that count, None for all."""
    found: Found
    sources: Mapping[Any, sources.Source]
    outputs: tuple[int, ...] | None


def open_set(found: Found, names: Sequence[str], num_classes: int, exif: bool) -> Opened:
    """Opens a set for a model.

    Args:
      found: by `find`.
      names, num_classes: of the model's outputs; see `imagenet.numbers`.
      exif: whether images are decoded upright.

    Raises:
      UserError: it cannot be read, or the model has no output for one of its classes.
    """
    outputs = None if found.restricted is None else imagenet.outputs(names, num_classes, found.restricted)
    order = list(class_names.imagenet())
    known, count = (tuple(names), num_classes) if outputs is None else (
        tuple(order[number] for number in found.restricted), len(outputs))

    def opened(path):
        # As many classes as ImageNet has: folders that are numbers are labels, also where some are missing.
        source = sources.create('folder', str(path), '', len(order), exif=exif)
        there = np.unique(source.labels)
        wanted = [source.class_names[label] for label in there]
        found_at = imagenet.outputs(names, num_classes, [
            int(name) if found.name == 'imagenet-v2' else order.index(name) for name in wanted])
        places = np.zeros(len(source.class_names), np.int32)
        places[there] = found_at if outputs is None else [outputs.index(place) for place in found_at]
        return source.renumbered(places, known, count)
    return Opened(found, {part: opened(path) for part, path in found.parts.items()}, outputs)


def uncropped(view: Any) -> Any:
    """A model's view, or that of several, of images of imagenet-c, which as published are crops of 224 pixels already:
    they are shown whole. Several crops or sizes stay as they are."""
    if not isinstance(view, EvalView):
        return type(view)([uncropped(each) for each in view.views])
    return view if view.whole or view.views != 'center' else dataclasses.replace(
        view, resize=view.size, crop_ratio=None)


def measure(opened: Iterable[Opened], evaluator: Evaluator, variables: dict,
            shown: Callable[[str, Evaluator], Callable[[Iterable], Iterable]], view: Callable) -> Iterator[dict]:
    """Evaluates sets, each image once.

    Args:
      opened: by `open_set`.
      evaluator: of the model on any split.
      variables: on the devices.
      shown: (what is measured, its evaluator) -> what is given the batches as they come, such as a progress bar.
      view: of an image of imagenet-c, such as `uncropped`.

    Yields:
      Of each set what it is, where, images, the outputs that count, and the scalars of an evaluation; of imagenet-c
      `corruption_errors`, top1 and bad_samples.
    """
    compiled = {}
    for one in opened:
        corrupted = one.found.name == 'imagenet-c'
        base = compiled.setdefault(one.outputs, dataclasses.replace(evaluator, outputs=one.outputs))
        results = {}
        for part, source in one.sources.items():
            this = base.on(source, view if corrupted else evaluator.view)
            name = ' '.join([one.found.name, *map(str, part)])
            results[part] = this(variables, shown(name, this)).scalars
        images = {part: len(source) for part, source in one.sources.items()}
        found = {'set': one.found.name, 'path': str(one.found.path), 'images': sum(images.values()),
                 'restricted_to': None if one.outputs is None else len(one.outputs)}
        if not corrupted:
            yield found | results['']
            continue
        top1 = sum(images[part] * scalars['top1'] for part, scalars in results.items()) / found['images']
        yield found | {'bad_samples': sum(scalars['bad_samples'] for scalars in results.values()), 'top1': top1
                       } | corruption_errors({part: 1 - scalars['top1'] for part, scalars in results.items()})


def corruption_errors(errors: Mapping[tuple[str, int], float]) -> dict[str, Any]:
    """What imagenet-c is measured by (arXiv 1903.12261).

    Args:
      errors: top-1 error by corruption and severity.

    Returns:
      corruptions: of each corruption its errors by severity, error, their mean, and corruption_error, that over
        AlexNet's; None where a severity of 1..5 is missing, or the corruption is none of the 15 that AlexNet's is
        published for.
      mean_corruption_error: the mean of these, None where there is none; corruptions_counted: of how many. What is
        published is of 15.
    """
    table = {}
    for (name, severity), error in sorted(errors.items()):
        table.setdefault(name, {})[str(severity)] = error
    alexnet, found = _sets()['alexnet_errors'], {}
    for name, row in table.items():
        error = float(np.mean(list(row.values())))
        whole = len(row) == len(_SEVERITIES) and name in alexnet
        found[name] = {'errors': row, 'error': error, 'corruption_error': error / alexnet[name] if whole else None}
    counted = [row['corruption_error'] for row in found.values() if row['corruption_error'] is not None]
    return {'corruptions': found, 'mean_corruption_error': float(np.mean(counted)) if counted else None,
            'corruptions_counted': len(counted)}
