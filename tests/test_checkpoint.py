"""What is saved comes back to the bit, or not at all."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from imagenet_jax import models, optim, step
from imagenet_jax.checkpoint import Checkpoints
from imagenet_jax.errors import UserError


@pytest.fixture(scope='module')
def state():
    model = models.create('resnet20_cifar')
    optimizer = optim.create(optim.schedule(0.1, 8, 10, 5.0, name='constant', warmup_epochs=0))
    return step.create_state(model, optimizer, step.make_mesh(jax.devices()[:2]), seed=0, image_size=8, ema=True)


def abstract(state):
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), state)


def at(state, number):
    """The state as if of another step, its parameters changed."""
    return state.replace(step=jnp.asarray(number, jnp.int32), params=jax.tree.map(lambda x: x + number, state.params))


def assert_equal(a, b):
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_array_equal(np.asarray(x), np.asarray(y))


def save(workdir, state, steps=(1, 2), top1=()):
    checkpoints = Checkpoints(workdir)
    for number in steps:
        checkpoints.save(at(state, number), dict(zip(steps, top1, strict=False)).get(number))
    checkpoints.close()


def restore(workdir, state):
    checkpoints = Checkpoints(workdir)
    result = checkpoints.restore(abstract(state))
    checkpoints.close()
    return result


def test_round_trip(tmp_path, state):
    save(tmp_path, state)
    restored = restore(tmp_path, state)
    assert_equal(restored, at(state, 2))
    assert restored.params['conv1']['kernel'].sharding == state.params['conv1']['kernel'].sharding


def test_nothing_saved(tmp_path, state):
    assert restore(tmp_path, state) is None


def test_latest_two_and_best(tmp_path, state):
    save(tmp_path, state, (1, 2, 3, 4, 5), (0.1, 0.9, 0.3, 0.2))
    assert sorted(int(p.name) for p in (tmp_path / 'checkpoints').iterdir()) == [2, 4, 5]


def test_best_is_remembered_by_the_next_process(tmp_path, state):
    for number, top1 in enumerate((0.1, 0.9, 0.3, None, 0.2), 1):
        save(tmp_path, state, (number,), () if top1 is None else (top1,))
    assert sorted(int(p.name) for p in (tmp_path / 'checkpoints').iterdir()) == [2, 4, 5]


def files(folder):
    return sorted(p for p in folder.rglob('*') if p.is_file() and p.stat().st_size)


def truncate(folder):
    for path in files(folder):
        path.write_bytes(path.read_bytes()[:path.stat().st_size // 2])


def remove(folder):
    for path in files(folder):
        path.unlink()


def flip_in_arrays(folder):
    path = max(files(folder / 'state'), key=lambda p: p.stat().st_size)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def swap_arrays(folder):
    """Whole and readable, but not what was saved: only the checksums can tell."""
    other = folder.parent / '1' / 'state'
    for path in files(folder / 'state'):
        path.unlink()
    for path in files(other):
        target = folder / 'state' / path.relative_to(other)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(path.read_bytes())


def truncate_contents(folder):
    truncate(folder / 'contents')


@pytest.mark.parametrize('damage', [truncate, remove, flip_in_arrays, swap_arrays, truncate_contents])
def test_damaged_newest_gives_way_to_the_one_before(tmp_path, state, damage, caplog):
    save(tmp_path, state)
    damage(tmp_path / 'checkpoints' / '2')
    checkpoints = Checkpoints(tmp_path)
    restored = checkpoints.restore(abstract(state))
    assert_equal(restored, at(state, 1))
    assert f'{tmp_path}/checkpoints/2 does not load' in caplog.text
    checkpoints.save(at(state, 2))  # the way is free for the same step
    checkpoints.close()
    assert_equal(restore(tmp_path, state), at(state, 2))


@pytest.mark.parametrize('damage', [truncate, remove])
def test_unreadable_top1_stops_nothing(tmp_path, state, damage):
    save(tmp_path, state, (1, 2, 3), (0.9, 0.5))
    damage(tmp_path / 'checkpoints' / '1' / 'evaluation')
    save(tmp_path, state, (4,))
    assert sorted(int(p.name) for p in (tmp_path / 'checkpoints').iterdir()) == [2, 3, 4]


def test_none_loads_is_an_error_that_moves_nothing(tmp_path, state):
    save(tmp_path, state)
    for number in (1, 2):
        truncate(tmp_path / 'checkpoints' / str(number))
    with pytest.raises(UserError, match=r'none of the checkpoints .* loads \(2, 1\)'):
        restore(tmp_path, state)
    assert sorted(p.name for p in (tmp_path / 'checkpoints').iterdir()) == ['1', '2']


def test_other_arrays_are_refused_by_name(tmp_path, state):
    save(tmp_path, state)
    wider = state.replace(params={**state.params, 'linear': {'kernel': jnp.zeros((64, 7)), 'bias': jnp.zeros(7)}})
    shown = r"params/linear/bias: saved \[\[10\], 'float32'\], this run \[\[7\], 'float32'\]"
    with pytest.raises(UserError, match=shown):
        restore(tmp_path, wider)


def test_unfinished_save_is_not_listed(tmp_path, state):
    save(tmp_path, state)
    (tmp_path / 'checkpoints' / '3.orbax-checkpoint-tmp').mkdir()
    assert int(restore(tmp_path, state).step) == 2
