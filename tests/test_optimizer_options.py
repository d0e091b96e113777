"""What the section `optimizer` takes, and what it says of the rest."""

import pytest

from imagenet_jax.errors import UserError
from imagenet_jax.optim import OPTIMIZERS
from imagenet_jax.options import create


@pytest.mark.parametrize(('options', 'message'), [
    ({'name': 'sdg'}, r"optimizer\.name 'sdg'; did you mean sgd"),
    ({'momentum': 1.5}, r'optimizer\.momentum=1\.5 must be in \[0, 1\)'),
    ({'weight_decay': -1.0}, r'optimizer\.weight_decay=-1\.0 must be in 0'),
    ({'nesterov': 1}, r'optimizer\.nesterov=1 must be True or False'),
    ({'momentun': 0.9}, 'did you mean momentum'),
    ({'clip_norm': -1.0}, r'optimizer\.clip_norm=-1\.0 must be in 0'),
    ({'clip_adaptive': -0.1}, r'optimizer\.clip_adaptive=-0\.1 must be in 0'),
    ({'beta1': 0.9}, r'optimizer\.beta1=0\.9 is read by config\.optimizer\.name=adam or adamw or lamb, not by sgd'),
    ({'name': 'adam', 'beta1': 1.0}, r'optimizer\.beta1=1\.0 must be in \[0, 1\)'),
    ({'name': 'adamw', 'beta2': -0.5}, r'optimizer\.beta2=-0\.5 must be in \[0, 1\)'),
    ({'name': 'lamb', 'epsilon': 0.0}, r'optimizer\.epsilon=0\.0 must be above 0'),
    ({'name': 'rmsprop', 'rho': 1.0}, r'optimizer\.rho=1\.0 must be in \[0, 1\)'),
    ({'name': 'rmsprop', 'epsilon': -1.0}, r'optimizer\.epsilon=-1\.0 must be above 0'),
    ({'name': 'lars', 'trust_coefficient': 0.0}, r'optimizer\.trust_coefficient=0\.0 must be above 0')])
def test_refused_optimizer(options, message):
    with pytest.raises(UserError, match=message):
        create(OPTIMIZERS, {'name': 'sgd', **options}, 'config.optimizer')
