"""Gradients -> a direction, which the learning rate multiplies: optax's parts, by config.optimizer; and Lookahead."""

from imagenet_jax.optim.adaptive import LAMB, Adam, AdamW, RMSprop
from imagenet_jax.optim.base import Optimizer
from imagenet_jax.optim.descent import LARS, SGD
from imagenet_jax.optim.lookahead import Lookahead
from imagenet_jax.optim.paths import matching, path_name, refuse_idle

__all__ = ['LAMB', 'LARS', 'OPTIMIZERS', 'SGD', 'Adam', 'AdamW', 'Lookahead', 'Optimizer', 'RMSprop', 'matching',
           'path_name', 'refuse_idle']

# config.optimizer.name -> the optimizer.
OPTIMIZERS = {'sgd': SGD, 'adam': Adam, 'adamw': AdamW, 'rmsprop': RMSprop, 'lars': LARS, 'lamb': LAMB}
