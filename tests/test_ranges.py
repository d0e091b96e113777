"""Every number and every tuple of a config is in its range, or refused in one line that names it; nothing is trained.

What each reader takes of a few hopeless or extreme values is listed here whole: a new option without a range shows.
"""

import argparse
import math
import re
import typing

import numpy as np
import pytest
from runs import ROOT

from configs import common
from imagenet_jax import data, distill, hosts, models, record, sources
from imagenet_jax.command_line import parsing
from imagenet_jax.commands import sweep
from imagenet_jax.errors import UserError
from imagenet_jax.images import train_view
from imagenet_jax.images.batch import Normalize
from imagenet_jax.images.crops import CROPS
from imagenet_jax.images.distort import Distort
from imagenet_jax.images.erase import ERASERS
from imagenet_jax.images.eval_view import EvalView
from imagenet_jax.images.mix import Mix
from imagenet_jax.images.policies import POLICIES
from imagenet_jax.images.ramp import Ramp
from imagenet_jax.optim import OPTIMIZERS, Lookahead
from imagenet_jax.options import LongInt, apply, create, reads
from imagenet_jax.run_options import Options
from imagenet_jax.schedules import SCHEDULES
from imagenet_jax.sources.synthetic import Synthetic
from imagenet_jax.task import TASKS

RUN = {'steps': 100, 'steps_per_epoch': 10.0}
TOP = common.get_config().to_dict()
NAN, INF, HUGE, LONG = math.nan, math.inf, 1e308, 2**63
NUMBERS = (NAN, INF, -1, 0, 0.5, HUGE, LONG, 2**31 - 1)
TUPLES = ((), (0.5,), (1, 2, 3, 4), ((1.0, 2.0), (3.0, 4.0)), (NAN, 1.0), (1.0, INF), (-1.0, 1.0), (0.0, 0.0),
          (2.0, 1.0), (1.0, HUGE), 0.5, NAN)
# What a reader needs beside the option that is looked at.
NEEDED = {'exponential': {'factor': 0.5}, 'step': {'every_epochs': 2.0}, 'multistep': {'milestones': (2.0,)},
          'cutout': {'side': 4}, 'shorter_side': {'shorter': (8, 9)}}


def made(registry, where, key='name', **given):
    """Of each choice: its section, the callable that says which options there are, options -> what reads them."""
    for name, make in registry.items():
        yield where, make, lambda section, name=name: create(
            registry, {key: name, **NEEDED.get(name, {}), **section}, where, key=key, **given)


def applied(reader, where, section=None, **given):
    return where, reader, lambda more: apply(reader, {**(section or {}), **more}, where, **given)


def augment(**section):
    return lambda more: train_view.create({'size': 8, 'crop': 'none', **section, **more}, 'config.augment')


READERS = [
    applied(Options, 'config', TOP),
    *made(OPTIMIZERS, 'config.optimizer'),
    *made(SCHEDULES, 'config.schedule', learning_rate=0.1, batch_size=8, **RUN),
    *made(POLICIES, 'config.policy'),
    *made({name: ERASERS[name] for name in ('random', 'cutout')}, 'config.erase', **RUN),
    *made(TASKS, 'config.loss'),
    applied(Mix, 'config.mix', {'mixup': 0.2, 'cutmix': 1.0}, **RUN),
    applied(Normalize, 'config.normalize'), applied(EvalView, 'config.eval', {'size': 8, 'resize': 8}),
    applied(Lookahead, 'config.lookahead', {'steps': 5}),
    *(('config.augment', crop, augment(crop=name, **NEEDED.get(name, {}))) for name, crop in CROPS.items()),
    ('config.augment', Distort, augment(color_jitter=0.1)), ('config.augment', train_view.TrainView, augment(grey=0.5)),
    ('config.augment', Ramp, augment(first_size=4, ramp_epochs=(1.0, 2.0))),
    ('config.data', data.read, lambda more: apply(data.read, {'format': 'folder', **more}, 'config.data').bad_samples(
        np.zeros(4))),
    ('config.data', Synthetic, lambda more: sources.create('synthetic', '', 'train', 10, 8, **more)),
    applied(hosts.join, 'config.distributed', {'address': 'host:1', 'rank': 0, 'count': 0}),
    applied(distill.load, 'config.distill', {'teacher': '/nowhere'}, student=models.create('zfnet'), task=None,
            normalize=None, class_names=(), size=8),
    *(('config.model', models._REGISTRY[name], lambda more, name=name: models.from_section({'name': name, **more}))
      for name in ('resnet50', 'alexnet_v1', 'mobilenet_v1', 'mobilenet_v2', 'oct_resnet50', 'zfnet')),
]
# Given by the experiment, or looked at by another entry.
GIVEN = {'config.schedule': {*RUN, 'learning_rate', 'batch_size'}, 'config.erase': {*RUN}, 'config.mix': {*RUN},
         'config.optimizer': {'freeze', 'head'}, 'config.distill': {'size', 'class_names'},
         'config.data': {'num_classes', 'size'}, 'config.model': {'convs', 'stage_sizes', 'features'}}


def numeric(where, reader):
    """The reader's options that are numbers or tuples."""
    for name, parameter in reads(reader).items():
        kind = parameter.annotation
        is_tuple = kind is tuple or typing.get_origin(kind) is tuple
        if name not in GIVEN.get(where, ()) and (is_tuple or kind in (int, float, LongInt)):
            yield name, TUPLES if is_tuple else NUMBERS


def taken(where, name, read, values):
    """Those of the values that are not refused; a refusal is one line that names the option."""
    for value in values:
        try:
            read({name: value})
        except UserError as error:
            if not str(error).startswith(f'{where}.teacher='):  # looked for once all numbers are taken
                assert f'{where}.{name}' in str(error) and '\n' not in str(error), f'{where}.{name}={value!r}: {error}'
                continue
        yield value


# By option, all that is taken of NUMBERS or TUPLES.
NONE, OFF, PART, ANY, MANY = (), (0,), (0.5,), (0, 0.5), (0, 2**31 - 1)
TAKEN = {
    'config': {
        'freeze': ((),), 'profile_steps': ((),), 'batch_size': NONE, 'eval_batch_size': NONE, 'epochs': PART,
        'misclassified': OFF,
        'eval_epochs': ANY, 'confusion_epochs': ANY,  # fractions of an epoch have steps too
        # A run may be of as many steps as int32 counts, and what comes that seldom comes once, at its end.
        **dict.fromkeys(('steps', 'eval_steps', 'checkpoint_steps', 'log_steps', 'stop_after', 'max_bad_steps', 'seed'),
                        MANY),
        'accumulation': (-1, *MANY), 'ema_decay': (-1, 0, 0.5, LONG, 2**31 - 1)},  # see test_options.py: TrainStep's
    'config.optimizer': {
        'rate_factors': ((),), 'epsilon': PART, 'trust_coefficient': PART,
        **dict.fromkeys(('weight_decay', 'clip_norm', 'clip_adaptive', 'momentum', 'beta1', 'beta2', 'rho'), ANY)},
    'config.schedule': {
        'warmup_epochs': (0, 0.5, LONG, 2**31 - 1),  # shortened, and said
        'every_epochs': (0.5, LONG, 2**31 - 1), 'patience': MANY, 'cooldown': MANY,  # later than the run's end: never
        'base_batch_size': MANY, 'floor': OFF, 'minimum': OFF, 'cycles': NONE, 'factor': ANY, 'power': PART,
        'threshold': ANY, 'milestones': ((0.5,), (1, 2, 3, 4))},
    'config.policy': {'count': NONE, 'magnitude': OFF, 'deviation': ANY, 'probability': PART, 'severity': NONE,
                      'width': NONE, 'depth': (-1,), 'alpha': PART},
    'config.erase': {'off_epochs': ANY, 'probability': PART, 'area': NONE, 'aspect': NONE,
                     'side': (2**31 - 1,)},  # held against the images' side: see test_options.py
    'config.loss': {'smoothing': ANY, 'consistency': ANY, 'threshold': ANY},
    'config.mix': {'mixup': ANY, 'cutmix': ANY, 'probability': PART, 'switch': PART, 'off_epochs': ANY},
    'config.normalize': {'mean': ((0.5,),), 'std': ((0.5,),)},
    'config.eval': {'size': NONE, 'resize': NONE, 'scales': ((), (1, 2, 3, 4)), 'crop_ratio': PART},
    'config.lookahead': {'steps': MANY, 'alpha': PART},
    'config.augment': {
        'scale': NONE, 'ratio': NONE, 'shorter': NONE, 'pad': OFF, 'hsv': NONE, 'size': NONE, 'views': NONE,
        'repeats': (2**31 - 1,),  # held against the number of images: see test_options.py
        'first_size': NONE, 'ramp_epochs': ((0.0, 0.0),),  # the first epoch alone
        **dict.fromkeys(('rotation', 'color_jitter', 'hue', 'jitter_probability', 'lighting', 'grey', 'blur',
                         'solarize'), ANY)},
    'config.data': {'holdout': ANY, 'processes': OFF, 'threads': OFF, 'max_bad_fraction': ANY, 'num_examples': OFF},
    'config.distributed': {'count': (2**31 - 1,), 'rank': NONE, 'timeout': NONE, 'start_timeout': NONE},
    'config.distill': {'temperature': PART, 'weight': PART},
    'config.model': {'num_classes': OFF, 'dropout': ANY, 'drop_path': ANY, 'drop_block': ANY, 'deformable': OFF,
                     'groups': NONE, 'width': PART, 'alpha': ANY}}


def test_what_is_taken(monkeypatch):
    monkeypatch.setattr(hosts, '_join', lambda *arguments: None)
    found = {}
    for where, reader, read in READERS:
        for name, values in numeric(where, reader):
            found.setdefault(where, {}).setdefault(name, {}).update(dict.fromkeys(taken(where, name, read, values)))
    assert {where: {name: tuple(values) for name, values in names.items()} for where, names in found.items()} == TAKEN


def test_every_number_is_looked_at():
    """Options of configs/common.py that no reader here has, or that are no numbers, are these alone."""
    looked_at = {f'{where}.{name}' for where, names in TAKEN.items() for name in names}
    numbers = {f'config.{name}' for name, value in record.flatten(TOP).items()
               if isinstance(value, (int, float, tuple)) and not isinstance(value, bool)}
    unset = {f'config.{section}.{name}' for section, values in common.get_config().items() if hasattr(values, 'items')
             for name in values if values.get_type(name) in (int, float, tuple)}
    assert (numbers | unset) - looked_at == {'config.optimizer.learning_rate'}  # see test_schedules.py


@pytest.mark.parametrize('text', ['-1', '0', '1.5', 'nan', 'inf', '', ' 1', '²', '٣', '2147483648', '9' * 5000, '1e3'])
def test_counts_of_a_command_line(text):
    for read in (parsing.positive, parsing.side, parsing.whole(1, 100), sweep._seeds):
        with pytest.raises(argparse.ArgumentTypeError, match='must be a') as refused:
            read(text)
        assert len(str(refused.value)) < 200
    assert (parsing.count('0'), parsing.positive('2147483647'), parsing.side('224')) == (0, 2**31 - 1, 224)


@pytest.mark.parametrize('text', ['-0.1', '1.1', 'nan', 'inf', '1e308', 'half', ''])
def test_fractions_of_a_command_line(text):
    with pytest.raises(argparse.ArgumentTypeError, match='must be a fraction'):
        parsing.fraction(text)
    assert parsing.fraction('0.1') == 0.1


def test_no_command_takes_just_any_number():
    for path in (ROOT / 'imagenet_jax').glob('comman*/*.py'):
        assert not re.search(r'type=(int|float)\b|DEFINE_(integer|float)\([^,]*,[^,]*,[^,]*\)', path.read_text()), path
