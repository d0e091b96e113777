"""Starting from weights there are, freezing, and learning rates by path."""

import json
import math
import re
import shutil

import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from fixtures_step import assert_trees_equal, batch
from runs import run, saved
from test_options import refused, small

from imagenet_jax import finetune, models, step, weight_files, weights
from imagenet_jax.checkpoint import load_variables, save_variables
from imagenet_jax.errors import UserError
from imagenet_jax.models.resnet_cifar import CifarResNet
from imagenet_jax.optim import SGD
from imagenet_jax.task import Softmax


def flat(tree):
    return flax.traverse_util.flatten_dict(tree, sep='/')


def variables_of(model, seed=0):
    return jax.device_get(jax.jit(lambda: model.init(jax.random.key(seed), np.zeros((1, 32, 32, 3))))())


# --- what is loaded


@pytest.fixture(scope='module')
def given(tmp_path_factory):
    """(model of seven classes, its variables, a run's folder and a file that hold them)."""
    root = tmp_path_factory.mktemp('given')
    model = models.create('resnet8_cifar', num_classes=7)
    variables = variables_of(model)
    save_variables(root / 'run', variables)
    (root / 'run' / 'config.json').write_text('{"model": {"name": "resnet8_cifar", "num_classes": 7}}')
    weight_files.write(root / 'file.safetensors', weights.to_torch(model, variables))
    return model, variables, root / 'run', root / 'file.safetensors'


@pytest.mark.parametrize('kind', ['run', 'file'])
def test_same_classes_load_whole(given, kind):
    model, variables, folder, file = given
    assert_trees_equal(finetune.load(str(folder if kind == 'run' else file), model), variables)


def make_step(model, optimizer=SGD(), **options):
    return step.TrainStep(model=model, optimizer=optimizer, schedule=lambda updates: 0.1, task=Softmax(),
                          normalize=lambda x: x / 128.0 - 1, mesh=step.make_mesh(jax.devices()[:1]), **options)


@pytest.mark.parametrize(('kind', 'classes'), [('run', 3), ('file', 100)])
def test_other_classes_get_a_new_head(given, kind, classes):
    _, variables, folder, file = given
    model = models.create('resnet8_cifar', num_classes=classes)
    loaded = finetune.load(str(folder if kind == 'run' else file), model)
    assert flat(variables).keys() - flat(loaded).keys() == {'params/linear/kernel', 'params/linear/bias'}
    train_step = make_step(model, ema_decay=0.9)
    state, fresh = train_step.init(1, 32, loaded), train_step.init(1, 32)
    for collection in (state.params, state.ema['params']):
        for name, value in flat(collection).items():
            expected = flat(fresh.params)[name] if name.startswith('linear') else flat(variables['params'])[name]
            np.testing.assert_array_equal(value, expected)
    assert_trees_equal(jax.device_get(state.batch_stats), variables['batch_stats'])


@pytest.mark.parametrize(('names', 'ours', 'head', 'outcome'), [
    ('abcdefg', 'abcdefg', '', 'kept, with the same classes'), ('abcdefg', 'gfedcba', '', 'in the order of the data'),
    ('abcdefg', 'hijklmn', '', "other classes, 'a'.* the head starts anew, with 7 classes: linear/bias, linear/kernel"),
    ('', 'hijklmn', '', 'not known'), ('abcdefg', 'abcdefg', 'new', 'starts anew'),
    ('abcdefg', 'hijklmn', 'keep', 'kept, as config.init_head=keep says, though it has other classes')])
def test_names_decide_about_the_head(given, tmp_path, caplog, names, ours, head, outcome):
    caplog.set_level('INFO', 'imagenet_jax')
    model, variables, folder, _ = given
    shutil.copytree(folder, tmp_path / 'run')
    entry = {'model': {'name': 'resnet8_cifar', 'num_classes': 7}, 'run': {'class_names': list(names)}}
    (tmp_path / 'run' / 'config.json').write_text(json.dumps(entry))
    loaded = flat(finetune.load(str(tmp_path / 'run'), model, tuple(ours), head))
    assert re.search(outcome, caplog.text)
    assert ('params/linear/bias' in loaded) == ('anew' not in outcome)
    if 'order' in outcome:
        np.testing.assert_array_equal(loaded['params/linear/kernel'], flat(variables)['params/linear/kernel'][:, ::-1])


def test_a_head_that_cannot_be_kept_or_could_not_learn_is_refused(given, caplog):
    caplog.set_level('INFO', 'imagenet_jax')
    model, variables, folder, _ = given
    frozen = jax.tree.map(lambda x: False, variables['params'])
    finetune.start(str(folder), model, (), '', variables['params'], frozen | {'conv1': {'kernel': True}})
    assert 'of 75,095 parameters train; frozen: 1 of 23 arrays, \'conv1/kernel\'' in caplog.text
    frozen['linear']['kernel'] = True
    with pytest.raises(UserError, match=r'config\.freeze holds linear/kernel, a head that starts anew'):
        finetune.start(str(folder), model, (), 'new', variables['params'], frozen)
    with pytest.raises(UserError, match=r'is for 7 classes, and config\.model\.num_classes=3: its head cannot be kept'):
        finetune.load(str(folder), models.create('resnet8_cifar', num_classes=3), (), 'keep')
    for head, source, message in (('old', 'x', "unknown config.init_head 'old'"), ('keep', '', 'which is unset')):
        with pytest.raises(UserError, match=message):
            finetune.check(head, source)


@pytest.mark.parametrize('name', ['alexnet', 'resnet18v2', 'mobilenet_v3_small', 'ghostnet_100', 'regnetx_002'])
def test_the_head_of_every_kind_of_classifier(name):
    model = models.create(name, num_classes=5)
    shapes = jax.eval_shape(model.init, jax.random.key(0), np.zeros((1, 224, 224, 3), np.float32))
    state_dict = weights.to_torch(model, jax.tree.map(lambda x: np.zeros(x.shape, np.float32), shapes))
    assert weights.classes_of(models.create(name), state_dict) == 5
    left = flat(shapes).keys() - flat(weights.without_head(model, shapes)).keys()
    assert len(left) == 2 and {flat(shapes)[name].shape[-1] for name in left} == {5}


def test_weights_without_a_head_load(given):
    model, variables, _, _ = given
    state_dict = weights.to_torch(model, variables)
    file = given[3].with_name('headless.safetensors')
    weight_files.write(file, {name: value for name, value in state_dict.items() if not name.startswith('linear')})
    assert 'params/linear/kernel' not in flat(finetune.load(str(file), model))


def test_what_does_not_fit_is_named(given, tmp_path):
    model = models.create('resnet32_cifar', num_classes=7)
    for source in given[2:]:
        with pytest.raises(UserError, match=r'config\.init_from=(?s:.)*missing: .*layer1.3.(?s:.)*layer3.4.'):
            finetune.load(str(source), model)
    with pytest.raises(UserError, match=r'config\.init_from=.*nowhere: no such file'):
        finetune.load(str(tmp_path / 'nowhere'), model)


# --- what is frozen, and what learns at another rate


class Training:
    """A ResNet of one block a stage under a step with these options."""

    def __init__(self, freeze=(), decay=0.01, norm='batch'):
        self.model = CifarResNet(depth=1, num_classes=4, norm=norm)
        freeze = (*freeze, *finetune.frozen_norms(self.model, 8, ''))
        self.step = make_step(self.model, SGD(freeze=freeze, weight_decay=decay))
        self.state = self.step.init(0, 8)

    def changes(self, steps=1):
        """Array name -> how far it went, largest absolute difference."""
        before = flat(jax.device_get(self.state.variables))
        for seed in range(steps):
            self.state, _ = self.step(self.state, batch(seed=seed))
        after = flat(jax.device_get(self.state.variables))
        return {name: after[name] - before[name] for name in before}


def test_frozen_parameters_and_norms_stay_as_they_are():
    freeze = ('conv1/*', 'bn1/*', 'layer1/*', 'layer2/0/bn1/scale')
    changes = Training(freeze).changes(steps=2)
    still = {name for name, change in changes.items() if not change.any()}
    expected = {name for name in changes if name.split('/')[1] in ('conv1', 'bn1', 'layer1')}
    assert 'batch_stats/layer1/0/bn2/var' in expected
    # A norm that is only half frozen trains on as a norm.
    assert still == expected | {'params/layer2/0/bn1/scale'}


def test_a_frozen_norm_normalises_by_its_running_statistics():
    """One device's loss with everything but the head frozen is that of evaluation."""
    training = Training(('conv1/*', 'bn1/*', 'layer*'), decay=0.0)
    stats = jax.tree.map(lambda x: x + 0.5, training.state.batch_stats)
    training.state = training.state.replace(batch_stats=stats)
    images = batch()
    logits = training.model.apply(training.state.variables, images['image'] / 128.0 - 1, train=False)
    expected = optax.softmax_cross_entropy_with_integer_labels(logits, images['label']).mean()
    _, metrics = training.step(training.state, images)
    assert float(metrics['loss']) == pytest.approx(float(expected), rel=1e-5)


def test_frozen_norms_stay_as_they_are(caplog):
    """No gradient, decay or batch moves them; all else learns."""
    training = Training(norm='frozen')
    assert 'config.model.norm=frozen without config.init_from' in caplog.text
    changes = training.changes(steps=2)
    norms = {name for name in changes if '/bn' in name}
    assert len(norms) == 4 * 7
    assert {name for name, change in changes.items() if not change.any()} == norms


def test_frozen_norms_are_told_to_the_optimizer():
    model = CifarResNet(depth=1, num_classes=4, norm='frozen')
    patterns = finetune.frozen_norms(model, 8, 'somewhere')
    assert len(patterns) == 7 and patterns[0] == 'bn1/*'
    assert finetune.frozen_norms(model.clone(norm='batch'), 8, '') == ()


def test_frozen_parameters_cost_no_backward_pass():
    def flops(training):
        return training.step.lower(training.state, batch()).compile().cost_analysis()['flops']
    assert flops(Training(('conv1/*', 'bn1/*', 'layer*'))) < 0.5 * flops(Training())


def test_rate_factors():
    params = {name: {'kernel': jnp.ones(2), 'bias': jnp.ones(2)} for name in ('conv1', 'layer1', 'linear')}
    factors = ('linear/bias', 5.0), ('linear/*', 10.0), ('layer1/*', 0.0)
    optimizer = SGD(weight_decay=0.5, momentum=0.0, rate_factors=factors)
    direction, _ = optimizer.direction(params, optimizer.init(params), params)
    for name, factor in {'linear/bias': 5, 'linear/kernel': 10, 'layer1/kernel': 0, 'conv1/kernel': 1}.items():
        np.testing.assert_allclose(flat(direction)[name], 1.5 * factor, rtol=1e-6)  # of the decay too


@pytest.mark.parametrize('pair', [
    'fc/*', ('fc/*',), ('fc/*', -1.0), ('fc/*', math.inf), ('fc/*', True), (3, 1.0), ('fc/*', 'fast')])
def test_wrong_rate_factors(pair):
    with pytest.raises(UserError, match=r'rate_factors: .* must be a \(pattern, factor\)'):
        SGD(rate_factors=(pair,))


# --- as its user calls it


SHORT = '--config.schedule.warmup_epochs=0'


@pytest.mark.runs
def test_fine_tuning_from_a_run(tmp_path):
    first, second = tmp_path / 'first', tmp_path / 'second'
    run(first, '--config.model.num_classes=12', '--config.steps=10', SHORT)
    arguments = (SHORT, f'--config.init_from={first}', '--config.steps=10', "--config.freeze=('conv1/*', 'bn1/*')",
                 "--config.optimizer.rate_factors=(('linear/*', 10.0),)")
    output = run(second, *arguments)
    assert 'is for 12 classes: the head starts anew, with 10' in output
    (_, before), (_, after) = load_variables(first), load_variables(second)
    for name in ('params/conv1/kernel', 'params/bn1/scale', 'batch_stats/bn1/mean'):
        np.testing.assert_array_equal(flat(after)[name], flat(before)[name])
    assert flat(after)['params/linear/kernel'].shape == (64, 10)
    shutil.rmtree(first)  # a resumed run needs its start no more
    run(second, *arguments, '--config.steps=12')
    assert saved(second)[-1] == 12


def test_a_start_that_is_not_there_is_refused_before_training(tmp_path):
    output = run(tmp_path / 'run', '--config.init_from=nowhere.pth', code=1)
    assert 'config.init_from=nowhere.pth' in output and 'Traceback' not in output and 'compiling' not in output
    assert not list((tmp_path / 'run').glob('*.json*'))


@pytest.mark.parametrize(('freeze', 'rate_factors', 'message'), [
    (('fc/*',), (), r"config\.freeze: 'fc/\*' matches no parameter; such paths there are: bn1/\*, conv1/\*"),
    (('*',), (), r'config\.freeze leaves no parameter to train'),
    ((), (('head*', 2.0),), r"config\.optimizer\.rate_factors: 'head\*' matches no parameter")])
def test_idle_patterns_are_refused(freeze, rate_factors, message):
    config = small()
    config.freeze, config.optimizer.rate_factors = freeze, rate_factors
    refused(config, message)
