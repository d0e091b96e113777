"""config.model.drop_path and drop_block: where they act, what they drop, and that nothing else changes."""

import re
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from fixtures_blocks import KINDS, filled
from fixtures_models import flat
from fixtures_step import Run, batch

from imagenet_jax import models
from imagenet_jax.errors import UserError
from imagenet_jax.models.layers import Layers
from imagenet_jax.models.layers.drops import DropBlock, DropPath
from imagenet_jax.models.mobilenet_v3 import MobileNetV3

pytestmark = pytest.mark.numerics

# Of each family: its blocks, those that join, the first of the last two stages, and what comes right before DropBlock.
PLACES = {
    'resnet18': (8, range(8), 4, 'bn1'), 'resnet50': (16, range(16), 7, 'bn2'),
    'resnext50_32x4d': (16, range(16), 7, 'bn2'), 'seresnet18': (8, range(8), 4, 'bn1'),
    'resnet18v2': (8, range(8), 4, 'norm2'), 'resnet50v2': (16, range(16), 7, 'norm3'),
    'resnest50d': (16, range(16), 7, 'bn0'), 'oct_resnet50': (16, range(16), 7, '(bn_l|bn_h)'),
    'oct_resnet50v2': (16, range(16), 7, 'norm3_[hl]'),
    'regnety_002': (13, range(13), 2, 'conv2/bn'), 'resnet20_cifar': (9, range(9), 3, 'bn1'),
    'resnet9_cifar': (2, range(2), 0, 'conv1/bn'),
    'mobilenet_v2': (17, (2, 4, 5, 7, 8, 9, 11, 12, 14, 15), 6, 'conv/1/1'),
    'mobilenet_v3_small': (11, (2, 4, 5, 7, 9, 10), 3, 'block/1/1'),
    'ghostnet_100': (16, range(16), 5, '(ghost1|bn_dw)')}
TRAINED = {'train': True, 'mutable': ['batch_stats']}


def keys(number=0):
    """Of each of the model's streams."""
    return {name: jax.random.fold_in(jax.random.key(number), i)
            for i, name in enumerate(('dropout', 'drop_path', 'drop_block'))}


def program(name, train=False, **options):
    """What a model computes, as text; it may draw from no stream at all."""
    model = models.create(name, **options)
    images = jax.ShapeDtypeStruct((2, 32, 32, 3), jnp.float32)
    variables = jax.eval_shape(model.init, jax.eval_shape(lambda: jax.random.key(0)), images)
    text = str(jax.make_jaxpr(partial(model.apply, train=train, mutable=['batch_stats']))(variables, images))
    return re.sub('0x[0-9a-f]+', '', text), variables


def called(model):
    """(path, module) of each call in training, in the order that they end."""
    calls = []

    def note(call, args, kwargs, context):
        y = call(*args, **kwargs)
        calls.append(('/'.join(context.module.path), context.module))
        return y

    with nn.intercept_methods(note):
        jax.eval_shape(partial(model.init_with_output, train=True), {'params': jax.random.key(0), **keys()},
                       jnp.zeros((1, 64, 64, 3)))
    return calls


# --- where


@pytest.mark.parametrize('name', PLACES)
def test_place_and_rate(name):
    """The rate as in timm, of every block's number; DropBlock in each block of the last two stages."""
    blocks, joining, late, before = PLACES[name]
    calls = called(models.create(name, drop_path=0.3, drop_block=0.1))
    rates = [module.rate for _, module in calls if isinstance(module, DropPath)]
    assert rates == pytest.approx([0.3 * i / (blocks - 1) for i in joining if i])
    found = [i for i, (_, module) in enumerate(calls) if isinstance(module, DropBlock)]
    assert [calls[i][1].rate for i in found] == [0.1] * (blocks - late)
    assert all(re.search(f'/{before}$', calls[i - 1][0]) for i in found)


def test_one_block_keeps_its_branch():
    (only,) = Layers(drop_path_rate=0.5, drop_block_rate=0.1).by_block([2])
    assert (only.drop_path_rate, only.drop_block_rate) == (0, 0.1)


# --- what is dropped


class Join(nn.Module):
    layers: Layers

    @nn.compact
    def __call__(self, x, y):
        return self.layers.join(x, y)


def test_drop_path():
    x, y = (jnp.sin(jnp.arange(4000.0 * 4).reshape(4000, 2, 2, 1) * f) for f in (1.3, 1.7))
    join = Join(Layers(train=True, drop_path_rate=0.3))
    answer = join.apply({}, x, y, rngs=keys())
    dropped = np.all(answer == x, axis=(1, 2, 3))
    assert dropped.mean() == pytest.approx(0.3, abs=4 * (0.3 * 0.7 / 4000)**0.5)
    np.testing.assert_allclose(answer[~dropped], (x + y / 0.7)[~dropped], rtol=1e-5, atol=1e-6)

    class Flax(nn.Module):
        @nn.compact
        def __call__(self, x, y):
            return x + nn.Dropout(0.3, broadcast_dims=(1, 2, 3), rng_collection='drop_path', deterministic=False,
                                  name='drop_path')(y)

    np.testing.assert_array_equal(answer, Flax().apply({}, x, y, rngs=keys()))
    # A dropped branch that is not finite leaves no trace.
    assert np.isfinite(join.apply({}, x, jnp.where(dropped[:, None, None, None], jnp.inf, y), rngs=keys())).all()


def test_drop_path_of_a_pair_takes_both():
    pair = jnp.zeros((64, 4, 4, 2)), jnp.zeros((64, 2, 2, 1))
    answer = Join(Layers(train=True, drop_path_rate=0.5)).apply({}, pair, jax.tree.map(jnp.ones_like, pair),
                                                                rngs=keys())
    high, low = (np.unique(x.reshape(64, -1), axis=1) for x in answer)
    np.testing.assert_array_equal(high, low)
    assert set(high.ravel()) == {0, 2}


def dropped_fraction(rate, size, height, width):
    """What is expected: of a pixel, that not all of the corners whose square covers it are spared."""
    places = (height - size + 1, width - size + 1)
    gamma = rate / size**2 * height * width / (places[0] * places[1])
    rows, columns = (np.convolve(np.ones(count), np.ones(size)) for count in places)
    return np.mean(1 - (1 - gamma)**np.outer(rows, columns))


@pytest.mark.parametrize(('height', 'width', 'size'), [(14, 14, 7), (9, 20, 7), (7, 7, 7), (5, 3, 3), (1, 1, 1)])
def test_drop_block(height, width, size):
    n, c, rate = 40, 50, 0.2
    ones = jnp.ones((n, height, width, c))
    answer = np.asarray(DropBlock(rate).apply({}, ones, rngs=keys()))
    kept = answer != 0
    np.testing.assert_allclose(answer[kept], kept.size / kept.sum(), rtol=1e-5)
    assert answer.sum() == pytest.approx(kept.size, rel=1e-5)
    # In squares: whatever is dropped lies in a square that is dropped whole.
    windows = np.lib.stride_tricks.sliding_window_view(~kept, (size, size), axis=(1, 2)).all((-2, -1))
    squares = np.zeros_like(kept)
    for i in range(size):
        for j in range(size):
            squares[:, i:i + windows.shape[1], j:j + windows.shape[2]] |= windows
    np.testing.assert_array_equal(squares, ~kept)
    # As many as expected, five deviations wide; maps are independent, of channels too.
    fractions = (~kept).mean((1, 2))
    assert fractions.mean() == pytest.approx(dropped_fraction(rate, size, height, width),
                                             abs=5 * fractions.std() / (n * c)**0.5)
    assert abs(np.corrcoef(fractions[:, :-1].ravel(), fractions[:, 1:].ravel())[0, 1]) < 5 / (n * c)**0.5


def test_drop_block_drops_its_fraction():
    """Squares that overlap cost the more the higher the rate."""
    assert dropped_fraction(0.1, 7, 14, 14) == pytest.approx(0.1, rel=0.1)
    assert dropped_fraction(0.1, 7, 7, 7) == pytest.approx(0.1)


@pytest.mark.parametrize('dtype', ['bfloat16', 'float16'])
def test_dtype_stays(dtype):
    x = jnp.ones((4, 8, 8, 2), dtype)
    assert DropBlock(0.2).apply({}, x, rngs=keys()).dtype == dtype
    assert Join(Layers(train=True, drop_path_rate=0.2)).apply({}, x, x, rngs=keys()).dtype == dtype


def test_gradient_where_nothing_is_kept():
    gradient = jax.grad(lambda x: DropBlock(1 - 1e-7).apply({}, x, rngs=keys()).sum())(jnp.ones((1, 2, 2, 1)))
    np.testing.assert_array_equal(gradient, jnp.zeros((1, 2, 2, 1)))


# --- with the rest of a model


@pytest.mark.parametrize('kind', ['bottleneck, grouped', 'v2 basic', pytest.param('octave', marks=pytest.mark.slow),
                                  'inverted v3', 'ghost'])
def test_block_with_remat(kind):
    """The same masks, backwards too; finite gradients."""
    x = jnp.sin(jnp.arange(4.0 * 6 * 6 * 8)).reshape(4, 6, 6, 8)
    x = (x, x[:, ::2, ::2]) if kind.startswith('octave') else x
    rates = {'train': True, 'drop_path_rate': 0.5, 'drop_block_rate': 0.3}
    plain, remat = (layers.block(KINDS[kind])(layers=layers, name='block')
                    for layers in (Layers(**rates), Layers(**rates, remat=True)))
    variables = filled(jax.eval_shape(plain.init, {'params': jax.random.key(0), **keys()}, x))
    undropped = filled(jax.eval_shape(KINDS[kind](layers=Layers(train=True)).init, jax.random.key(0), x))
    assert flat(variables).keys() == flat(undropped).keys()

    def loss(block, params):
        y, _ = block.apply({**variables, 'params': params}, x, mutable=['batch_stats'], rngs=keys())
        return sum(jnp.sin(leaf).sum() for leaf in jax.tree.leaves(y))

    def both(params):
        return [jax.value_and_grad(partial(loss, block))(params) for block in (plain, remat)]

    program = jax.jit(both).lower(variables['params'])
    assert 'select_and_scatter' not in program.as_text()
    one, other = program.compile()(variables['params'])
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(one))
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-4), other, one)


def small(**options):
    """Two blocks that join, and dropout before the classifier."""
    row = (3, 16, 16, False, True, 1)
    return MobileNetV3(rows=(row, row), hidden=8, num_classes=4, **{'dropout': 0.0} | options)


def answers(model):
    """rngs -> logits in training, at variables that drops do not change."""
    images = jnp.sin(jnp.arange(8.0 * 8 * 8 * 3)).reshape(8, 8, 8, 3)
    variables = filled(jax.eval_shape(model.init, jax.random.key(0), images))
    return jax.jit(lambda rngs: model.apply(variables, images, **TRAINED, rngs=rngs)[0])


@pytest.mark.parametrize('drawn', [('dropout',), ('drop_path',), ('drop_block',),
                                   ('dropout', 'drop_path', 'drop_block')])
def test_each_draws_from_its_own_stream(drawn):
    answer = answers(small(**dict.fromkeys(drawn, 0.4)))
    before = answer(keys())
    for name, key in keys(1).items():
        assert np.array_equal(answer({**keys(), name: key}), before) == (name not in drawn)


def test_dropout_draws_the_same_beside_them():
    """Rates so low that nothing is dropped leave the answer as it is."""
    one, other = (answers(small(dropout=0.4, drop_path=rate, drop_block=rate))(keys()) for rate in (0.0, 1e-9))
    np.testing.assert_allclose(other, one, rtol=1e-5)


def test_train_step_on_two_devices():
    run = Run(small(drop_path=0.5, drop_block=0.3, remat=True), devices=2, accumulation=2, steps=8)
    assert np.isfinite(run.step(batch())['loss'])


@pytest.mark.parametrize('name', ['resnet18', 'resnet18v2', *(
    pytest.param(name, marks=pytest.mark.slow) for name in ('oct_resnet50', 'regnetx_002'))])
def test_off_and_in_evaluation_nothing_changes(name):
    on = {'drop_path': 0.3, 'drop_block': 0.3}
    evaluated, variables = program(name)
    assert program(name, **on) == (evaluated, variables)
    trained, _ = program(name, train=True)
    assert program(name, train=True, **dict.fromkeys(on, 0.0))[0] == trained
    assert 'random' not in trained


@pytest.mark.parametrize('option', ['drop_path', 'drop_block'])
def test_refused(option):
    for rate in (-0.1, 1.0, 2.0):
        with pytest.raises(UserError, match=rf'model\.{option}={rate} must be in \[0, 1\)'):
            models.create('resnet18v2', **{option: rate})
    for name in ('mobilenet_v1', 'vgg11'):
        with pytest.raises(UserError, match=rf'model\.{option}=0\.1 is read by .*, not by {name}'):
            models.create(name, **{option: 0.1})
