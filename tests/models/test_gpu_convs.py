"""The forms that convolutions take on GPUs, computed here on a CPU; that they are taken there, and nowhere else."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from imagenet_jax import models
from imagenet_jax.models import summary
from imagenet_jax.models.layers import gpu_convs

pytestmark = pytest.mark.numerics


def case(side, kernel, stride, padding, channels, features, groups=1, dtype=np.float32):
    """(x, kernel, strides, padding, options) of a convolution, drawn."""
    random = np.random.default_rng(side + kernel)
    x = random.normal(size=(2, side, side, channels)).astype(dtype)
    weights = random.normal(size=(kernel, kernel, channels // groups, features)).astype(dtype)
    padding = [padding if isinstance(padding, tuple) else (padding, padding)] * 2
    layout = lax.conv_dimension_numbers(x.shape, weights.shape, ('NHWC', 'HWIO', 'NHWC'))
    return x, weights, (stride, stride), padding, {
        'lhs_dilation': (1, 1), 'rhs_dilation': (1, 1), 'dimension_numbers': layout, 'feature_group_count': groups,
        'precision': None}


def chosen(x, kernel, strides, padding, options):
    half = (jnp.asarray(a, jnp.bfloat16) for a in (x, kernel))
    return gpu_convs._form(*half, strides, padding, options)


TAKEN = [case(32, 7, 2, 3, 3, 8), case(32, 3, 2, 1, 3, 8), case(32, 11, 4, 2, 3, 8), case(30, 5, 3, 2, 1, 4),
         case(28, 7, 2, 2, 3, 8), case(32, 4, 2, (0, 1), 3, 8), case(24, 6, 4, (3, 0), 4, 8),
         case(8, 3, 1, 1, 128, 128, 32), case(8, 3, 2, 1, 64, 64, 8), case(9, 3, 2, 1, 40, 40, 10),
         case(8, 1, 1, 0, 16, 32, 4)]
LEFT = [case(35, 3, 2, 1, 3, 8), case(32, 2, 2, 0, 3, 8), case(32, 3, 1, 1, 3, 8), case(32, 3, 2, 1, 8, 8),
        case(8, 3, 1, 1, 64, 64, 4), case(8, 3, 1, 1, 16, 16, 16), case(9, 3, 2, 1, 24, 24, 3)]


@pytest.mark.parametrize('given', TAKEN)
def test_a_form_is_the_same_convolution(given):
    x, kernel, strides, padding, options = given
    form = chosen(*given)
    plain = partial(lax.conv_general_dilated, window_strides=strides, padding=padding, **options)
    (ours, pull), (right, pull_right) = (jax.vjp(f, x, kernel) for f in (form, plain))
    for a, b in zip((ours, *pull(right)), (right, *pull_right(right)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=2e-6 * np.abs(b).max())


@pytest.mark.parametrize('given', LEFT)
def test_others_stay_as_they_are(given):
    assert chosen(*given) is None


def test_single_precision_stays_as_it_is():
    assert all(gpu_convs._form(*given) is None for given in TAKEN)


@pytest.mark.parametrize(('name', 'written', 'there'), [
    ('resnet18', 'tensor<7x7x3x64xbf16>', 'tensor<4x4x16x64xbf16>'),
    ('resnext50_32x4d', 'feature_group_count = 32', 'feature_group_count = 2 ')])
def test_gpus_alone_get_them(name, written, there):
    """In the program that XLA is given, of a whole model."""
    model = models.create(name, dtype='bfloat16')
    images = jax.ShapeDtypeStruct((2, 64, 64, 3), jnp.float32)
    variables = jax.eval_shape(partial(model.init, train=False), jax.random.key(0), images)
    traced = jax.jit(partial(model.apply, train=False)).trace(variables, images)
    text = {platform: [line for line in traced.lower(lowering_platforms=(platform,)).as_text().splitlines()
                       if 'stablehlo.convolution' in line] for platform in ('cpu', 'cuda')}
    assert len(text['cpu']) == len(text['cuda'])
    assert any(written in line for line in text['cpu']) and not any(there in line for line in text['cpu'])
    assert any(there in line for line in text['cuda'])


def test_multiply_adds_are_of_what_is_written():
    half, single = (summary.total(summary.layers(models.create('resnext50_32x4d', dtype=dtype), 64))
                    for dtype in ('bfloat16', 'float32'))
    assert half == single
