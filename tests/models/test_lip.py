"""Local importance-based pooling: numbers against formulas and PyTorch, and where a model has it."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from fixtures_models import count, flat, shapes, traced

from imagenet_jax import models
from imagenet_jax.errors import UserError
from imagenet_jax.models.layers import LIP, Layers
from imagenet_jax.models.layers.lip import local_importance_pool

pytestmark = pytest.mark.numerics


@pytest.mark.parametrize('size', [(6, 5), (7, 8)])
def test_pool_is_the_papers_equation(size):
    rng = np.random.default_rng(0)
    x, logits = rng.normal(size=(2, *size, 3)), rng.uniform(0, 12, size=(2, *size, 3))
    y = local_importance_pool(*(jnp.asarray(value, jnp.float32) for value in (x, logits)))
    assert y.shape == (2, -(-size[0] // 2), -(-size[1] // 2), 3)
    for i, j in np.ndindex(y.shape[1:3]):
        window = np.s_[:, max(0, 2 * i - 1):2 * i + 2, max(0, 2 * j - 1):2 * j + 2]
        weight = np.exp(logits[window])
        np.testing.assert_allclose(y[:, i, j], (x[window] * weight).sum((1, 2)) / weight.sum((1, 2)), rtol=2e-4,
                                   atol=1e-5)


@pytest.mark.parametrize('dtype', ['bfloat16', 'float16'])
def test_pool_in_half_precision(dtype):
    """At logits of 12 and values of 2 exp(logit) is past the end of float16."""
    x = jnp.full((1, 4, 4, 1), 2.0, dtype)
    for logit in (0.0, 12.0):
        y, pull = jax.vjp(local_importance_pool, x, jnp.full(x.shape, logit, dtype))
        gradients = pull(jnp.ones_like(y))
        assert {y.dtype, *(leaf.dtype for leaf in gradients)} == {jnp.dtype(dtype)}
        np.testing.assert_allclose(y.astype(np.float32), 2.0, rtol=1e-2)
        np.testing.assert_allclose(gradients[0].astype(np.float32).sum(), y.size, rtol=1e-2)
        assert np.isfinite(gradients[1].astype(np.float32)).all()


def test_layer_is_pytorchs_and_so_are_its_gradients():
    """The authors' simplified form: 3x3 convolution, affine instance norm, 12 times sigmoid."""
    torch = pytest.importorskip('torch')
    rng = np.random.default_rng(0)
    x, kernel = rng.normal(size=(2, 7, 6, 4)), rng.normal(size=(3, 3, 4, 4)) / 6
    scale, bias, g = rng.normal(size=4), rng.normal(size=4), rng.normal(size=(2, 4, 3, 4))
    params = {'conv': {'kernel': kernel}, 'norm': {'scale': scale, 'bias': bias}}
    params, *maps = jax.tree.map(partial(jnp.asarray, dtype=jnp.float32), (params, x, g))

    @jax.jit
    def with_gradients(params, x, g):
        y, pull = jax.vjp(lambda params, x: LIP(3, Layers()).apply({'params': params}, x, x), params, x)
        return y, *pull(g)

    y, of_params, of_x = with_gradients(params, *maps)

    x_, kernel_, scale_, bias_ = (torch.tensor(np.ascontiguousarray(value), requires_grad=True) for value in (
        x.transpose(0, 3, 1, 2), kernel.transpose(3, 2, 0, 1), scale, bias))
    f = torch.nn.functional
    weight = (12 * f.instance_norm(f.conv2d(x_, kernel_, padding=1), weight=scale_, bias=bias_).sigmoid()).exp()
    y_ = f.avg_pool2d(x_ * weight, 3, 2, 1) / f.avg_pool2d(weight, 3, 2, 1)
    y_.backward(torch.tensor(g.transpose(0, 3, 1, 2)))
    close = partial(np.testing.assert_allclose, rtol=1e-3, atol=1e-4)
    close(y, y_.detach().permute(0, 2, 3, 1))
    close(of_x, x_.grad.permute(0, 2, 3, 1))
    close(of_params['conv']['kernel'], kernel_.grad.permute(2, 3, 1, 0))
    close(of_params['norm']['scale'], scale_.grad)
    close(of_params['norm']['bias'], bias_.grad)


def test_layer_starts_as_an_average():
    x = jax.random.normal(jax.random.key(0), (1, 5, 5, 2))
    y, _ = jax.jit(LIP(3, Layers()).init_with_output)(jax.random.key(1), x, x)
    np.testing.assert_allclose(y[0, 0, 0], x[0, :2, :2].mean((0, 1)), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(y[0, 1, 1], x[0, 1:4, 1:4].mean((0, 1)), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(('name', 'blocks', 'millions'), [
    ('resnet50', 'layer{}/0/{}', 23.9),  # as the authors count theirs
    ('resnet18', 'layer{}/0/{}', 11.0), ('resnet50v2', 'stages/{}/blocks/0/{}', 23.9)])
def test_it_stands_for_the_max_pool_and_for_every_stride(name, blocks, millions):
    program = traced(name, 64, lip=True)
    convs = [e.params['window_strides'] for e in program if e.primitive.name == 'conv_general_dilated']
    assert convs.count((2, 2)) == 1  # the stem's
    assert not any(e.primitive.name == 'reduce_window_max' for e in program)
    variables, (_, maps) = shapes(models.create(name, lip=True), 64, features=True)
    assert [m.shape[1] for m in maps.values()] == [16, 8, 4, 2]
    assert round(count(variables) / 1e6, 1) == millions
    stages = (1, 2, 3) if name.endswith('v2') else (2, 3, 4)
    made = {path.rpartition('/')[0].rpartition('/')[0] for path in flat(variables['params']) if '/norm/' in path
            and 'lip' in path}
    assert made == {'lip', *(blocks.format(i, pool) for i in stages for pool in ('lip', 'downsample_lip'))}


@pytest.mark.parametrize(('name', 'options', 'message'), [
    ('resnet50', {'stride_in_1x1': True}, r'model\.lip pools .* model\.stride_in_1x1 has no meaning'),
    ('resnet50v2', {'shortcut': 'avgpool'}, r'model\.lip pools .* model\.shortcut has no meaning'),
    ('resnet50', {'antialias': True}, r'model\.lip pools .* model\.antialias has no meaning'),
    ('resnet20_cifar', {}, r'model\.lip=True is read by .*, not by resnet20_cifar')])
def test_refused(name, options, message):
    with pytest.raises(UserError, match=message):
        models.create(name, lip=True, **options)
