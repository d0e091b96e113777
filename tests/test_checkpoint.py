"""What is saved comes back to the bit, or not at all."""

import resource
import threading

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from fixtures_checkpoint import abstract, assert_equal, at, restore, save, train_step

from imagenet_jax import contents, record
from imagenet_jax.checkpoint import Checkpoints, load_variables, save_variables
from imagenet_jax.errors import SaveError, UserError
from imagenet_jax.optim import SGD, Lookahead


@pytest.fixture(scope='module')
def state():
    return train_step().init(0, 8)


def test_round_trip(tmp_path, state):
    save(tmp_path, state)
    restored = restore(tmp_path, state)
    assert_equal(restored, at(state, 2))
    assert restored.params['conv1']['kernel'].sharding == state.params['conv1']['kernel'].sharding


def test_checksums_are_made_in_the_background_of_the_state_as_it_was(tmp_path, state, monkeypatch):
    threads, made, may = [], contents.of, threading.Event()

    def of(arrays):
        may.wait(60)
        threads.append(threading.current_thread())
        return made(arrays)
    monkeypatch.setattr(contents, 'of', of)
    saving = jax.tree.map(jnp.copy, at(state, 1))  # other tests have the rest of it
    expected = jax.tree.map(np.array, saving)
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(saving)
    # Its memory is the next step's.
    jax.block_until_ready(jax.jit(lambda x: jax.tree.map(lambda leaf: leaf + 1, x), donate_argnums=0)(saving))
    assert not threads
    may.set()
    checkpoints.close()
    assert len(threads) == 1 and threads[0] is not threading.main_thread()
    assert_equal(restore(tmp_path, state), expected)


def test_nothing_saved(tmp_path, state):
    assert restore(tmp_path, state) is None


def test_latest_two_and_best(tmp_path, state):
    save(tmp_path, state, (1, 2, 3, 4, 5), (0.1, 0.9, 0.3, 0.2))
    assert sorted(int(p.name) for p in (tmp_path / 'checkpoints').iterdir()) == [2, 4, 5]


def test_best_is_remembered_by_the_next_process(tmp_path, state):
    for number, top1 in enumerate((0.1, 0.9, 0.3, None, 0.2), 1):
        save(tmp_path, state, (number,), () if top1 is None else (top1,))
    assert sorted(int(p.name) for p in (tmp_path / 'checkpoints').iterdir()) == [2, 4, 5]


def test_the_best_averaged_weights_are_kept_too(tmp_path, state):
    save(tmp_path, state, (1, 2, 3, 4, 5), (0.1, 0.9, 0.3, 0.2, 0.1), (0.8, 0.2, float('nan'), 0.3, 0.4))
    assert sorted(int(p.name) for p in (tmp_path / 'checkpoints').iterdir()) == [1, 2, 4, 5]
    save(tmp_path, state, (6,))
    record.write(tmp_path, {'model': {'name': 'resnet8_cifar', 'num_classes': 10}})
    assert_equal(load_variables(tmp_path, best=True, ema=True)[1], at(state, 1).ema)
    assert_equal(load_variables(tmp_path, best=True)[1], at(state, 2).variables)


# --- other options than when it was saved


OPTIONS = {'slow': {'lookahead': Lookahead(3), 'optimizer': SGD(weight_decay=0.0, clip_norm=1.0)},
           'all': {'optimizer': SGD(momentum=0.0, centralize=True), 'ema_decay': 0.0, 'lookahead': Lookahead(2)}}


@pytest.mark.parametrize('now', OPTIONS)
def test_other_options_carry_over_what_they_share(tmp_path, state, now, caplog):
    """The rest starts from the weights, or is let go; and what was carried can be saved and trained on."""
    other = train_step(**OPTIONS[now])
    state = at(state, 0).replace(opt_state=jax.tree.map(lambda x: x + 1, state.opt_state))
    save(tmp_path, state)
    checkpoints = Checkpoints(tmp_path)
    with caplog.at_level('INFO', 'imagenet_jax'):
        restored = checkpoints.restore(other.abstract(8), other.beside)
    saved, fresh = at(state, 2), other.beside(at(state, 2).params, state.batch_stats)
    assert_equal(restored.variables, saved.variables)
    assert jax.tree.structure(restored) == jax.tree.structure(other.abstract(8))
    for part, value in fresh.items():
        kept = getattr(saved, part)
        same = jax.tree.structure(kept) == jax.tree.structure(value)
        assert_equal(getattr(restored, part), kept if same else value)
    for said in ("the optimizer's momentum: let go (config.optimizer)", 'averaged weights: let go (config.ema_decay)'):
        assert (said in caplog.text) == (now == 'all')
    assert 'slow weights: new, from its weights on (config.lookahead.steps)' in caplog.text
    checkpoints.save(at(restored, 3))
    checkpoints.close()


def test_what_was_off_may_come(tmp_path, state):
    bare = train_step(**OPTIONS['all']).init(0, 8).replace(slow={})
    save(tmp_path, bare, (4,))
    restored = restore(tmp_path, state)
    assert_equal(restored.ema, at(bare, 4).variables)
    assert not any(np.any(x) for x in jax.tree.leaves(restored.opt_state))


# --- a disk that takes no more


@pytest.mark.filterwarnings('ignore::pytest.PytestUnraisableExceptionWarning')  # of the save's other parts
@pytest.mark.parametrize('bytes_left', [0, 100_000])
def test_a_full_disk_is_one_error_and_the_last_good_save_stays(tmp_path, state, bytes_left):
    """A limit of the size of files is a disk that is full after so many bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    save(tmp_path, state, (1,))
    checkpoints = Checkpoints(tmp_path)
    resource.setrlimit(resource.RLIMIT_FSIZE, (bytes_left, before[1]))
    try:
        with pytest.raises(SaveError, match=r'^cannot save .*/checkpoints/2: File too large'):
            checkpoints.save(at(state, 2))
            while True:
                checkpoints.check()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    checkpoints.close()  # neither waits nor raises
    assert_equal(restore(tmp_path, state), at(state, 1))


def test_a_file_in_the_place_of_the_folder_is_an_error(tmp_path):
    (tmp_path / 'checkpoints').write_text('')
    with pytest.raises(UserError, match=r'cannot write .*/checkpoints: .*File exists'):
        Checkpoints(tmp_path)


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


def change_contents(what, into):
    def change(folder):
        path = folder / 'contents' / 'metadata'
        text = path.read_text()
        assert what in text
        path.write_text(text.replace(what, into, 1))
    return change


# A byte of the list of arrays: of a shape, a dtype, a checksum, a name, and of the list's own checksum and its name.
CHANGED_CONTENTS = [change_contents(*pair) for pair in (
    ('[[', '[[1'), ('float32', 'float16'), ('32", ', '32", 1'), ('params/', 'parbms/'), ('"updates"', '"vpdates"'),
    ('"crc32": ', '"crc32": 1'), ('"crc32"', '"crc33"'))]


@pytest.mark.parametrize('damage', [truncate, remove, flip_in_arrays, swap_arrays, truncate_contents,
                                    *CHANGED_CONTENTS])
def test_damaged_newest_gives_way_to_the_one_before(tmp_path, state, damage, caplog):
    save(tmp_path, state)
    damage(tmp_path / 'checkpoints' / '2')
    checkpoints = Checkpoints(tmp_path)
    restored = checkpoints.restore(abstract(state), train_step().beside)
    assert_equal(restored, at(state, 1))
    assert f'{tmp_path}/checkpoints/2 does not load' in caplog.text
    checkpoints.save(at(state, 2))  # the way is free for the same step
    checkpoints.close()
    assert_equal(restore(tmp_path, state), at(state, 2))


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


# --- reading alone


@pytest.fixture
def run(tmp_path, state):
    """A run's folder: steps 1 to 3, of which 1 is the best and 3 was not evaluated."""
    save(tmp_path, state, (1, 2, 3), (0.9, 0.5))
    record.write(tmp_path, {'model': {'name': 'resnet8_cifar', 'num_classes': 10, 'shortcut': None}})
    return tmp_path


@pytest.mark.parametrize(('options', 'number', 'averaged'), [
    ({}, 3, False), ({'best': True}, 1, False), ({'ema': True}, 3, True), ({'best': True, 'ema': True}, 1, True)])
def test_load_variables(run, state, options, number, averaged):
    before = {p: p.stat().st_mtime_ns for p in run.rglob('*')}
    config, variables = load_variables(run, **options)
    assert config == {'name': 'resnet8_cifar', 'num_classes': 10}
    expected = at(state, number).ema if averaged else at(state, number).variables
    assert jax.tree.structure(variables) == jax.tree.structure(expected)
    assert_equal(variables, expected)
    assert {type(leaf) for leaf in jax.tree.leaves(variables)} == {np.ndarray}
    assert {p: p.stat().st_mtime_ns for p in run.rglob('*')} == before


@pytest.mark.parametrize('damage', [truncate, swap_arrays, truncate_contents])  # a flipped bit may be in no variable
def test_load_variables_passes_over_damage(run, state, damage):
    damage(run / 'checkpoints' / '3')
    assert_equal(load_variables(run)[1], at(state, 2).variables)
    assert_equal(load_variables(run, best=True)[1], at(state, 1).variables)


@pytest.mark.parametrize('damage', [truncate, remove])
def test_unreadable_top1_stops_nothing(run, state, damage):
    damage(run / 'checkpoints' / '1' / 'evaluation')
    assert_equal(load_variables(run, best=True)[1], at(state, 2).variables)
    save(run, state, (4,))
    assert sorted(int(p.name) for p in (run / 'checkpoints').iterdir()) == [2, 3, 4]


def test_earlier_folders_are_understood(run, state):
    """Those from before there were scores other than top-1."""
    for file in (run / 'checkpoints').glob('*/evaluation/metadata'):
        file.write_text(file.read_text().replace('score', 'top1'))
    assert_equal(load_variables(run, best=True)[1], at(state, 1).variables)


def test_load_variables_refuses(run, state):
    with pytest.raises(UserError, match='must be the folder of a run'):
        load_variables(run / 'checkpoints')
    save(run, state.replace(ema={}), (5,))
    with pytest.raises(UserError, match='checkpoints/5 holds no averaged weights'):
        load_variables(run, ema=True)
    for folder in (run / 'checkpoints').iterdir():
        truncate(folder)
    with pytest.raises(UserError, match=r'none of the checkpoints .* loads \(5, 3, 1\)'):
        load_variables(run)


def test_save_variables_without_statistics(tmp_path):
    variables = {'params': {'fc': {'bias': np.arange(3, dtype=np.float32)}}, 'batch_stats': {}}
    save_variables(tmp_path, variables)
    record.write(tmp_path, {'model': {'name': 'vgg11'}})
    config, loaded = load_variables(tmp_path)
    assert config == {'name': 'vgg11'} and loaded.keys() == variables.keys() and not loaded['batch_stats']
    assert_equal(loaded, variables)
