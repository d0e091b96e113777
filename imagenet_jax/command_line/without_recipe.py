"""--model NAME --data DIR: training without a recipe.

This file is the recipe then: configs/common.py, with the optimizer that the model's own recipe has, and what the data
itself says.
"""

import logging
import os
import re
from collections.abc import Iterable

from imagenet_jax import catalog
from imagenet_jax.command_line import recipe_files, running
from imagenet_jax.errors import UserError, beside, expanded, unknown

log = logging.getLogger(__name__)

_BATCH = 64         # images of an update, which a laptop and any GPU have room for
_UPDATES = 16       # of an epoch, at least, or the batch is smaller
_LEAST_BATCH = 8    # what up to 8 devices share


def with_config(argv: list[str]) -> list[str]:
    """argv with --config where it has --model. Raises UserError: --data without it, or both --config and --model."""
    given = dict(re.findall(r'^--?(config|model|data)(?:[=\n](.*))?$', '\n'.join(argv), re.MULTILINE))
    if 'model' in given and 'config' in given:
        raise UserError('--model is for training without a recipe: give --config FILE:MODEL, or --model and --data '
                        'without --config')
    if 'data' in given and 'model' not in given:
        raise UserError('--data goes with --model; where a recipe is given it is --config.data.path=DIR')
    return [argv[0], f'--config={__file__}:{given["model"]}', *argv[1:]] if 'model' in given else argv


def get_config(model: str):
    """The recipe, before the data is looked at."""
    if model not in catalog.RECIPE_OF:
        raise unknown('model', model, catalog.sizes())
    recipe = recipe_files.load(recipe_files.HOME / f'{catalog.RECIPE_OF[model]}.py').get_config(model)
    config = recipe_files.common().get_config()
    config.model.name, config.optimizer = model, recipe.optimizer
    config.schedule.base_batch_size = recipe.batch_size
    config.augment.size = config.eval.size = catalog.image_size(model)
    config.eval.resize = catalog.eval_resize(model, config.eval.size)
    config.batch_size = config.eval_batch_size = _BATCH
    return config


def look_at_data(config, path: str | None, given: Iterable[str]) -> None:
    """Sets what the data says: its layout, its splits, its classes, and a batch that goes often enough into it.

    Args:
      config: changed in place.
      path: of --data, None where it is not given.
      given: options that are as the command line says, whatever the data says.

    Raises:
      UserError: there is no such data, or it cannot be read.
    """
    with running.importing():  # JAX too, for which help does not wait
        from imagenet_jax import data as data_section
        from imagenet_jax.options import apply

    def settle(name, value):
        if name not in given:
            config.update_from_flattened_dict({name: value})

    if path is not None:
        if not os.path.exists(expanded(path)):
            raise UserError(f'no data {path}; {beside(expanded(path))}')
        settle('data.path', path)
        for name, value in _layout(config.data.path).items():
            if name != 'data.eval_split' or 'data.holdout' not in given:  # which is to be made then
                settle(name, value)
    elif not any(name.startswith('data.') for name in given):
        raise UserError('which images? Give --data, such as --data data/imagenet')
    data = apply(data_section.read, config.data, 'config.data')
    source = data.open(data.train_split, None if 'model.num_classes' not in given else config.model.num_classes, 224)
    settle('model.num_classes', max(len(source.class_names), source.num_labels))
    batch = _BATCH
    while batch > _LEAST_BATCH and batch * _UPDATES > len(source):
        batch //= 2
    settle('batch_size', batch)
    log.info('no recipe, so: %s for %d classes, %d pixels, %s images a batch, %g epochs; all else as in '
             'configs/common.py, and --config.NAME=VALUE changes any', config.model.name, config.model.num_classes,
             config.augment.size, config.batch_size, config.epochs)


def _layout(path: str) -> dict[str, str]:
    """The format and splits of the data at a path, as far as they can be seen from outside."""
    from imagenet_jax import sources
    from imagenet_jax.sources.shards import spellings
    found = {}
    if at := sources.formats_at(path, 'train'):
        found['data.format'] = at[0]
    names = (*spellings('val'), 'test')
    if split := next((split for split in names if set(at) & {*sources.formats_at(path, split)}), None):
        found['data.eval_split'] = split
    return found
