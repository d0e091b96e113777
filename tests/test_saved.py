"""Whatever is damaged below checkpoints/, what is loaded is what was saved, or the save before."""

import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest
from fixtures_checkpoint import abstract, assert_equal, at, save, train_step

from imagenet_jax import record
from imagenet_jax.checkpoint import Checkpoints, load_variables
from imagenet_jax.schedules import Watch
from imagenet_jax.state import TrainState


@pytest.fixture(scope='module')
def state():
    """Of a model of one layer, since each test reads it several times."""
    params = {'fc': {'kernel': jnp.arange(6.0).reshape(2, 3), 'bias': jnp.ones(3)}}
    number = jnp.int32(0)
    state = TrainState(step=number, updates=number, key=jnp.zeros(2, jnp.uint32), params=params, batch_stats={},
                       opt_state={'momentum': params}, ema={}, slow={}, watch=Watch.start(), loss_scale=jnp.ones(()),
                       good_steps=number, bad_steps=number, bad_in_a_row=number)
    return jax.device_put(state, jax.sharding.NamedSharding(train_step().mesh, jax.sharding.PartitionSpec()))


@pytest.fixture(scope='module')
def saved_run(tmp_path_factory, state):
    workdir = tmp_path_factory.mktemp('run')
    save(workdir, state, (1, 2), (0.5, 0.6))
    record.write(workdir, {'model': {'name': 'resnet8_cifar', 'num_classes': 10}})
    return workdir


def flip(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 4
    path.write_bytes(data)



def empty(path):
    path.write_bytes(b'')


def remove(path):
    path.unlink()


def is_equal(a, b):
    try:
        assert_equal(a, b)
    except (AssertionError, ValueError):
        return False
    return True


def load(workdir, state, caplog):
    """Step of the state that a run goes on from; one that is passed over has to be named."""
    caplog.clear()
    checkpoints = Checkpoints(workdir)
    restored = checkpoints.restore(abstract(state), train_step().beside)
    checkpoints.close()
    number = int(restored.step)
    assert_equal(restored, at(state, number))
    assert ('/checkpoints/2 does not load' in caplog.text) == (number == 1)
    return number


def load_weights(workdir, state, caplog):
    """Step of the state whose weights are read."""
    caplog.clear()
    _, variables = load_variables(workdir)
    (number,) = [number for number in (1, 2) if is_equal(variables, at(state, number).variables)]
    assert ('/checkpoints/2 does not load' in caplog.text) == (number == 1)
    return number


# Without these nothing loads, without those everything does, by the beginnings of their names; of the rest it depends.
NEEDED = ('contents/metadata', 'state/manifest.ocdbt', 'state/d/')
UNUSED = ('_CHECKPOINT_METADATA', 'commit_success.txt', 'contents/commit', 'evaluation/', 'state/_sharding')


@pytest.mark.filterwarnings('ignore::pytest.PytestUnraisableExceptionWarning')  # of the reading's other parts
@pytest.mark.parametrize('damage', [flip, *(pytest.param(each, marks=pytest.mark.slow) for each in (empty, remove))])
def test_any_damaged_file_is_passed_over_or_not_needed(saved_run, state, tmp_path, damage, caplog):
    """Every file of a save in turn."""
    step = Path('checkpoints', '2')
    names = [str(path.relative_to(saved_run / step)) for path in (saved_run / step).rglob('*') if path.is_file()]
    assert all(any(name.startswith(each) for name in names) for each in NEEDED + UNUSED)
    for number, name in enumerate(names):
        copy = tmp_path / str(number)
        shutil.copytree(saved_run, copy)
        damage(copy / step / name)
        found = load_weights(copy, state, caplog), load(copy, state, caplog)
        assert not name.startswith(NEEDED) or found == (1, 1), name
        assert not name.startswith(UNUSED) or found == (2, 2), name


@pytest.mark.parametrize('text', ['null', '[1]', '{"item_handlers": 1, "commit_timestamp_nsecs": "x"}', '[' * 100_000])
def test_the_record_of_a_step_that_orbax_keeps_is_not_needed(saved_run, state, tmp_path, text, caplog):
    shutil.copytree(saved_run, tmp_path, dirs_exist_ok=True)
    (tmp_path / 'checkpoints' / '2' / '_CHECKPOINT_METADATA').write_text(text)
    assert (load_weights(tmp_path, state, caplog), load(tmp_path, state, caplog)) == (2, 2)


def test_what_else_lies_among_the_checkpoints_is_no_matter(saved_run, state, tmp_path, caplog):
    """A file named as a step, an empty folder that is, saves that were broken off, names that are no steps, a copy."""
    shutil.copytree(saved_run, tmp_path, dirs_exist_ok=True)
    folder = tmp_path / 'checkpoints'
    for name in ('3', 'notes.txt', '.nfs0001', '0'):
        (folder / name).write_text('')
    for name in ('4', '12.orbax-checkpoint-tmp-0', '007', '-1', 'lost+found'):
        (folder / name).mkdir()
    shutil.copytree(folder / '1', folder / '5')
    (folder / '6').symlink_to(tmp_path / 'nowhere')
    assert_equal(load_variables(tmp_path, best=True)[1], at(state, 2).variables)
    assert load(tmp_path, state, caplog) == 2
    assert 'checkpoints/5 does not load and is passed over: ValueError: it is of step 1' in caplog.text
    save(tmp_path, state, (3, 4, 5))
    assert_equal(load_variables(tmp_path)[1], at(state, 5).variables)
