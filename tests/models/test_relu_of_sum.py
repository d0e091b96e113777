"""The end of a residual block, which a CPU's program computes once."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from fixtures_models import shapes

from imagenet_jax import models
from imagenet_jax.models.layers.activations import relu_of_sum

pytestmark = pytest.mark.numerics


def evaluation(name, **options):
    """(the model's evaluation, its variables' shapes, its images' shape)."""
    model = models.create(name, num_classes=10, dtype='float32', **options)
    variables, _ = shapes(model, train=False)
    images = jax.ShapeDtypeStruct((2, 32, 32, 3), jnp.float32)
    return jax.jit(lambda variables, x: model.apply(variables, x, train=False)), variables, images


def most_read(text):
    """How many arrays the kernel reads that reads most of them."""
    kernels = re.findall(r' fusion\((.*?)\), kind', text)
    return max(len(re.findall('%', kernel)) for kernel in kernels)


@pytest.mark.parametrize('names', [('resnet20_cifar', 'resnet32_cifar'), ('seresnet18', 'seresnet34')])
def test_a_kernel_reads_no_more_in_a_deeper_model(names):
    """It would, if the last sum of a stage were computed from the maps of all its blocks."""
    few, many = (most_read(function.lower(*shapes).compile().as_text()) for function, *shapes in map(evaluation, names))
    assert few == many


@pytest.mark.parametrize(('name', 'options'), [
    ('resnet18', {}), ('resnet20_cifar', {'squeeze_excite': True}), ('oct_resnet50', {})])
def test_a_gpus_program_has_the_maximum(name, options):
    function, *shapes = evaluation(name, **options)
    traced = function.trace(*shapes)
    compares = [re.search('stablehlo.compare +LE', traced.lower(lowering_platforms=(platform,)).as_text())
                for platform in ('cpu', 'cuda')]
    assert compares[0] and not compares[1]


def test_it_is_relu():
    x = jnp.array([-jnp.inf, -1.5, -0.0, 0.0, 2.5, jnp.inf, jnp.nan])
    np.testing.assert_array_equal(jax.jit(relu_of_sum)(x), jax.nn.relu(x))
    gradients = [jax.jit(jax.grad(lambda x, act=act: act(x).sum()))(x[:-1]) for act in (relu_of_sum, jax.nn.relu)]
    np.testing.assert_array_equal(*gradients)
    half = x.astype(jnp.bfloat16)
    assert relu_of_sum(half).dtype == jnp.bfloat16
