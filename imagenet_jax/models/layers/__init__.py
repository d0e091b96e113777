"""Layers shared by the families, and `Layers`, the choice of them that a model makes once for all its blocks."""

from imagenet_jax.models.layers import cpu_convs, cpu_products
from imagenet_jax.models.layers.activations import ACTIVATIONS
from imagenet_jax.models.layers.choice import Layers, dense_init, he_init
from imagenet_jax.models.layers.convs import ConvNorm, SqueezeExcite, divisible
from imagenet_jax.models.layers.drops import PROGRESS
from imagenet_jax.models.layers.dtypes import FLOAT32, at_least_float32, floating
from imagenet_jax.models.layers.lip import LIP, strided
from imagenet_jax.models.layers.norms import (
    ACTIVATING_NORMS,
    DATA_AXIS,
    FROZEN,
    NORMS,
    BatchNorm,
    frozen_norms,
    local_response_norm,
)
from imagenet_jax.models.layers.pools import adaptive_mean_pool, blur, global_mean, halve, max_pool

__all__ = [
    'ACTIVATING_NORMS', 'ACTIVATIONS', 'DATA_AXIS', 'FLOAT32', 'FROZEN', 'LIP', 'NORMS', 'PROGRESS', 'BatchNorm',
    'ConvNorm', 'Layers', 'SqueezeExcite', 'adaptive_mean_pool', 'at_least_float32', 'blur', 'dense_init',
    'divisible', 'floating', 'frozen_norms', 'global_mean', 'halve', 'he_init', 'local_response_norm', 'max_pool',
    'strided',
]

cpu_convs.register()
cpu_products.register()
