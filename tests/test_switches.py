"""Every two switches beside each other: three steps of a small model, and the same from a checkpoint after the first.

What each switch computes has its own tests; here they have to live together, and to resume bit for bit.
"""

import itertools
from functools import partial

import covering
import jax
import numpy as np
import pytest
from fixtures_images import scene
from PIL import Image

from configs import common
from imagenet_jax import models
from imagenet_jax.checkpoint import Checkpoints
from imagenet_jax.errors import UserError
from imagenet_jax.experiment import Experiment
from imagenet_jax.models import resnet, resnet_v2

# Switch -> its values, each the options that it sets; the first is off.
SWITCHES = {
    'model': {'v1': {}, 'v2': {'model.name': 'smallv2'}},
    'act': {'': {}, 'swish': {'model.act': 'swish'}, 'relu6': {'model.act': 'relu6'}},
    'norm': {'': {}, **{
        name: {'model.norm': name} for name in ('sync', 'group', 'switchable', 'evonorm_b0', 'frozen')}},
    'dtype': {'float32': {}, 'bfloat16': {'model.dtype': 'bfloat16'}, 'float16': {'model.dtype': 'float16'}},
    'zero_gamma': {'': {}, 'on': {'model.zero_gamma': True}},
    'dropout': {'': {}, 'on': {'model.dropout': 0.2}},
    'drop_path': {'': {}, 'on': {'model.drop_path': 0.3}},
    'drop_block': {'': {}, 'on': {'model.drop_block': 0.3}},
    'remat': {'': {}, 'on': {'model.remat': True}},
    'squeeze_excite': {'': {}, 'on': {'model.squeeze_excite': True}},
    'stem': {'': {}, 'deep': {'model.stem': 'deep'}},
    'shortcut': {'': {}, 'avgpool': {'model.shortcut': 'avgpool'}},
    'strides': {'': {}, 'antialias': {'model.antialias': True}, 'lip': {'model.lip': True}},
    'deformable': {'': {}, '1': {'model.deformable': 1}},
    'optimizer': {name: {'optimizer.name': name} for name in ('sgd', 'adam', 'adamw', 'rmsprop', 'lars', 'lamb')},
    'decay': {'': {}, 'kernels': {'optimizer.decay_bias_and_norm': False}},
    'centralize': {'': {}, 'on': {'optimizer.centralize': True}},
    'clip': {'': {}, 'norm': {'optimizer.clip_norm': 1.0}, 'adaptive': {'optimizer.clip_adaptive': 0.01}},
    'lookahead': {'': {}, 'on': {'lookahead.steps': 2}},
    'ema': {'': {}, 'on': {'ema_decay': 0.99}},
    'accumulation': {'1': {}, '2': {'accumulation': 2}},
    'schedule': {
        'cosine': {}, 'cycles': {'schedule.cycles': 2}, 'step': {'schedule.name': 'step', 'schedule.every_epochs': 0.5},
        'multistep': {'schedule.name': 'multistep', 'schedule.milestones': (1.0,)},
        'linear': {'schedule.name': 'linear'}, 'exponential': {'schedule.name': 'exponential', 'schedule.factor': 0.9},
        'polynomial': {'schedule.name': 'polynomial', 'schedule.power': 0.5}, 'plateau': {'schedule.name': 'plateau'}},
    'loss': {'softmax': {}, 'bce': {'loss.name': 'bce', 'loss.threshold': 0.2}},
    'smoothing': {'': {}, 'all': {'loss.smoothing': 0.1},
                  'others': {'loss.smoothing': 0.1, 'loss.exclude_target': True}},
    'mix': {'': {}, 'mixup': {'mix.mixup': 0.4}, 'cutmix': {'mix.cutmix': 1.0, 'mix.probability': 0.7},
            'both': {'mix.mixup': 0.4, 'mix.cutmix': 1.0, 'mix.off_epochs': 0.5}},
    'erase': {'': {}, 'random': {'erase.name': 'random', 'erase.fill': 'noise'},
              'cutout': {'erase.name': 'cutout', 'erase.side': 4, 'erase.off_epochs': 0.5}},
    'views': {'': {}, '3': {'augment.views': 3, 'loss.consistency': 1.0}},
    'crop': {'': {}, **{name: {'augment.crop': name} for name in ('pad', 'none')},
             'shorter_side': {'augment.crop': 'shorter_side', 'augment.shorter': (18, 24)}},
    'policy': {'': {}, 'autoaugment': {'policy.name': 'autoaugment', 'policy.dataset': 'cifar10'}, **{
        name: {'policy.name': name} for name in ('randaugment', 'trivialaugment', 'augmix', 'three_augment')}},
    'jitter': {'': {}, 'on': {'augment.color_jitter': 0.4, 'augment.hue': 0.1, 'augment.rotation': 10.0,
                              'augment.lighting': 0.1, 'augment.hsv': (0.8, 1.25), 'augment.grey': 0.2}},
    'repeats': {'': {}, '2': {'augment.repeats': 2}},
    'ramp': {'': {}, 'on': {'augment.first_size': 8, 'augment.ramp_epochs': (0.0, 1.0)}},
}
# What cannot be together, each refused with a sentence.
APART = [
    {'norm': 'evonorm_b0', 'act': 'swish'}, {'norm': 'evonorm_b0', 'act': 'relu6'},
    {'norm': 'frozen', 'zero_gamma': 'on'}, {'model': 'v2', 'zero_gamma': 'on'}, {'model': 'v2', 'stem': 'deep'},
    {'model': 'v2', 'strides': 'antialias'}, {'strides': 'lip', 'shortcut': 'avgpool'},
    *({'views': '3', 'mix': mix} for mix in ('mixup', 'cutmix', 'both')),
    *({'views': '3', 'erase': erase} for erase in ('random', 'cutout')), {'ramp': 'on', 'crop': 'shorter_side'}]


def allowed(row: dict) -> bool:
    return not any(row.items() >= apart.items() for apart in APART)


ROWS = covering.rows({name: tuple(values) for name, values in SWITCHES.items()}, allowed)


@pytest.fixture(autouse=True)
def small_models(monkeypatch):
    """Two stages of one block, which take every switch that ResNets do."""
    monkeypatch.setitem(models._REGISTRY, 'small', partial(resnet.ResNet, depths=(1, 1)))
    monkeypatch.setitem(models._REGISTRY, 'smallv2', partial(resnet_v2.ResNetV2, block=resnet_v2.Basic, depths=(1, 1)))


@pytest.fixture(scope='module')
def images(tmp_path_factory):
    """32 images to train on, 16 to evaluate on, of two classes."""
    root = tmp_path_factory.mktemp('images')
    for split, count in (('train', 32), ('val', 16)):
        for i in range(count):
            path = root / split / 'ab'[i % 2] / f'{i}.png'
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.roll(scene(24, 22), i, axis=1)).save(path)
    return root


def config_of(row, images):
    config = common.get_config()
    config.model.name, config.model.num_classes, config.model.dtype = 'small', 2, 'float32'
    config.data.path, config.data.threads = str(images), 1
    config.augment.size, config.eval.size, config.eval.resize = 16, 16, 16
    config.batch_size, config.eval_batch_size, config.steps = 16, 16, 3
    config.schedule.warmup_epochs, config.optimizer.learning_rate = 0.5, 0.01
    config.compilation_cache = False
    for switch, value in row.items():
        config.update_from_flattened_dict(SWITCHES[switch][value])
    return config


def test_rows_have_every_two_values_together():
    seen = {pair for row in ROWS for pair in itertools.combinations(row.items(), 2)}
    for (one, left), (other, right) in itertools.combinations(SWITCHES.items(), 2):
        assert {((one, a), (other, b)) for a in left for b in right if allowed({one: a, other: b})} <= seen
    assert all(map(allowed, ROWS))


@pytest.mark.parametrize('apart', APART, ids=str)
def test_what_cannot_be_together_is_refused(apart, images):
    """Though each is taken alone."""
    for switch, value in apart.items():
        Experiment(config_of({switch: value}, images))
    with pytest.raises(UserError):
        Experiment(config_of(apart, images))


@pytest.mark.slow
@pytest.mark.parametrize('row', ROWS, ids=range(len(ROWS)))
def test_switches_live_together_and_resume(row, images, tmp_path):
    experiment = Experiment(config_of(row, images))

    def trained(state, start, stop):
        batches = experiment.train_batches(start)
        try:
            for _ in range(start, stop):
                state, metrics = experiment.train_step(state, next(batches)[1])
                assert np.isfinite(metrics['loss'])
        finally:
            batches.close()
        return state
    first = trained(experiment.initial_state(), 0, 1)
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(first, None)
    whole = jax.device_get(trained(first, 1, 3))
    restored = checkpoints.restore(experiment.abstract_state(), experiment.train_step.beside)
    resumed = jax.device_get(trained(restored, 1, 3))
    checkpoints.close()
    jax.tree.map(np.testing.assert_array_equal, whole, resumed)
    assert whole.step == 3
