"""What version 0.1 wrote goes on: runs_before/0.1.tar.gz is a folder of it, six steps of a tiny model with averages.

Of it: main.py --config configs/digits.py --config.model.name=mobilenet_v1 --config.model.width=0.03 and BASE's options,
where smoothing was label_smoothing.
"""

import ast
import contextlib
import importlib
import json
import tarfile
import zlib
from pathlib import Path

import jax
import numpy as np
import pytest
from runs import contents, rows, run, saved

from imagenet_jax import record
from imagenet_jax.checkpoint import Checkpoints, load_variables
from imagenet_jax.errors import UserError
from imagenet_jax.experiment import Experiment
from imagenet_jax.schedules import Watch

BASE = ('--config', 'configs/digits.py', '--config.model.name=mobilenet_v1', '--config.model.width=0.03',
        '--config.model.dtype=float32', '--config.augment.size=16', '--config.augment.pad=1', '--config.eval.size=16',
        '--config.eval.resize=16', '--config.batch_size=64', '--config.eval_batch_size=64',
        '--config.loss.smoothing=0.1', '--config.ema_decay=0.9', '--config.log_steps=2',
        '--config.confusion_epochs=0', '--config.checkpoint_steps=0', '--config.eval_steps=6',
        '--config.schedule.name=constant', '--config.schedule.warmup_epochs=0.2')


@pytest.fixture
def earlier(tmp_path) -> Path:
    with tarfile.open(Path(__file__).parent / 'runs_before' / '0.1.tar.gz') as archive:
        archive.extractall(tmp_path, filter='data')
    return tmp_path / 'run'


def config():
    made = importlib.import_module('configs.digits').get_config()
    for option in BASE[2:]:
        name, _, value = option.removeprefix('--config.').partition('=')
        section, _, leaf = name.rpartition('.')
        with contextlib.suppress(ValueError, SyntaxError):
            value = ast.literal_eval(value)
        (made[section] if section else made)[leaf] = value
    return made


def test_config(earlier):
    written, entry = json.loads((earlier / 'config.json').read_text()), record.read(earlier)
    assert (written['loss'], written['label_smoothing']) == ('softmax', 0.1)
    assert entry['loss'] == {'name': 'softmax', 'smoothing': 0.1} and 'label_smoothing' not in entry
    assert record.upgrade(entry) == entry


def test_nothing_is_taken_for_a_change(earlier, caplog):
    with caplog.at_level('INFO', 'imagenet_jax'):
        record.check_resumable(earlier, {**config().to_dict(), 'run': record.read(earlier)['run']})
    # The recipe says now which batch its rate is for: it is this one.
    assert caplog.messages == ['resuming with config.schedule.base_batch_size=64, which was 0',
                               'resuming with config.steps=0, which was 6']


@pytest.mark.parametrize('name', ['seresnet18', 'seresnet34'])
def test_a_model_that_is_another_now_says_so(earlier, name):
    path = earlier / 'config.json'
    path.write_text(path.read_text().replace('mobilenet_v1', name))
    with pytest.raises(UserError, match=f'{name} of version 0.1 was 4 wide .* train anew'):
        load_variables(earlier)


def test_weights_load(earlier):
    options, variables = load_variables(earlier, ema=True)
    assert options['name'] == 'mobilenet_v1'
    assert all(np.isfinite(leaf).all() for leaf in variables['params']['conv_stem'].values())


def test_every_array_comes_along(earlier):
    """To the bit, under today's name; an optimizer that numbered its parts becomes one that names them."""
    experiment = Experiment(config())
    checkpoints = Checkpoints(earlier)
    state = checkpoints.restore(experiment.abstract_state(), experiment.train_step.beside)
    checkpoints.close()
    found = {jax.tree_util.keystr(path, simple=True, separator='/'): leaf
             for path, leaf in jax.tree_util.tree_leaves_with_path(state)}
    before = {record.upgrade_state(name): crc for name, (_, _, crc) in contents(earlier, 6).items()}
    assert {name: zlib.crc32(np.ascontiguousarray(found[name])) for name in before} == before
    assert found.keys() - before.keys() == {f'watch/{name}' for name in Watch._fields}
    assert (state.step, state.updates, state.watch.rate_scale, state.watch.stale) == (6, 6, 1, 0)
    assert np.any(state.opt_state['momentum'].trace['conv_stem']['kernel'])


@pytest.mark.runs
def test_the_run_goes_on(earlier):
    assert 'resuming at step 6' in run(earlier, '--config.steps=12', base=BASE)
    assert saved(earlier) == [6, 12]
    assert [row['step'] for row in rows(earlier)] == [2, 4, 6, 8, 10, 12]
    assert 'resuming at step 12' in run(earlier, '--config.steps=14', base=BASE)


@pytest.mark.runs
@pytest.mark.slow
def test_the_run_goes_on_under_other_options(earlier):
    output = run(earlier, '--config.steps=7', '--config.optimizer.momentum=0', base=BASE)
    assert "/6: the optimizer's momentum: let go (config.optimizer)" in output and 'resuming at step 6' in output
