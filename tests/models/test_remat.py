"""config.model.remat: the same model, in less memory."""

import dataclasses
import re
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from fixtures_blocks import KINDS, filled
from fixtures_models import flat
from fixtures_step import Run, batch

from imagenet_jax import models
from imagenet_jax.errors import UserError
from imagenet_jax.models import (
    mobilenet_v3,
)
from imagenet_jax.models.blocks import Sequential
from imagenet_jax.models.layers import Layers
from imagenet_jax.optim import SGD

pytestmark = pytest.mark.numerics

# Model -> its blocks; one of each place that makes some.
BLOCKS = {'resnet18': 8, 'seresnet18': 8, 'resnet18v2': 8, 'resnest50d': 16, 'oct_resnet50': 16, 'regnety_002': 13,
          'resnet20_cifar': 9, 'mobilenet_v1': 13, 'mobilenet_v2': 17, 'mobilenet_v3_small': 11, 'ghostnet_100': 16}
def rematerialised(model):
    """How many blocks a model's program computes anew, and its variables."""
    images = jax.ShapeDtypeStruct((1, 32, 32, 3), jnp.float32)
    trace = jax.make_jaxpr(model.init_with_output, return_shape=True)
    program, (_, variables) = trace(jax.eval_shape(lambda: jax.random.key(0)), images)
    return len(re.findall(r'= (?:checkpoint|remat2?)\[', str(program))), variables


@pytest.mark.parametrize('name', [pytest.param(name, marks=pytest.mark.slow if name in (
    'oct_resnet50', 'resnest50d', 'ghostnet_100') else ()) for name in BLOCKS])
def test_every_block_is_and_has_the_same_variables(name):
    none, variables = rematerialised(models.create(name))
    blocks, same = rematerialised(models.create(name, remat=True))
    assert (none, blocks) == (0, BLOCKS[name])
    assert flat(same) == flat(variables)


@pytest.mark.parametrize('kind', KINDS)
def test_block_computes_the_same(kind):
    x = jnp.sin(jnp.arange(2.0 * 6 * 6 * 8)).reshape(2, 6, 6, 8)
    x = (x, x[:, ::2, ::2]) if kind.startswith('octave') else x
    plain, remat = (layers.block(KINDS[kind])(layers=layers, name='block')
                    for layers in (Layers(train=True), Layers(train=True, remat=True)))
    assert type(plain) is not type(remat)
    variables = filled(jax.eval_shape(plain.init, jax.random.key(0), x))

    def loss(block, params, x):
        y, updated = block.apply({**variables, 'params': params}, x, mutable=['batch_stats'])
        return sum(jnp.sin(leaf).sum() for leaf in jax.tree.leaves(y)), (y, updated)

    @jax.jit
    def both(params, x):
        return [jax.value_and_grad(partial(loss, block), argnums=(0, 1), has_aux=True)(params, x)
                for block in (plain, remat)]

    one, other = both(variables['params'], x)
    assert any(np.abs(leaf).max() > 1e-3 for leaf in jax.tree.leaves(one[1]))
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5), other, one)


def test_train_step_is_the_same():
    """On two devices with synchronous norms, dropout, and a norm that is frozen."""
    model = mobilenet_v3.MobileNetV3(rows=((3, 16, 16, False, True, 1),), hidden=8, num_classes=4, dropout=0.5,
                                     norm='sync')
    run = Run(model, devices=2)
    steps = [dataclasses.replace(run.train_step, model=model.clone(remat=remat),
                                 optimizer=SGD(freeze=('features/1/block/0/*',))) for remat in (False, True)]
    state = steps[0].init(0, 8)
    before = jax.tree.map(np.asarray, state)
    after, metrics = zip(*(train_step(jax.tree.map(jnp.copy, state), run.on_devices(batch()))
                           for train_step in steps), strict=True)
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6), metrics[1], metrics[0])
    for name in ('params', 'batch_stats'):
        one, other = (flat(getattr(state, name)) for state in after)
        assert one.keys() == other.keys()
        for path, value in one.items():
            np.testing.assert_allclose(other[path], value, rtol=1e-5, atol=1e-6, err_msg=path)
    moved = {path for path, value in flat(before.batch_stats).items()
             if not np.array_equal(flat(after[1].batch_stats)[path], value)}
    assert 'features/1/block/1/1/mean' in moved and 'features/1/block/0/1/mean' not in moved


def test_initial_values_are_the_same():
    x = jnp.zeros((1, 4, 4, 8))
    one, other = (
        Sequential((partial(layers.block(KINDS['separable']), layers=layers),)).init(jax.random.key(0), x)
        for layers in (Layers(), Layers(remat=True)))
    assert 'conv_pw' in one['params']['0']
    jax.tree.map(np.testing.assert_array_equal, other, one)


def test_it_takes_less_memory():
    """By what XLA reserves for intermediate values.

    XLA for the CPU has a pass that drops the barriers around what is computed anew, and then merges it with what was
    computed before; accelerators drop them once the order is fixed. Without that pass the CPU is like them.
    """
    images = jnp.zeros((4, 64, 64, 3))
    model = models.create('resnet50', num_classes=2).clone(depths=(2, 3, 8))
    variables = jax.eval_shape(model.init, jax.random.key(0), images)

    def reserved(remat):
        def loss(variables):
            return model.clone(remat=remat).apply(variables, images, train=True, mutable=['batch_stats'])[0].sum()
        program = jax.jit(jax.value_and_grad(loss)).lower(variables)
        return program.compile({'xla_disable_hlo_passes': 'cse_barrier_expander'}).memory_analysis().temp_size_in_bytes

    assert reserved(True) < 0.5 * reserved(False)


def test_models_without_blocks_refuse_it():
    with pytest.raises(UserError, match=r'model\.remat=True is read by .*, not by vgg11'):
        models.create('vgg11', remat=True)
