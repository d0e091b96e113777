"""Every option is read by something; one that nothing reads is an error that says which was meant."""

import dataclasses
import math
from collections.abc import Mapping
from functools import partial

import numpy as np
import pytest
from fixtures_layouts import voc
from recipes import RECIPES, get_config

from configs import common
from imagenet_jax.errors import UserError, unknown
from imagenet_jax.experiment import Experiment
from imagenet_jax.images.erase import RandomErasing
from imagenet_jax.images.mix import Mix
from imagenet_jax.options import apply, chosen, create
from imagenet_jax.run_options import Options


def small(config=None):
    """A config whose experiment is made in no time and writes nothing."""
    if config is None:
        config = common.get_config()
        config.model.name, config.model.num_classes = 'resnet20_cifar', 10
        config.augment.size = config.eval.size = config.eval.resize = 8
        config.batch_size = config.eval_batch_size = 16
        config.schedule.warmup_epochs = 1
    config.data.format, config.data.num_examples = 'synthetic', 10 * config.batch_size
    config.compilation_cache = False
    return config


def refused(config, message):
    with pytest.raises(UserError, match=message):
        Experiment(config)


# --- errors.unknown


@pytest.mark.parametrize(('name', 'known', 'hint'), [
    ('resnet5', ['resnet50', 'vgg16'], 'did you mean resnet50?'),
    ('zzz', ['a', 'b'], 'known: a, b'), ('zzz', [], 'known: none'), (3, [1, 2], 'known: 1, 2')])
def test_unknown_hints(name, known, hint):
    assert str(unknown('thing', name, known)) == f'unknown thing {name!r}; {hint}'


# --- apply


def reader(given, needed, defaulted=3):
    return given, needed, defaulted


def test_apply_passes_options_and_given():
    assert apply(reader, {'needed': 1, 'defaulted': 2}, 'config.part', given=0) == (0, 1, 2)
    assert apply(reader, {'needed': 1, 'defaulted': None}, 'config.part', given=0) == (0, 1, 3)
    assert chosen({'a': None, 'b': 0, 'c': False, 'd': ''}) == {'b': 0, 'c': False, 'd': ''}


@pytest.mark.parametrize(('section', 'message'), [
    ({'needed': 1, 'defualted': 2}, r"config\.part\.defualted: nothing reads 'defualted'; did you mean defaulted"),
    ({'needed': 1, 'given': 2}, r"option config\.part\.given: nothing reads 'given'; known: defaulted, needed"),
    ({'defaulted': 1}, r'^config\.part lacks needed$'), ({'needed': None}, r'^config\.part lacks needed$')])
def test_apply_refuses(section, message):
    with pytest.raises(UserError, match=message):
        apply(reader, section, 'config.part', given=0)


def test_apply_leaves_more_options_to_who_takes_more():
    def greedy(given, **options):
        return given, options
    assert apply(greedy, {'any': 1}, 'config.part', given=0) == (0, {'any': 1})
    with pytest.raises(UserError, match='nothing reads'):
        apply(greedy, {'given': 1}, 'config.part', given=0)


def typed(flag: bool = True, count: int = 0, rate: float = 0.0, name: str = '', pair: tuple[float, float] = (0, 1),
          names: tuple[str, ...] = (), factors: tuple[tuple[str, float], ...] = (), part: Mapping = {},
          dtype: np.dtype = np.float32):
    return flag, count, rate, name, pair, names, factors, part, dtype


@pytest.mark.parametrize('options', [
    {'flag': False, 'count': np.int64(3), 'rate': 1, 'name': 'a', 'pair': (0, 1.5), 'names': ('a', 'b')},
    {'rate': np.float32(2), 'part': {'a': 1}, 'dtype': 'float32', 'names': (), 'factors': (('fc/*', 10.0),)}])
def test_apply_takes_values_of_their_kind(options):
    assert apply(typed, options, 'config') == typed(**options)


def test_apply_makes_tuples_of_lists():
    assert apply(typed, {'pair': [1, 2], 'factors': [['fc/*', 10.0]]}, 'config') == typed(
        pair=(1, 2), factors=(('fc/*', 10.0),))


@pytest.mark.parametrize(('option', 'value', 'words'), [
    ('flag', 1, 'True or False'), ('flag', 'no', 'True or False'), ('count', 1.5, 'a whole number'),
    ('count', True, 'a whole number'), ('rate', 'fast', 'a finite number'), ('rate', math.nan, 'a finite number'),
    ('rate', math.inf, 'a finite number'), ('rate', False, 'a finite number'), ('name', 3, 'text'),
    ('pair', 0.2, 'a tuple of 2, each a finite number'), ('pair', (1, 2, 3), 'a tuple of 2, each a finite number'),
    ('names', 'layer1/*', 'a tuple, each text'), ('part', 'softmax', 'a section'),
    ('factors', ('fc/*', 1.0), 'a tuple')])
def test_apply_refuses_values_of_another_kind(option, value, words):
    with pytest.raises(UserError, match=rf'^config\.part\.{option}.* must be {words}'):
        apply(typed, {option: value}, 'config.part')


# --- create


@dataclasses.dataclass(frozen=True)
class Cosine:
    floor: float = 0.0
    steps: int = 1


@dataclasses.dataclass(frozen=True)
class Step:
    milestones: tuple[float, ...]
    factor: float = 0.1
    steps: int = 1


CHOICES = {'cosine': Cosine, 'step': Step, 'steep': partial(Step, factor=0.01)}


def test_create_chooses_by_name():
    assert create(CHOICES, {'name': 'cosine', 'floor': 0.5, 'factor': None}, 'schedule', steps=3) == Cosine(0.5, 3)
    assert create(CHOICES, {'kind': 'steep', 'milestones': [2]}, 'config.schedule', key='kind') == Step((2,), 0.01)


@pytest.mark.parametrize(('section', 'message'), [
    ({'name': 'cosin'}, r"unknown config\.schedule\.name 'cosin'; did you mean cosine\?"),
    ({}, r'^config\.schedule lacks name; known: cosine, step, steep$'),
    ({'name': 'cosine', 'milestones': (30,)}, r'^config\.schedule\.milestones=\(30,\) is read by '
     r'config\.schedule\.name=step or steep, not by cosine; to unset it: --config\.schedule\.milestones=None$'),
    ({'name': 'steep', 'milestones': (1,), 'factor': 0.1}, r'factor=0\.1 is read by config\.schedule\.name=step, not'),
    ({'name': 'cosine', 'flor': 0.1}, r"option config\.schedule\.flor: nothing reads 'flor'; did you mean floor\?"),
    ({'name': 'cosine', 'steps': 3}, r"option config\.schedule\.steps: nothing reads 'steps'"),
    ({'name': 'step'}, r'^config\.schedule lacks milestones$')])
def test_create_refuses(section, message):
    with pytest.raises(UserError, match=message):
        create(CHOICES, section, 'config.schedule', steps=3)


# --- the list of options


def test_common_is_locked():
    config = common.get_config()
    with pytest.raises(AttributeError, match='batch_size'):
        config.batch_sise = 1
    sections = [name for name, value in config.items() if hasattr(value, 'items')]
    assert len(sections) == 14
    for name in sections:
        with pytest.raises(KeyError):
            config[name]['misspelt'] = 1


def test_top_level_is_what_the_experiment_reads():
    assert set(common.get_config()) == {field.name for field in dataclasses.fields(Options)}


@pytest.mark.parametrize('recipe', RECIPES)
def test_something_reads_every_option_of_a_recipe(recipe, tmp_path):
    config = get_config(f'{recipe}.py')
    if config.loss.name != 'sigmoid':
        small(config)
    else:  # synthetic images have one class each
        config.data.path, config.data.eval_split = str(voc(tmp_path)), 'train'
        config.compilation_cache = False
    assert Experiment(config).model.num_classes == config.model.num_classes


@pytest.mark.parametrize(('section', 'misspelt', 'meant'), [
    (None, 'batch_sise', 'batch_size'), ('model', 'num_clases', 'num_classes'),
    ('data', 'num_exampels', 'num_examples'), ('augment', 'flpi', 'flip'), ('eval', 'resise', 'resize'),
    ('normalize', 'meen', 'mean'), ('optimizer', 'momentun', 'momentum'),
    ('schedule', 'warmup_epoch', 'warmup_epochs'), ('loss', 'smothing', 'smoothing'), ('lookahead', 'step', 'steps'),
    ('mix', 'mixpu', 'mixup'),
    ('distributed', 'adress', 'address')])
def test_misspelt_option(section, misspelt, meant):
    config = small()
    with config.unlocked():
        (config[section] if section else config)[misspelt] = 1
    refused(config, rf"unknown option.*'{misspelt}'; did you mean {meant}\b")


@pytest.mark.parametrize(('model', 'option', 'value'), [
    ('resnet20_cifar', 'stride_in_1x1', True), ('resnest50', 'shortcut', 'A'), ('resnet18', 'stride_in_1x1', False),
    ('vgg11', 'lip', True), ('mobilenet_v2', 'antialias', True), ('regnetx_002', 'deformable', 1)])
def test_option_of_another_model(model, option, value):
    config = small()
    config.model.name = model
    config.model[option] = value
    refused(config, rf'model\.{option}={value!r} is read by config\.model\.name=.*, not by {model};')


@pytest.mark.parametrize(('section', 'option', 'message'), [
    (None, 'steps', 'config lacks steps'), ('model', 'name', r'config\.model lacks name'),
    ('data', 'format', r'config\.data lacks format'),
    ('optimizer', 'learning_rate', r'config\.optimizer lacks learning_rate')])
def test_missing_option(section, option, message):
    config = small()
    with config.unlocked():
        del (config[section] if section else config)[option]
    refused(config, message)


@pytest.mark.parametrize(('section', 'option', 'value', 'message'), [
    ('model', 'name', 'resnet20_cifr', 'did you mean resnet20_cifar'),
    ('model', 'dtype', 'bf16', r'model\.dtype .* did you mean bfloat16'),
    ('model', 'num_classes', 0, r'config\.model\.num_classes=0; training needs at least one'),
    ('data', 'format', 'foldr', 'did you mean folder'),
    ('optimizer', 'name', 'sdg', 'did you mean sgd'),
    ('schedule', 'name', 'cosin', 'did you mean cosine'),
    ('erase', 'off_epochs', 90.0, 'config.erase.name=random or cutout, not by none'),
    ('mix', 'off_epochs', 1.0, r'config\.mix\.off_epochs=1\.0 is read where config\.mix\.mixup or cutmix is not 0'),
    (None, 'batch_size', 12, r'config\.batch_size=12 must be a multiple of 8'),
    (None, 'batch_size', 0, r'config\.batch_size=0 must be positive'),
    (None, 'eval_batch_size', 12, r'config\.eval_batch_size=12 must be a multiple of 8'),
    (None, 'accumulation', 4, r'config\.batch_size=16 must be a multiple of 32'),
    (None, 'accumulation', 0, r'config\.accumulation=0'),
    (None, 'accumulation', -1, r'config\.accumulation=-1'),
    (None, 'accumulation', 2**31 - 1, r'config\.accumulation=2147483647'),
    (None, 'ema_decay', 2.0**63, r'config\.ema_decay=9.*e\+18 must be in \[0, 1\)'),
    (None, 'epochs', 0.0, r'config\.epochs=0\.0 must be above 0 where config\.steps is 0'),
    (None, 'epochs', 1e308, r'config\.epochs=1e\+308 must be a finite number, at most 3e38'),
    (None, 'batch_size', 2**63, r'config\.batch_size=9223372036854775808 must be a whole number below 2\*\*31'),
    ('augment', 'repeats', 161, r'config\.augment\.repeats=161 must not be above the number of images .* 160'),
    ('model', 'dropout', 1.0, r'^config\.model\.dropout=1\.0 must be in'),
    (None, 'epochs', -1.0, r'config\.epochs=-1\.0 must not be negative'),
    (None, 'seed', -1, r'config\.seed=-1 must not be negative'),
    ('loss', 'smoothing', 1.0, r'config\.loss\.smoothing=1\.0 must be in \[0, 1\)'),
    (None, 'ema_decay', -0.1, r'config\.ema_decay=-0\.1 must be in \[0, 1\)')])
def test_refused_value(section, option, value, message):
    config = small()
    (config[section] if section else config)[option] = value
    refused(config, message)


@pytest.mark.parametrize('jitter', [0.0, 0.4])
def test_views_that_are_alike_are_said(jitter, caplog):
    config = small()
    config.augment.views, config.loss.consistency, config.augment.color_jitter = 3, 12.0, jitter
    Experiment(config)
    assert ('config.augment.views=3 are all alike' in caplog.text) == (not jitter)


def test_options_arrive():
    """Where the experiment uses them, by values that are no defaults."""
    config = small()
    config.model.norm, config.model.dtype, config.model.shortcut = 'sync', 'float16', 'B'
    config.epochs, config.schedule.floor, config.schedule.base_batch_size = 7.0, 0.01, 32
    config.optimizer.learning_rate = 0.4
    config.erase.name, config.erase.area, config.erase.off_epochs = 'random', [0.1, 0.2], 2.0
    config.mix.cutmix, config.mix.off_epochs = 1.0, 0.5
    experiment = Experiment(config)
    model, train_step = experiment.model, experiment.train_step
    assert train_step.erase == RandomErasing(area=(0.1, 0.2), off_epochs=2.0, steps=70, steps_per_epoch=10)
    assert train_step.mix == Mix(cutmix=1.0, off_epochs=0.5, steps=70, steps_per_epoch=10)
    assert (model.norm, model.dtype.name, model.shortcut, model.zero_gamma) == ('sync', 'float16', 'B', False)
    assert (experiment.steps, experiment.steps_per_epoch) == (70, 10)
    rate = experiment.train_step.schedule
    assert [round(float(rate(t)), 4) for t in (0, 5, 10, 70)] == [0, 0.1, 0.2, 0.01]
    config.steps = 30
    assert Experiment(config).steps == 30


@pytest.mark.parametrize(('steps', 'end', 'last'), [(0, 9.0, None), (0, 9.5, 9), (41, 4.0, None), (40, 4.0, 3)])
def test_a_ramp_has_to_end_within_the_run(steps, end, last):
    """Of ten epochs of ten steps the last to begin is epoch 9."""
    config = small()
    config.epochs, config.steps, config.augment.first_size = 10.0, steps, 4
    config.augment.ramp_epochs = (1.0, end)
    if last is None:
        assert Experiment(config).abstract_state().params
    else:
        refused(config, rf'config\.augment\.ramp_epochs=\(1\.0, {end}\) must end by epoch {last}, counted from 0')
