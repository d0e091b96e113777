"""BatchNorm with what follows it, and the gradient of its own that it has, against Flax's and what JAX derives."""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from imagenet_jax import step
from imagenet_jax.models.layers import ACTIVATIONS, DATA_AXIS, FROZEN, BatchNorm, Layers, batch_norm

pytestmark = pytest.mark.numerics
ACTS = [None, *ACTIVATIONS]


class Plain(nn.Module):
    """The same by Flax's module and JAX's derivative."""
    act: str | None = None
    axis_name: str | None = None
    dtype: jnp.dtype = jnp.float32
    both: bool = False  # the shortcut has a norm too

    @nn.compact
    def __call__(self, x, shortcut=None):
        norm = partial(nn.BatchNorm, use_running_average=False, momentum=0.9, axis_name=self.axis_name,
                       dtype=self.dtype)
        y, shortcut = norm(name='bn')(x), norm(name='projected')(shortcut) if self.both else shortcut
        y = y if shortcut is None else y + shortcut
        return ACTIVATIONS[self.act](y) if self.act else y


class Ours(nn.Module):
    act: str | None = None
    axis_name: str | None = None
    dtype: jnp.dtype = jnp.float32
    both: bool = False

    @nn.compact
    def __call__(self, x, shortcut=None):
        norm = partial(BatchNorm, train=True, axis_name=self.axis_name, dtype=self.dtype)
        shortcut = norm(later=True, name='projected')(shortcut) if self.both else shortcut
        return norm(act=self.act and ACTIVATIONS[self.act], name='bn')(x, shortcut)


def drawn(shape, seed, dtype=np.float32):
    random = np.random.default_rng(seed)
    return (random.normal(size=shape) * random.uniform(0.5, 2, shape[-1]) + random.normal(size=shape[-1])).astype(dtype)


def variables(channels, both=False):
    norms = ('bn', 'projected') if both else ('bn',)
    stats = {'mean': np.zeros(channels, np.float32), 'var': np.ones(channels, np.float32)}
    return {'params': {norm: {name: drawn((channels,), len(norm) + seed) for seed, name in
                              enumerate(('scale', 'bias'), 3)} for norm in norms},
            'batch_stats': {norm: stats for norm in norms}}


def with_gradients(module, x, shortcut, weights, given):
    """(answer, statistics, gradients of the parameters, of the map and of the shortcut)."""
    def loss(params, x, shortcut):
        y, updated = module.apply(given | {'params': params}, x, shortcut, mutable=['batch_stats'])
        return (y.astype(weights.dtype) * weights).sum(), (y, updated)
    which = (0, 1) if shortcut is None else (0, 1, 2)
    gradients, (y, updated) = jax.grad(loss, which, has_aux=True)(given['params'], x, shortcut)
    return y, updated, gradients


def close(a, b, **tolerance):
    jax.tree.map(partial(np.testing.assert_allclose, **tolerance), a, b)


@pytest.mark.parametrize('act', ACTS)
@pytest.mark.parametrize('shape', [(4, 5, 6, 8), (16, 8), (3, 1, 1, 8)])
def test_it_is_flaxs(act, shape):
    arguments = drawn(shape, 0), None, drawn(shape, 1), variables(shape[-1])
    for ours, theirs in zip(*(jax.jit(partial(with_gradients, kind(act)))(*arguments) for kind in (Ours, Plain)),
                            strict=True):
        close(ours, theirs, rtol=2e-4, atol=2e-5)


def test_with_a_shortcut_it_is_the_end_of_a_block():
    shape = (4, 5, 6, 8)
    arguments = drawn(shape, 0), drawn(shape, 2), drawn(shape, 1), variables(8)
    ours, theirs = (jax.jit(partial(with_gradients, kind('relu')))(*arguments) for kind in (Ours, Plain))
    close(ours, theirs, rtol=2e-4, atol=2e-5)
    assert len(ours[2]) == 3 and np.any(ours[2][2] == 0) and np.any(ours[2][2] != 0)


def test_with_a_shortcut_that_ends_in_a_norm_it_is_both_norms():
    shape = (4, 5, 6, 8)
    arguments = drawn(shape, 0), drawn(shape, 2), drawn(shape, 1), variables(8, both=True)
    ours, theirs = (jax.jit(partial(with_gradients, kind('relu', both=True)))(*arguments) for kind in (Ours, Plain))
    close(ours, theirs, rtol=2e-4, atol=2e-5)
    assert len(ours[2]) == 3 and set(ours[1]['batch_stats']) == {'bn', 'projected'}


@pytest.mark.parametrize('frozen', ['bn', 'projected'])
def test_of_two_norms_one_may_be_by_its_running_statistics(frozen):
    shape, given = (4, 5, 6, 8), variables(8, both=True) | {FROZEN: {frozen: {'norm': ()}}}
    other, = {'bn', 'projected'} - {frozen}
    y, updated, _ = with_gradients(Ours('relu', both=True), drawn(shape, 0), drawn(shape, 2), drawn(shape, 1), given)
    moved = {name for name, stats in updated['batch_stats'].items() if np.any(stats['mean'] != 0)}
    assert moved == {other}
    parts = {'bn': drawn(shape, 0), 'projected': drawn(shape, 2)}
    for name, x in parts.items():
        x = x / np.sqrt(1 + 1e-5) if name == frozen else (x - x.mean((0, 1, 2))) / np.sqrt(x.var((0, 1, 2)) + 1e-5)
        parts[name] = x * given['params'][name]['scale'] + given['params'][name]['bias']
    np.testing.assert_allclose(y, np.maximum(0, sum(parts.values())), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(('shortcut', 'both'), [(False, False), (True, False), (True, True)])
def test_over_devices_it_is_of_the_whole_batch(shortcut, both):
    """Of axis_name: statistics and gradients of eight devices' images together."""
    shape, mesh, given = (16, 3, 3, 4), step.make_mesh(), variables(4, both)
    x, added, weights = drawn(shape, 0), drawn(shape, 2) if shortcut else None, drawn(shape, 1)
    whole = with_gradients(Ours('relu', both=both), x, added, weights, given)

    def part(x, added, weights):
        params = jax.lax.pcast(given, DATA_AXIS, to='varying')
        module = Ours('relu', DATA_AXIS, both=both)
        y, updated, (of_params, *of_maps) = with_gradients(module, x, added, weights, params)
        return y, jax.lax.pmean(updated, DATA_AXIS), jax.lax.psum(of_params, DATA_AXIS), of_maps
    split = jax.shard_map(part, mesh=mesh, in_specs=P(DATA_AXIS), out_specs=(P(DATA_AXIS), P(), P(), P(DATA_AXIS)))
    y, updated, of_params, of_maps = jax.jit(split)(x, added, weights)
    close((y, updated, (of_params, *of_maps)), whole, rtol=2e-4, atol=2e-5)


@pytest.mark.parametrize('dtype', ['bfloat16', 'float16'])
@pytest.mark.parametrize(('shortcut', 'both'), [(False, False), (True, False), (True, True)])
def test_in_half_precision_it_errs_no_more_than_what_is_derived(dtype, shortcut, both):
    """Against float64's gradients, by the root of the mean square."""
    shape = (32, 6, 6, 16)
    x, added, weights = (np.asarray(jnp.asarray(drawn(shape, seed), dtype).astype(np.float32)) for seed in (0, 2, 1))
    added = added if shortcut else None

    def gradients(kind, dtype):
        half = partial(jnp.asarray, dtype=dtype)
        _, _, (_, *of_maps) = with_gradients(kind('relu', dtype=jnp.dtype(dtype), both=both), half(x),
                                             None if added is None else half(added), weights, variables(16, both))
        return [np.asarray(g, np.float64) for g in of_maps]
    with jax.enable_x64(True):
        arguments = jax.tree.map(np.float64, (x, added, weights, variables(16, both)))
        right = [np.asarray(g) for g in with_gradients(Plain('relu', dtype=jnp.float64, both=both), *arguments)[2][1:]]
    for ours, derived, g in zip(gradients(Ours, dtype), gradients(Plain, dtype), right, strict=True):
        errors = [np.sqrt(np.mean((found - g)**2)) for found in (ours, derived)]
        assert errors[0] <= errors[1] * 1.001
    assert errors[1] > 0 or shortcut  # whose gradient is a selection, and exact


@pytest.mark.parametrize('shape', [(20, 8), (4, 5, 6, 8), (5, 30, 31, 8)])  # the last of more rows than one step takes
@pytest.mark.parametrize('count', [1, 2])
def test_sums_are_the_same_in_every_way(shape, count):
    """Of a map and its square, and of a gradient and it times one or two normalised maps, far from 0."""
    g, *maps = (jnp.asarray(drawn(shape, seed)) + 3 * seed for seed in range(count + 1))
    means, deviations = zip(*((x.reshape(-1, 8).mean(0), 1 / x.reshape(-1, 8).std(0)) for x in maps), strict=True)

    def expected(*terms):
        return tuple(np.asarray(x, np.float64).reshape(-1, 8).sum(0) for x in terms)
    for way in batch_norm._sums_on_gpu, batch_norm._plain_sums, batch_norm._sums:
        found = jax.jit(lambda *maps, way=way: way(maps))(*maps, g)
        close(tuple(found), expected(*maps, g), rtol=1e-4, atol=1e-3)
    products = expected(g, *(np.float64(g) * (np.float64(x) - mean) * deviation for x, mean, deviation in
                             zip(maps, means, deviations, strict=True)))
    for way in batch_norm._gradient_sums_on_gpu, batch_norm._gradient_sums_on_cpu, batch_norm._gradient_sums:
        found = jax.jit(lambda *given, way=way: way(*given))(g, tuple(maps), means, deviations)
        close(tuple(found), products, rtol=1e-4, atol=1e-3)


def test_the_gradient_keeps_the_map_and_of_a_block_the_answer():
    x, shortcut = drawn((4, 5, 6, 8), 0), drawn((4, 5, 6, 8), 2)

    def kept(*maps, both=False):
        module, given = Ours('relu', both=both), variables(8, both)
        _, pull = jax.vjp(lambda *maps: module.apply(given, *maps, mutable=['batch_stats'])[0], *maps)
        return sum(leaf.size == x.size for leaf in jax.tree.leaves(pull))
    assert (kept(x), kept(x, shortcut), kept(x, shortcut, both=True)) == (1, 2, 3)


def test_layers_choose_it():
    """A norm, an activation and a shortcut are one module's, but where something drops parts in between."""
    class Block(nn.Module):
        layers: Layers

        @nn.compact
        def __call__(self, x):
            return self.layers.norm_join_act(x, self.layers.norm_act(x, 'bn1', drops=True), 'bn2')

    def calls(**options):
        seen = []

        def note(call, args, kwargs, context):
            if isinstance(context.module, BatchNorm) and context.method_name == '__call__':
                seen.append((context.module.act is not None, len(args)))
            return call(*args, **kwargs)
        layers = Layers(train=True, **options)
        keys = {name: jax.random.key(i) for i, name in enumerate(('params', 'drop_path', 'drop_block'))}
        with nn.intercept_methods(note):
            jax.eval_shape(Block(layers).init, keys, drawn((4, 9, 9, 8), 0))
        return seen
    assert calls() == calls(norm_kind='sync') == [(True, 1), (True, 2)]
    assert calls(drop_path_rate=0.1) == [(True, 1), (False, 1)]
    assert calls(drop_block_rate=0.1) == [(False, 1), (True, 2)]
    assert calls(act_kind='swish') == [(True, 1), (False, 1)]
    assert calls(norm_kind='group') == []
