"""Folders of runs and imports with random weights."""

import jax
import jax.numpy as jnp
import numpy as np

from configs import common
from imagenet_jax import models, record
from imagenet_jax.checkpoint import save_variables


def variables_of(model, size, seed=0):
    """Random ones, BatchNorm's statistics too, so that answers differ between images."""
    made = jax.jit(lambda: model.init(jax.random.key(seed), jnp.zeros((1, size, size, 3))))()
    keys = iter(jax.random.split(jax.random.key(seed + 1), 1000))
    def moved(path, x):
        noise = 0.1 * jax.random.normal(next(keys), x.shape)
        return x + (jnp.abs(noise) if path[-1].key == 'var' else noise)
    return {'batch_stats': {}} | jax.tree_util.tree_map_with_path(moved, made)


def imported(folder, name='resnet8_cifar', seed=0, size=32, class_names=(), loss='softmax', **sections):
    """The folder, as `weights import` makes it, of a model for 10 classes."""
    model = {'name': name, 'num_classes': len(class_names) or 10}
    save_variables(folder, variables_of(models.create(**model), size, seed))
    record.write(folder, {'model': model, 'eval': {'size': size, 'resize': size}, 'loss': {'name': loss},
                          'run': {'class_names': list(class_names)}, **sections})
    return folder


CLASSES = ('ant', 'bee', 'cat')


def make_run(root, data, loss='softmax', names=CLASSES):
    """A run's folder with weights that were drawn, not trained."""
    config = common.get_config()
    config.model.update(name='resnet8_cifar', num_classes=len(names), dtype='float32')
    config.eval.update(size=8, resize=9)
    config.loss.name = loss
    config.data.update(data)
    model = models.create('resnet8_cifar', num_classes=len(names))
    variables = jax.device_get(jax.jit(lambda: model.init(jax.random.key(0), np.zeros((1, 8, 8, 3))))())
    save_variables(root, variables)
    record.write(root, {**config.to_dict(), 'run': {'class_names': list(names)}})
    return root
