"""Where a run starts that does not start at random, config.init_from, and what of it stays: frozen norms."""

import logging
from pathlib import Path

import flax.linen as nn
import flax.traverse_util
import jax
import jax.numpy as jnp

from imagenet_jax import weight_files, weights
from imagenet_jax.checkpoint import load_variables
from imagenet_jax.errors import UserError

log = logging.getLogger(__name__)


def load(source: str, model: nn.Module) -> dict[str, dict]:
    """Variables to start `model` from; without the head's where the source has another number of classes.

    Args:
      source: the folder of a run (its best checkpoint, or where none was evaluated the newest) or of an
        import, or whatever `weight_files.find` takes: a file of PyTorch weights, a folder with one, hf:OWNER/NAME.
      model: from `models.create`.

    Returns:
      {'params', 'batch_stats'}, float32 numpy arrays.

    Raises:
      UserError: no such source, it is damaged, or it does not fit; names every array that does not.
    """
    folder = Path(source).expanduser()
    try:
        if (folder / 'checkpoints').is_dir():
            options, variables = load_variables(folder, best=True)
            theirs = model.clone(num_classes=options['num_classes'])
            weights.refuse_misfit(theirs, variables)
        else:
            path, _ = weight_files.find(source)
            state_dict = weight_files.read(path)
            theirs = model.clone(num_classes=weights.classes_of(model, state_dict))
            variables = weights.from_torch(theirs, state_dict)
    except UserError as error:
        raise UserError(f'config.init_from={source}: {error}') from error
    if theirs.num_classes != model.num_classes:
        log.info('%s is for %d classes: the head starts anew, with %d', source, theirs.num_classes, model.num_classes)
        variables = weights.without_head(theirs, variables)
    return variables


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
