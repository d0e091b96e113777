"""Which samples come, in what order, whoever decodes them; and what happens to those that cannot be read."""

import inspect
import itertools
import logging
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest
from fixtures_images import class_tree, flip_bit, image_folder, jpeg, parquet_file

from imagenet_jax import sources
from imagenet_jax.errors import UserError
from imagenet_jax.images.crops import Pad
from imagenet_jax.images.eval_view import EvalView
from imagenet_jax.images.train_view import TrainView
from imagenet_jax.input_pipeline import BadSamples, Workers, drawn_batches, eval_batches, to_devices, train_batches
from imagenet_jax.step import make_mesh

AUGMENT, VIEW = TrainView(8, Pad(2), color_jitter=0.4), EvalView(8, 9)
ONE = Workers(threads=1)
COUNT = 11  # images of the small data set: no batch size here divides it


@pytest.fixture(scope='module')
def good(tmp_path_factory):
    """Eleven readable images."""
    return sources.create('folder', str(class_tree(tmp_path_factory.mktemp('good'), COUNT)), 'train', 3, 8)


@pytest.fixture
def spoiled(tmp_path):
    """The same, image 4 ('bee/001.JPEG') with nothing in it."""
    source = sources.create('folder', str(class_tree(tmp_path, COUNT)), 'train', 3, 8)
    assert source.key(4) == 'bee/001.JPEG'
    (tmp_path / 'train' / source.key(4)).write_bytes(b'')
    return source


def take(batches, count=None):
    """The next batches as a list; the iterator is closed."""
    taken = list(itertools.islice(batches, count))
    batches.close()
    return taken


def train(source, count, batch=4, seed=0, start=0, workers=ONE):
    return take(train_batches(source, AUGMENT, batch, seed, start, workers), count)


def assert_same(a, b):
    assert len(a) == len(b)
    for x, y in zip(a, b, strict=True):
        assert x.keys() == y.keys()
        for name in x:
            assert x[name].dtype == y[name].dtype
            np.testing.assert_array_equal(x[name], y[name])


def joined(batches, name):
    return np.concatenate([batch[name] for batch in batches])


def ended(pid) -> bool:
    """Whether a process is gone, or only waits for its parent to notice."""
    try:
        with open(f'/proc/{pid}/stat') as stat:
            return stat.read().rpartition(')')[2].split()[0] == 'Z'
    except (FileNotFoundError, ProcessLookupError):
        return True


def wait_until(condition, seconds=60):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, 'it did not happen'
        time.sleep(0.05)


# Training's order.

def test_batch_has_the_promised_arrays(good):
    batch, = train(good, 1)
    assert {name: (value.shape, value.dtype) for name, value in batch.items()} == {
        'image': ((4, 8, 8, 3), np.uint8), 'label': ((4,), np.int32), 'index': ((4,), np.int32),
        'bad': ((4,), np.int32)}
    np.testing.assert_array_equal(batch['label'], good.labels[batch['index']])
    assert (batch['bad'] == -1).all()


def test_each_epoch_is_another_permutation(good):
    epochs = joined(train(good, COUNT), 'index').reshape(4, COUNT)  # 11 batches of 4: most epochs end inside a batch
    for epoch in epochs:
        assert sorted(epoch) == list(range(COUNT))
    assert len({tuple(epoch) for epoch in epochs}) == 4


def test_an_image_is_augmented_anew_in_each_epoch(good):
    batches = train(good, COUNT)
    images, index = joined(batches, 'image'), joined(batches, 'index')
    assert len({image.tobytes() for image in images[index == 3]}) == 4


def test_batches_are_cut_from_one_stream(good):
    stream = train(good, 12, batch=1)
    for size in (3, 6, 12):
        batches = train(good, 12 // size, batch=size)
        for name in ('index', 'image', 'label'):
            np.testing.assert_array_equal(joined(batches, name), joined(stream, name))


def test_order_and_augmentation_follow_the_seed(good):
    first, again, other = (train(good, 3, seed=seed) for seed in (1, 1, 2))
    assert_same(first, again)
    assert joined(first, 'index').tolist() != joined(other, 'index').tolist()
    assert joined(first, 'image').tobytes() != joined(other, 'image').tobytes()


@pytest.mark.parametrize('start', [1, 3, 40])
def test_a_later_start_gives_the_tail_of_the_run(good, start):
    assert_same(train(good, 3, start=start, workers=Workers(threads=3)), train(good, start + 3)[start:])


def test_threads_do_not_change_what_comes(good):
    one = train(good, 12)
    for workers in (Workers(threads=3), Workers()):
        assert_same(train(good, 12, workers=workers), one)


def test_hosts_share_each_batch(good, monkeypatch):
    alone = train(good, 4), take(eval_batches(good, VIEW, 4, ONE))
    monkeypatch.setattr(jax, 'process_count', lambda: 2)
    shares = []
    for host in range(2):
        monkeypatch.setattr(jax, 'process_index', lambda host=host: host)
        shares.append((train(good, 4), take(eval_batches(good, VIEW, 4, ONE))))
    for whole, *parts in zip(alone, *shares, strict=True):
        interleaved = [{name: np.stack([a[name], b[name]], 1).reshape(w[name].shape) for name in w}
                       for w, a, b in zip(whole, *parts, strict=True)]
        assert_same(interleaved, whole)
    with pytest.raises(UserError, match='batch of 5 images does not divide among 2 processes'):
        train(good, 1, batch=5)


def test_wrong_numbers_are_refused(good):
    with pytest.raises(UserError, match='batch of 0'):
        train(good, 1, batch=0)
    for wrong in ({'processes': -1}, {'threads': -1}):
        with pytest.raises(UserError, match='must not be negative'):
            Workers(**wrong)


# Evaluation's order.

@pytest.mark.parametrize('batch', [1, 4, 11, 16])
@pytest.mark.parametrize('workers', [ONE, Workers(threads=3)], ids=['one', 'three'])
def test_evaluation_sees_every_image_once(good, batch, workers):
    batches = take(eval_batches(good, VIEW, batch, workers))
    assert len(batches) == -(-COUNT // batch)
    assert all(b['image'].shape == (batch, 8, 8, 3) for b in batches)
    mask, index = joined(batches, 'mask'), joined(batches, 'index')
    assert mask.dtype == bool and index[mask].tolist() == list(range(COUNT))
    np.testing.assert_array_equal(joined(batches, 'label')[mask], good.labels)
    np.testing.assert_array_equal(joined(batches, 'image')[mask], [VIEW(good.image(i)) for i in range(COUNT)])
    assert (index[~mask] == -1).all() and (joined(batches, 'bad') == -1).all()
    assert not joined(batches, 'image')[~mask].any()


# Samples that cannot be read.

def test_training_replaces_a_bad_sample_and_reports_it(spoiled):
    batches = train(spoiled, COUNT)
    index, bad = joined(batches, 'index').reshape(4, COUNT), joined(batches, 'bad').reshape(4, COUNT)
    for epoch in range(4):
        assert sorted(bad[epoch])[:-1] == [-1] * (COUNT - 1) and bad[epoch].max() == 4
    assert 4 not in index
    assert len(set(index[bad == 4])) > 1  # another one each time
    np.testing.assert_array_equal(joined(batches, 'label'), spoiled.labels[index.ravel()])
    assert all(image.any() for image in joined(batches, 'image'))
    assert_same(train(spoiled, 3, start=8, workers=Workers(threads=3)), batches[8:])


def test_a_bad_sample_leaves_the_others_as_they_were(good, spoiled):
    for with_all, without in zip(train(good, 5), train(spoiled, 5), strict=True):
        readable = without['bad'] < 0
        for name in with_all:
            np.testing.assert_array_equal(with_all[name][readable], without[name][readable])


def test_training_gives_up_where_nothing_can_be_read(tmp_path):
    image_folder(tmp_path, {f'train/ant/{i}.JPEG': b'junk' for i in range(5)})
    source = sources.create('folder', str(tmp_path), 'train', 1, 8)
    with pytest.raises(UserError, match=r'16 samples in a row cannot be read, the first ant/\d.JPEG: 4 bytes of no'):
        train(source, 1)


def test_evaluation_counts_a_bad_sample(spoiled):
    batches = take(eval_batches(spoiled, VIEW, 4, ONE))
    mask, bad = joined(batches, 'mask'), joined(batches, 'bad')
    assert joined(batches, 'index')[mask].tolist() == list(range(COUNT))
    assert bad.tolist() == [4 if i == 4 else -1 for i in range(12)]
    np.testing.assert_array_equal(joined(batches, 'label')[mask], spoiled.labels)
    assert not joined(batches, 'image')[4].any() and joined(batches, 'image')[5].any()


def test_a_damaged_row_group_is_bad_samples(tmp_path):
    file = parquet_file(tmp_path / 'train-0.parquet', [jpeg(i) for i in range(6)], [0] * 6, row_group_size=2,
                        compression='none', write_page_checksum=True)
    data = file.read_bytes()
    file.write_bytes(flip_bit(data, data.index(jpeg(3)) + 300))
    source = sources.create('parquet', str(tmp_path), 'train', 1, 8)
    batch, = take(eval_batches(source, VIEW, 6, ONE))
    assert batch['bad'].tolist() == [-1, -1, 2, 3, -1, -1]


def test_bad_samples_are_counted_and_named_once(spoiled, caplog):
    bad = BadSamples(spoiled, max_bad_fraction=0.1)
    with caplog.at_level(logging.WARNING):
        for batch in train(spoiled, COUNT) + take(eval_batches(spoiled, VIEW, 4, ONE)):
            bad.check(batch)
    assert len(bad) == 1
    assert [record.getMessage() for record in caplog.records] == [
        'bad sample 1: bee/001.JPEG cannot be read: 0 bytes of no known image format']
    bad.check({})  # a batch made on the device
    assert len(bad) == 1


def test_on_error_raise_stops_at_the_first(spoiled):
    bad = BadSamples(spoiled, on_error='raise', max_bad_fraction=1.0)
    first, second, _ = take(eval_batches(spoiled, VIEW, 4, ONE))
    bad.check(first)
    with pytest.raises(UserError, match=r'bee/001\.JPEG cannot be read: .*data\.on_error=raise'):
        bad.check(second)
    with pytest.raises(UserError, match=r"data\.on_error 'rais'; did you mean raise"):
        BadSamples(spoiled, on_error='rais')


def test_too_many_bad_samples_are_an_error_that_lists_ten(tmp_path):
    image_folder(tmp_path, {f'train/ant/{i:02d}.JPEG': b'' if i < 13 else jpeg(i) for i in range(24)})
    source = sources.create('folder', str(tmp_path), 'train', 1, 8)
    bad = BadSamples(source, max_bad_fraction=0.5)
    first, second = take(eval_batches(source, VIEW, 12, ONE))
    bad.check(first)  # twelve of twenty-four are half, and allowed
    with pytest.raises(UserError, match='13 of 24 samples') as caught:
        bad.check(second)
    assert 'data.max_bad_fraction' in str(caught.value)
    listed = [i for i in range(24) if f'ant/{i:02d}.JPEG' in str(caught.value)]
    assert listed == list(range(10))


# Worker processes: each start of them takes seconds, so a test asks several things of one.

def test_one_process_gives_what_threads_give(spoiled):
    assert_same(train(spoiled, 7, workers=Workers(processes=1)), train(spoiled, 7))


def test_two_processes_resume_ignore_signals_and_end_when_closed(spoiled):
    others = set(multiprocessing.active_children())
    batches = train_batches(spoiled, AUGMENT, 4, 0, 2, Workers(processes=2))
    taken = [next(batches), next(batches)]
    workers = set(multiprocessing.active_children()) - others
    assert len(workers) == 2
    for worker in workers:
        os.kill(worker.pid, signal.SIGINT)
        os.kill(worker.pid, signal.SIGTERM)
    taken += itertools.islice(batches, 14)  # more than lay ready when the signals came
    assert all(worker.is_alive() for worker in workers)
    assert_same(taken, train(spoiled, 18)[2:])
    batches.close()
    wait_until(lambda: all(ended(worker.pid) for worker in workers))


def test_two_processes_evaluate_every_image_once(spoiled):
    assert_same(take(eval_batches(spoiled, VIEW, 4, Workers(processes=2))), take(eval_batches(spoiled, VIEW, 4, ONE)))


class Faulty:
    """A transform with a mistake in it."""
    size = 8

    def __call__(self, image, rng):
        if rng.random() < 0.2:  # of seed 2 not the first, which is tried without processes
            raise ZeroDivisionError('of a kind that no sample explains')
        return AUGMENT(image, rng)


def test_a_mistake_in_a_thread_is_raised(good):
    with pytest.raises(ZeroDivisionError):
        take(train_batches(good, Faulty(), 4, 0, workers=ONE), 20)


def test_a_mistake_in_a_process_is_raised_with_its_place(good):
    with pytest.raises(RuntimeError, match=r'(?s)in a worker process:.*in __call__.*ZeroDivisionError: of a kind'):
        take(train_batches(good, Faulty(), 4, 2, workers=Workers(processes=1)), 20)


def test_training_gives_up_in_a_process_as_in_a_thread(tmp_path):
    image_folder(tmp_path, {f'train/ant/{i}.JPEG': jpeg(i) if i < 9 else b'junk' for i in range(400)})
    source = sources.create('folder', str(tmp_path), 'train', 1, 8)
    with pytest.raises(UserError, match='16 samples in a row cannot be read, the first ant/'):
        take(train_batches(source, AUGMENT, 4, 3, workers=Workers(processes=1)), 20)


def test_a_killed_worker_is_an_error_and_not_a_hang(good):
    others, memory = set(multiprocessing.active_children()), shared_memory()
    batches = train_batches(good, AUGMENT, 4, 0, workers=Workers(processes=2))
    next(batches)
    workers = set(multiprocessing.active_children()) - others
    killed = workers.pop()
    os.kill(killed.pid, signal.SIGKILL)
    with pytest.raises(UserError, match=rf'worker process {killed.pid} has ended, with exit code -9'):
        take(batches, 10)
    assert all(ended(worker.pid) for worker in workers) and shared_memory() <= memory


def shared_memory() -> set[str]:
    """Names of what is shared, but for semaphores, which other libraries keep."""
    return {name for name in os.listdir('/dev/shm') if not name.startswith('sem.')}


LOOP = """
import multiprocessing, sys, time
from imagenet_jax import sources
from imagenet_jax.images.train_view import TrainView
from imagenet_jax.input_pipeline import Workers, train_batches

if __name__ == '__main__':
    source = sources.create('digits', '', 'train', 10, 8)
    batches = train_batches(source, TrainView(8), 4, 0, workers=Workers(processes=2))
    next(batches), next(batches)
    print(*(worker.pid for worker in multiprocessing.active_children()), flush=True)
    if sys.argv[1] == 'mistake':
        1 / 0
    time.sleep(600)
"""


@pytest.mark.parametrize('end', ['mistake', signal.SIGINT, signal.SIGKILL])
def test_nothing_is_left_of_workers(end, tmp_path):
    script, memory = tmp_path / 'loop.py', shared_memory()
    script.write_text(LOOP)
    here = {'PYTHONPATH': str(Path(__file__).parents[1])}  # this checkout, whatever is installed
    with subprocess.Popen([sys.executable, str(script), str(end)], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                          text=True, start_new_session=True, env=os.environ | here) as parent:
        workers = [int(pid) for pid in parent.stdout.readline().split()]
        assert len(workers) == 2
        if end == signal.SIGINT:
            os.killpg(parent.pid, signal.SIGINT)  # as a terminal does: to the workers too
        elif end == signal.SIGKILL:
            parent.kill()
        errors = parent.stderr.read()
    assert {'mistake': 'ZeroDivisionError', signal.SIGINT: 'KeyboardInterrupt', signal.SIGKILL: ''}[end] in errors
    assert errors.count('Traceback') == (end != signal.SIGKILL)
    wait_until(lambda: all(map(ended, workers)))
    assert shared_memory() <= memory


def test_a_worker_that_ends_before_it_begins_is_an_error_and_not_a_hang(tmp_path):
    """As each does in a script without the `if` that multiprocessing asks for."""
    script = tmp_path / 'loop.py'
    script.write_text(LOOP.replace("__name__ == '__main__'", 'True').replace("'train', 10, 8", "'train', 10, 224")
                      .replace('TrainView(8)', 'TrainView(224)'))  # so that much is handed to a worker
    here = {'PYTHONPATH': str(Path(__file__).parents[1])}
    ended = subprocess.run([sys.executable, str(script), ''], capture_output=True, text=True, env=os.environ | here,
                           timeout=120)
    assert ended.returncode == 1
    assert 'safe importing of main module' in ended.stderr.lower()
    assert 'has ended, with exit code 1; what it said is above' in ended.stderr


@pytest.mark.slow
@pytest.mark.parametrize('workers', [Workers(threads=2), Workers(processes=2)], ids=['threads', 'processes'])
def test_memory_stays_flat_over_twenty_epochs(workers, tmp_path):
    image_folder(tmp_path, {f'train/ant/{i:03d}.JPEG': jpeg(i, 300, 400) for i in range(120)})
    source = sources.create('folder', str(tmp_path), 'train', 1, 224)
    batches, levels = train_batches(source, TrainView(224), 24, 0, workers=workers), []
    for epoch in range(24):
        for _ in range(5):
            next(batches)
        if epoch >= 3:  # by then every buffer has been in use
            levels.append(resident_bytes())
    batches.close()
    assert max(levels[-5:]) - min(levels[:5]) < 20e6  # an epoch's images are 18 MB, 20 epochs' 360


def resident_bytes() -> int:
    """Memory of this process and its workers."""
    pages = 0
    for pid in (os.getpid(), *(worker.pid for worker in multiprocessing.active_children())):
        with open(f'/proc/{pid}/statm') as statm:
            pages += int(statm.read().split()[1])
    return pages * os.sysconf('SC_PAGE_SIZE')


# The way to the devices.

def test_to_devices_keeps_order_and_content(good):
    mesh = make_mesh()
    assert mesh.size == 8
    expected = take(eval_batches(good, VIEW, 8, ONE)) + take(eval_batches(good, VIEW, 8, ONE))
    pairs = list(to_devices((batch for batch in expected), mesh))
    assert_same([host for host, _ in pairs], expected)
    for host, device in pairs:
        assert device.keys() == host.keys() - {'index'}
        for name, value in device.items():
            assert len(value.sharding.device_set) == 8 and value.addressable_shards[0].data.shape[0] == 1
            np.testing.assert_array_equal(value, host[name])


def test_closing_the_device_iterator_closes_the_one_below(good):
    batches = train_batches(good, AUGMENT, 8, 0, workers=ONE)
    on_devices = to_devices(batches, make_mesh())
    next(on_devices)
    on_devices.close()
    assert inspect.getgeneratorstate(batches) == inspect.GEN_CLOSED


def synthetic(count, seed=0, start=0, devices=1):
    source = sources.create('synthetic', '', 'train', 5, 4, num_examples=10)
    return take(drawn_batches(source, 64, seed, make_mesh(jax.devices()[:devices]), start), count)


def test_synthetic_batches_are_made_on_the_devices():
    (host, batch), = synthetic(1, devices=8)
    assert host == {}
    assert batch['image'].shape == (64, 4, 4, 3) and batch['image'].dtype == np.uint8
    assert len(batch['image'].sharding.device_set) == 8
    assert batch['label'].dtype == np.int32 and set(np.asarray(batch['label'])) == set(range(5))
    assert abs(np.asarray(batch['image']).mean() - 127.5) < 8


def test_synthetic_batches_are_a_function_of_seed_and_step():
    run = [batch for _, batch in synthetic(4)]
    assert_same([batch for _, batch in synthetic(2, start=2, devices=4)], run[2:])
    other = [batch for _, batch in synthetic(4, seed=1)]
    assert len({np.asarray(batch['image']).tobytes() for batch in run + other}) == 8
