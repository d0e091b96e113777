"""A model and its weights in both forms."""

import pytest
from fixtures_weights import random_variables

from imagenet_jax import models, weights


@pytest.fixture(scope='module')
def resnet20():
    """(model, its variables, the same as a state_dict)"""
    model = models.create('resnet20_cifar')
    variables = random_variables(model)
    return model, variables, weights.to_torch(model, variables)
