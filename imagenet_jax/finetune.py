"""Where a run starts that does not start at random, config.init_from, and what of it stays: frozen norms."""

import logging
import math
from collections.abc import Mapping, Sequence

import flax.linen as nn
import flax.traverse_util
import jax
import jax.numpy as jnp

from imagenet_jax import record, weight_files, weights
from imagenet_jax.checkpoint import load_variables
from imagenet_jax.class_names import are_numbers, first, match, of_published
from imagenet_jax.errors import UserError, expanded, unknown

log = logging.getLogger(__name__)


# What config.init_head may be; unset, names of classes decide.
HEADS = ('keep', 'new')


def start(source: str, model: nn.Module, class_names: Sequence[str], head: str, params: Mapping,
          frozen: Mapping) -> dict[str, dict] | None:
    """What `load` answers, None where `source` is ''; logs what of the parameters stays as it is, and how many train.

    Args:
      source, model, class_names, head: see `load`.
      params: the model's, or their shapes.
      frozen: a tree like them, True where one stays as it is.

    Raises:
      UserError: what `load` refuses, or a head that starts anew and would stay as it is drawn.
    """
    loaded = load(source, model, class_names, head) if source else None
    sizes, still = (flax.traverse_util.flatten_dict(tree, sep='/') for tree in (params, frozen))
    if loaded:
        there = flax.traverse_util.flatten_dict(loaded['params'], sep='/')
        if left := [name for name in weights.head_names(model) if name not in there and still[name]]:
            raise UserError(f'config.freeze holds {", ".join(left)}, a head that starts anew and would never learn: '
                            'leave it out there, or keep the head that there is by config.init_head=keep')
    names = [name for name in sizes if still[name]]
    total = sum(math.prod(array.shape) for array in sizes.values())
    log.info('%s of %s parameters train; frozen: %s', f'{total - sum(math.prod(sizes[n].shape) for n in names):,}',
             f'{total:,}', f'{len(names)} of {len(sizes)} arrays, {first(names)}' if names else 'none')
    return loaded


def load(source: str, model: nn.Module, class_names: Sequence[str] = (), head: str = '') -> dict[str, dict]:
    """Variables to start `model` from; without the head's where that starts anew.

    It does where the source has another number of classes or, as far as both sides' names are known, other classes. The
    same classes in another order keep their head, in the order of `class_names`.

    Args:
      source: the folder of a run (its best checkpoint, or where none was evaluated the newest) or of an
        import, or whatever `weight_files.find` takes: a file of PyTorch weights, a folder with one, hf:OWNER/NAME.
      model: from `models.create`.
      class_names: of the run's data, in the order of the model's outputs; () where unknown.
      head: one of `HEADS`, config.init_head, or ''.

    Returns:
      {'params', 'batch_stats'}, float32 numpy arrays.

    Raises:
      UserError: no such source, it is damaged, or it does not fit; names every array that does not. Or its head cannot
        be kept.
    """
    theirs, variables, names = _read(source, model)
    where, places = f'config.init_from={source}', ()
    why = 'has a head that config.init_head=new leaves' if head == 'new' else ''
    if theirs.num_classes != model.num_classes:
        why = f'is for {theirs.num_classes} classes'
        if head == 'keep':
            raise UserError(f'{where} {why}, and config.model.num_classes={model.num_classes}: its head cannot be '
                            'kept, as config.init_head=keep says')
    elif head != 'new':
        why, places = _other_classes(names, tuple(class_names), model.num_classes)
    if why and head != 'keep':
        log.info('%s %s: the head starts anew, with %d classes: %s', where, why, model.num_classes,
                 ', '.join(weights.head_names(model)))
        return weights.without_head(theirs, variables)
    told = (f', as config.init_head=keep says, though it {why}' if why else ', with the same classes' if names and
            class_names else '; whether its classes are the same is not known')
    log.info('%s: its head is kept%s%s', where, told, ', in the order of the data' if places else '')
    return weights.with_classes(model, variables, places) if places else variables


def _read(source: str, model: nn.Module) -> tuple[nn.Module, dict[str, dict], tuple[str, ...]]:
    """(the model with as many classes as the source has, variables for it, names of the classes)."""
    try:
        folder = expanded(source)
        if (folder / 'checkpoints').is_dir():
            options, variables = load_variables(folder, best=True)
            theirs = model.clone(num_classes=options['num_classes'])
            weights.refuse_misfit(theirs, variables)
            return theirs, variables, tuple((record.read(folder) or {}).get('run', {}).get('class_names', ()))
        path, _ = weight_files.find(source)
        state_dict = weight_files.read(path)
        theirs = model.clone(num_classes=weights.classes_of(model, state_dict))
        return theirs, weights.from_torch(theirs, state_dict), of_published(theirs.num_classes)
    except UserError as error:
        raise UserError(f'config.init_from={source}: {error}') from error


def _other_classes(theirs: tuple[str, ...], ours: tuple[str, ...], count: int) -> tuple[str, tuple[int, ...]]:
    """(why a head for so many classes is of other ones, '' where not; for each of our classes theirs, () in order)."""
    if not theirs or not ours or theirs == ours:
        return '', ()
    if len(ours) < count or (are_numbers(theirs) and not are_numbers(ours)):
        return f'has other classes, {first(theirs)}, and the data has {first(ours)}', ()
    try:
        places = match(ours, theirs)
    except UserError:
        return f'has other classes, {first(theirs)}, and the data has {first(ours)}', ()
    return '', places if places != tuple(range(count)) else ()


def check(init_head: str, init_from: str) -> None:
    """Raises UserError where config.init_head is none, or there is no head to keep or to leave."""
    if init_head and init_head not in HEADS:
        raise unknown('config.init_head', init_head, HEADS)
    if init_head and not init_from:
        raise UserError(f'config.init_head={init_head} is about the head of config.init_from, which is unset')


def frozen_norms(model: nn.Module, image_size: int, source: str) -> tuple[str, ...]:
    """Patterns, as of config.freeze, of what config.model.norm=frozen leaves as it is; () for other norms.

    Args:
      model: from `models.create`.
      image_size: side of the images, in pixels.
      source: config.init_from; warns where it is ''.
    """
    if model.norm != 'frozen':
        return ()
    if not source:
        log.warning('config.model.norm=frozen without config.init_from: norms stay as they start, and do nothing')
    images = jnp.zeros((1, image_size, image_size, 3))
    stats = jax.eval_shape(lambda: model.init(jax.random.key(0), images))['batch_stats']
    norms = dict.fromkeys(path[:-1] for path in flax.traverse_util.flatten_dict(stats))
    return tuple(f'{"/".join(path)}/*' for path in norms)
