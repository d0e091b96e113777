"""Models by shape and by operation, from traces alone."""

from functools import partial

import flax.traverse_util
import jax
import jax.numpy as jnp
from jax.interpreters import mlir

from imagenet_jax import models
from imagenet_jax.models.summary import operations


def shapes(model, size=32, **kwargs):
    """(variables, answer) of a model as shapes, by tracing alone."""
    images = jax.ShapeDtypeStruct((2, size, size, 3), jnp.float32)
    answer, variables = jax.eval_shape(partial(model.init_with_output, **kwargs), jax.random.key(0), images)
    return variables, answer


def count(variables):
    return sum(leaf.size for leaf in jax.tree.leaves(variables['params']))


def flat(tree):
    return flax.traverse_util.flatten_dict(tree, sep='/')


def traced(name, size, **options):
    model = models.create(name, **options)
    images = jax.ShapeDtypeStruct((1, size, size, 3), jnp.float32)
    variables = jax.eval_shape(model.init, jax.random.key(0), images)
    return list(operations(jax.make_jaxpr(model.apply)(variables, images).jaxpr))


def strides(name, size, **options):
    """Of each convolution: kernel side -> strides in the order they run."""
    return [(e.invars[1].aval.shape[0], e.params['window_strides'][0])
            for e in traced(name, size, **options) if e.primitive.name == 'conv_general_dilated']


def initial_scales(model):
    """Norm scale -> its initial value; what draws the rest falls out of the compiled program."""
    def scales():
        params = model.init(jax.random.key(0), jnp.zeros((1, 32, 32, 3)))['params']
        return {path: value.mean() for path, value in flat(params).items() if path.endswith('/scale')}
    return {path: float(value) for path, value in jax.jit(scales)().items()}


def by_xla(primitive, module, function, *args):
    """What a function answers with XLA's own operation where `module` has a rule of lowering it on CPUs."""
    mlir.register_lowering(primitive, module.plain, platform='cpu')
    try:
        return jax.jit(lambda *args: function(*args))(*args)  # a new function, which nothing has compiled
    finally:
        module.register()
