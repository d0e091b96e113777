"""Deformable convolution: numbers against PyTorch, memory of its gradient, and where a model has it."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from fixtures_models import flat, shapes
from fixtures_step import Run, batch

from imagenet_jax import models
from imagenet_jax.errors import UserError
from imagenet_jax.models.layers import Layers
from imagenet_jax.models.layers.deformable import deformable_conv

pytestmark = pytest.mark.numerics


def inputs(size, channels, features, stride=1, groups=1, spread=1.5):
    """x, offset, mask and kernel, and the gradient of the answer."""
    rng = np.random.default_rng(0)
    height, width = (-(-side // stride) for side in size)
    given = [(2, *size, channels), (2, height, width, 9, 2), (3, 3, channels // groups, features),
             (2, height, width, features)]
    x, offset, kernel, g = (rng.normal(size=shape).astype(np.float32) for shape in given)
    mask = rng.uniform(size=(2, height, width, 9)).astype(np.float32)
    return tuple(map(jnp.asarray, (x, spread * offset, mask, kernel))), jnp.asarray(g)


@partial(jax.jit, static_argnums=(2, 3))
def with_gradients(given, g, stride=1, groups=1):
    answer, pull = jax.vjp(lambda *given: deformable_conv(*given, stride, groups), *given)
    return answer, *pull(g)


def in_pytorch(torch, given, g, stride, groups):
    """The answer and the gradients, in float64: each tap by grid_sample, whose grid is (x, y) in [-1, 1]."""
    x, offset, mask, kernel = (torch.tensor(np.asarray(value, float), requires_grad=True) for value in given)
    height, width = x.shape[1:3]
    rows, columns = torch.meshgrid(*(torch.arange(side) * stride for side in mask.shape[1:3]), indexing='ij')
    seen = []
    for tap in range(9):
        y = rows + tap // 3 - 1 + offset[..., tap, 0]
        x_ = columns + tap % 3 - 1 + offset[..., tap, 1]
        grid = torch.stack([2 * x_ / (width - 1) - 1, 2 * y / (height - 1) - 1], -1)
        sampled = torch.nn.functional.grid_sample(x.permute(0, 3, 1, 2), grid, align_corners=True)
        seen.append(sampled.permute(0, 2, 3, 1) * mask[..., tap, None])
    seen = torch.stack(seen, 3).reshape(*mask.shape, groups, -1)
    answer = torch.einsum('nhwtgc,tcgf->nhwgf', seen, kernel.reshape(9, kernel.shape[2], groups, -1)).flatten(3)
    answer.backward(torch.tensor(np.asarray(g, float)))
    return [answer.detach(), x.grad, offset.grad, mask.grad, kernel.grad]


@pytest.mark.parametrize(('size', 'stride', 'groups', 'spread'), [((7, 6), 1, 1, 1.5), ((8, 7), 2, 2, 3.0)])
def test_it_is_pytorchs_and_so_are_its_gradients(size, stride, groups, spread):
    torch = pytest.importorskip('torch')
    given, g = inputs(size, 4, 6, stride, groups, spread)
    expected = in_pytorch(torch, given, g, stride, groups)
    for ours, theirs in zip(with_gradients(given, g, stride, groups), expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=5e-5)


def test_without_offsets_it_is_the_plain_convolution_times_the_mask():
    """Offsets of exactly 0, at which it starts: their gradient is the slope down and to the right, at the edge too."""
    (x, offset, mask, kernel), g = inputs((7, 6), 4, 6)
    given = x, 0 * offset, jnp.full_like(mask, 0.5), kernel
    y, _, of_offset, _, _ = with_gradients(given, g)
    plain = Layers().conv(6, 3, name='conv').apply({'params': {'kernel': kernel}}, x)
    np.testing.assert_allclose(y, plain / 2, rtol=1e-4, atol=1e-5)
    step = 1e-2  # within a pixel it is bilinear, so that a difference is exact but for rounding
    for axis in (0, 1):
        moved, *_ = with_gradients((x, given[1].at[..., axis].set(step), *given[2:]), g)
        assert of_offset[..., axis].sum() == pytest.approx(float((g * (moved - y)).sum() / step), rel=1e-2)


def test_layer_starts_as_half_a_convolution():
    x = jax.random.normal(jax.random.key(0), (2, 7, 7, 4))
    layer = Layers(deforms=True).conv(6, 3, 2, groups=2, name='conv')
    y, variables = jax.jit(layer.init_with_output)(jax.random.key(1), x)
    params = variables['params']
    plain = Layers().conv(6, 3, 2, groups=2, name='conv').apply({'params': {'kernel': params['kernel']}}, x)
    np.testing.assert_allclose(y, plain / 2, rtol=1e-4, atol=1e-5)
    assert {path: leaf.shape for path, leaf in flat(params).items()} == {
        'kernel': (3, 3, 2, 6), 'conv_offset/kernel': (3, 3, 4, 27), 'conv_offset/bias': (27,)}


def test_channels_of_offsets_are_pytorchs():
    """Down and right of tap 0, of tap 1, ...; then the masks."""
    x = jnp.arange(25.0).reshape(1, 5, 5, 1)
    bias = jnp.zeros(27).at[8].set(1.0).at[9].set(2.0).at[18:].set(-30.0).at[22].set(30.0)  # of the middle tap
    params = {'kernel': jnp.ones((3, 3, 1, 1)), 'conv_offset': {'kernel': jnp.zeros((3, 3, 1, 27)), 'bias': bias}}
    y = jax.jit(Layers(deforms=True).conv(1, 3, name='conv').apply)({'params': params}, x)
    np.testing.assert_allclose(y[0, :4, :3, 0], x[0, 1:, 2:, 0], atol=1e-4)
    assert np.abs(y[0, 4]).max() < 1e-4 and np.abs(y[0, :, 3:]).max() < 1e-4


def test_far_away_is_nothing():
    (x, offset, mask, kernel), g = inputs((7, 6), 4, 6)
    for far in (-1e30, 100.0, 1e30):
        assert not any(value.any() for value in with_gradients((x, jnp.full_like(offset, far), mask, kernel), g))


def test_places_are_exact_in_half_precision():
    """Of columns up to 200 bfloat16 knows every whole one alone."""
    (x, offset, mask, kernel), _ = inputs((3, 200), 8, 8)
    convolve = jax.jit(deformable_conv)
    y = convolve(x, offset, mask, kernel)
    half = convolve(x.astype('bfloat16'), offset, mask, kernel.astype('bfloat16'))
    assert half.dtype == jnp.bfloat16
    assert np.abs(half.astype(np.float32) - y).max() < 0.02 * np.abs(y).max()


def test_gradient_takes_little_memory():
    """What all taps see, at once and in float32, is 9 times the map; plain gradients reserved 11 times that."""
    given, _ = inputs((14, 14), 32, 32)
    program = jax.jit(jax.grad(lambda *given: deformable_conv(*given).sum(), argnums=(0, 1, 2, 3)))
    assert program.lower(*given).compile().memory_analysis().temp_size_in_bytes < 3 * 9 * given[0].nbytes


@pytest.mark.parametrize(('name', 'stages', 'where'), [
    ('resnet18', 2, [f'layer{i}/{j}/conv{k}' for i in (3, 4) for j in (0, 1) for k in (1, 2)]),
    ('resnext50_32x4d', 3, [f'layer{i}/{j}/conv2' for i, n in ((2, 4), (3, 6), (4, 3)) for j in range(n)]),
    ('resnet50v2', 1, [f'stages/3/blocks/{j}/conv2' for j in range(3)])])
def test_place(name, stages, where):
    variables, answer = shapes(models.create(name, deformable=stages), 64)
    found = {path.partition('/conv_offset')[0] for path in flat(variables['params']) if 'conv_offset' in path}
    assert found == set(where) and answer.shape == (2, 1000)
    plain, _ = shapes(models.create(name), 64)
    kept = {path: leaf for path, leaf in flat(variables['params']).items() if 'conv_offset' not in path}
    assert kept == flat(plain['params'])


@pytest.mark.parametrize(('name', 'options', 'message'), [
    ('resnet18', {'deformable': 4}, r'model\.deformable=4 must be from 0 to 3'),
    ('resnet50v2', {'deformable': -1}, r'model\.deformable=-1 must be from 0 to 3'),
    ('resnest50', {'deformable': 1}, r'model\.deformable=1 is read by .*, not by resnest50')])
def test_refused(name, options, message):
    with pytest.raises(UserError, match=message):
        models.create(name, **options)


@pytest.mark.slow
def test_it_trains_on_two_devices():
    """With LIP, rematerialised blocks and dropped paths; every offset gets a gradient."""
    model = models.create('resnet18', num_classes=4, deformable=2, lip=True, remat=True, drop_path=0.1)
    run = Run(model.clone(depths=(1, 1)), devices=2)
    before = flat(run.host().params)
    assert np.isfinite(run.step(batch())['loss'])
    after = flat(run.host().params)
    for path in ('layer1/0/conv1/conv_offset/kernel', 'layer2/0/conv2/conv_offset/bias', 'layer2/0/lip/conv/kernel',
                 'layer2/0/downsample_lip/norm/bias', 'lip/norm/scale'):
        assert np.isfinite(after[path]).all() and not np.array_equal(after[path], before[path]), path
