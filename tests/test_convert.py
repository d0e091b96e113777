"""The packed format: what is written, that damage is noticed, and that a conversion is safe to interrupt."""

import filecmp
import json
import logging
import multiprocessing
import os
import pickle
import shutil
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from fixtures_images import class_tree, encode, flip_bit, image_folder, jpeg, png_claiming, scene, with_pillow
from fixtures_layouts import cifar100, database, voc
from PIL import Image
from runs import ROOT, environment

from imagenet_jax import input_pipeline, sources
from imagenet_jax.convert import Encoding, Plan, convert, shards
from imagenet_jax.errors import UserError
from imagenet_jax.images.eval_view import EvalView
from imagenet_jax.images.train_view import TrainView
from imagenet_jax.sources import array_record

ROWS = 40


@pytest.fixture(scope='module')
def tree(tmp_path_factory):
    """A folder of class folders, 40 images."""
    return class_tree(tmp_path_factory.mktemp('tree'), ROWS)


@pytest.fixture(scope='module')
def packed(tree, tmp_path_factory):
    """The same, packed into four shards."""
    output = tmp_path_factory.mktemp('packed')
    convert(plan(tree, output, shards=4), workers=2)
    return output


def plan(tree, output, split='train', **options):
    return Plan(sources.create('folder', str(tree), split), {'format': 'folder', 'path': str(tree), 'split': split},
                output, split, **options)


def reopened(output, split='train'):
    return sources.create('array_record', str(output), split)


def files(folder):
    return {p.name: p.read_bytes() for p in folder.iterdir()}


# --- what comes back


def test_the_same_images_keys_labels_and_names_come_back(tree, packed):
    before, after = sources.create('folder', str(tree), 'train'), reopened(packed)
    assert after.class_names == before.class_names
    assert after.labels.dtype == before.labels.dtype and after.labels.tolist() == before.labels.tolist()
    for i in (*range(ROWS), 7, 0):
        assert after[i] == before[i]
    assert {p.name for p in packed.iterdir()} == {
        'train.json', 'train.index.npz', *(f'train-{n:05d}-of-00004.array_record' for n in range(4))}


def test_more_shards_than_may_be_open(packed, monkeypatch):
    expected = [reopened(packed).image(i) for i in range(ROWS)]
    monkeypatch.setattr(array_record, 'OPEN_SHARDS', 2)
    source = reopened(packed)
    for i in (0, 39, 20, 10, 0, 30, 21, 39):
        assert source.image(i) == expected[i]
        assert len(source._readers) <= 2


def test_it_travels_to_workers(packed):
    source = reopened(packed)
    image = source.image(3)
    assert pickle.loads(pickle.dumps(source)).image(3) == image


def test_threads_may_read_at_once(packed, monkeypatch):
    monkeypatch.setattr(array_record, 'OPEN_SHARDS', 2)  # so that readers come and go meanwhile
    source = reopened(packed)
    expected, order = [source.image(i) for i in range(ROWS)], np.random.default_rng(0).integers(ROWS, size=400).tolist()
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(source.image, order)) == [expected[i] for i in order]


@pytest.mark.parametrize('how', [{'threads': 1}, {'threads': 3}, {'processes': 2}])
def test_training_gets_the_same_bytes_from_either_layout(tree, packed, how):
    workers = input_pipeline.Workers(**how)
    batches = [input_pipeline.train_batches(source, TrainView(8), 16, seed=3, start_step=2, workers=workers)
               for source in (sources.create('folder', str(tree), 'train'), reopened(packed))]
    for _ in range(4):
        ours, theirs = map(next, batches)
        for name in ours:
            np.testing.assert_array_equal(ours[name], theirs[name])
    for stream in batches:
        stream.close()


def photographs(root):
    """VOC's layout with images that can be decoded."""
    voc(root)
    for i, path in enumerate(sorted(root.glob('**/*.jpg'))):
        path.write_bytes(jpeg(i))


@pytest.mark.parametrize(('format', 'make', 'options'), [
    ('voc', photographs, {'labels': 'all'}), ('lmdb', database, {}), ('cifar', cifar100, {'labels': 'coarse'})])
def test_other_layouts_with_their_options(tmp_path, format, make, options):
    make(tmp_path / 'source')
    before = sources.create(format, str(tmp_path / 'source'), 'train', **options)
    manifest = convert(Plan(before, {'format': format, 'options': options}, tmp_path / 'out', 'train'), workers=1)
    after = reopened(tmp_path / 'out')
    assert manifest['made_of']['source'] == {'format': format, 'options': options} and not manifest['skipped']
    assert after.class_names == before.class_names and after.labels.dtype == before.labels.dtype
    np.testing.assert_array_equal(after.labels, before.labels)
    for i in range(len(before)):
        assert after.key(i) == before.key(i)
        np.testing.assert_array_equal(after.image(i), before.image(i))


class Both(sources.Source):
    """Pixels of several classes, under names that are not UTF-8."""
    labels = np.array([[0, 1], [1, np.nan]], np.float32)
    class_names = ('a', 'b')

    def image(self, index):
        return scene(5, 7, index)

    def key(self, index):
        return f'\udcff{index}'


def test_multi_label_and_pixels(tmp_path):
    convert(Plan(Both(), {}, tmp_path, 'train'), workers=1)
    source = sources.ArrayRecord(str(tmp_path), 'train')
    np.testing.assert_array_equal(source.labels, Both.labels)
    np.testing.assert_array_equal(source.image(1), scene(5, 7, 1))
    assert source.key(1) == '\udcff1'


# --- what is stored


@pytest.mark.parametrize(('options', 'shape'), [
    ({'resize_shorter': 20}, (20, 30)), ({'max_side': 45}, (30, 45)),
    ({'resize_shorter': 40, 'max_side': 30}, (20, 30))])
def test_larger_images_are_shrunk(options, shape):
    image = Encoding(quality=95, **options)(encode(scene(60, 90)))
    pixels = with_pillow(image)
    assert pixels.shape[:2] == shape
    expected = EvalView(min(shape), min(shape))(encode(scene(60, 90)))
    centre = EvalView(min(shape), min(shape))(image)
    assert np.abs(expected.astype(int) - centre).mean() < 6  # of JPEG; another filter or crop gives tens


def test_images_of_any_kind_are_shrunk_to_rgb():
    for image in (encode(Image.fromarray(scene(60, 90)).convert('CMYK')), encode(scene(60, 90)[..., 0]),
                  encode(Image.fromarray(scene(60, 90)).convert('P'), 'PNG'), scene(60, 90), scene(60, 90)[..., :1]):
        shrunk = Encoding(resize_shorter=20)(image)
        assert shrunk[:2] == b'\xff\xd8' and with_pillow(shrunk).shape == (20, 30, 3)


def test_quality():
    sizes = [len(Encoding(resize_shorter=40, quality=q)(encode(scene(60, 90)))) for q in (30, 90)]
    assert sizes[0] < 0.6 * sizes[1]


@pytest.mark.parametrize('options', [{'resize_shorter': 60}, {'max_side': 90}, {'resize_shorter': 99}])
def test_images_that_are_small_enough_keep_their_bytes(options):
    assert Encoding(**options)(encode(scene(60, 90))) == encode(scene(60, 90))


def test_raw_is_the_centre_square_as_evaluation_crops_it(tmp_path):
    tree = image_folder(tmp_path / 'tree', {'train/a/0.JPEG': encode(scene(60, 90))})
    convert(plan(tree, tmp_path / 'out', encoding=Encoding(raw=24)), workers=1)
    pixels = reopened(tmp_path / 'out').image(0)
    assert pixels.dtype == np.uint8
    np.testing.assert_array_equal(pixels, EvalView(24, 24)(encode(scene(60, 90))))


@pytest.mark.parametrize(('options', 'message'), [
    ({'resize_shorter': -1}, 'must not be negative'), ({'quality': 0}, 'quality must be in'),
    ({'raw': 8, 'resize_shorter': 8}, '--raw goes without')])
def test_wrong_encodings(options, message):
    with pytest.raises(UserError, match=message):
        Encoding(**options)


# --- unreadable images


def test_unreadable_images_are_named_and_left_out(tmp_path, caplog):
    tree = class_tree(tmp_path / 'tree', 24)
    broken = {'train/ant/003.JPEG': jpeg()[:-9], 'train/bee/004.JPEG': b'',
              'train/cat/005.JPEG': png_claiming(60000, 60000)}
    image_folder(tree, broken)
    with caplog.at_level(logging.WARNING, 'imagenet_jax'):
        manifest = convert(plan(tree, tmp_path / 'out', shards=3, max_bad_fraction=0.2), workers=2)
    assert [entry['key'] for entry in manifest['skipped']] == ['ant/003.JPEG', 'bee/004.JPEG', 'cat/005.JPEG']
    assert 'Premature end' in manifest['skipped'][0]['reason'] and 'bee/004.JPEG' in caplog.text
    source = reopened(tmp_path / 'out')
    assert len(source) == manifest['examples'] == 21
    before = sources.create('folder', str(tree), 'train')
    kept = [i for i in range(24) if before.key(i) not in {entry['key'] for entry in manifest['skipped']}]
    for i, j in enumerate(kept):
        assert source[i] == before[j]


def test_too_many_unreadable_images_stop_it_each_time(tmp_path):
    tree = image_folder(class_tree(tmp_path / 'tree', 20), {f'train/ant/x{i}.JPEG': b'' for i in range(5)})
    refused = r'5 of 25 images cannot be read, more than --max-bad-fraction .*ant/x0.JPEG'
    for _ in range(2):  # its one shard stands at the second time
        with pytest.raises(UserError, match=refused):
            convert(plan(tree, tmp_path / 'out', shards=1), workers=1)
        assert not (tmp_path / 'out' / 'train.json').exists()
    for how in ({'on_error': 'raise'}, {'max_bad_fraction': 0.1}):
        with pytest.raises(UserError, match=r'5 of 25 .*x0.JPEG'):
            convert(plan(tree, tmp_path / 'out', shards=1, **how))
    assert convert(plan(tree, tmp_path / 'out', shards=1, max_bad_fraction=0.2))['examples'] == 20
    with pytest.raises(UserError, match=r'5 of 25 .*x0.JPEG'):  # finished, but by another limit
        convert(plan(tree, tmp_path / 'out', shards=1))


def test_the_first_unreadable_image_stops_it_where_asked_for(tmp_path):
    tree = image_folder(class_tree(tmp_path / 'tree', 20), {'train/ant/x.JPEG': b''})
    with pytest.raises(UserError, match=r'ant/x.JPEG cannot be read: 0 bytes of no known image format'):
        convert(plan(tree, tmp_path / 'out', shards=1, on_error='raise'), workers=1)
    assert not list((tmp_path / 'out').glob('train*'))


def test_a_shard_may_be_left_with_nothing(tmp_path):
    tree = image_folder(tmp_path / 'tree', {f'train/a/{i}.JPEG': jpeg(i) if i > 1 else b'' for i in range(6)})
    convert(plan(tree, tmp_path / 'out', shards=3, max_bad_fraction=0.5), workers=1)
    source = reopened(tmp_path / 'out')
    assert [source.image(i) for i in range(4)] == [jpeg(i) for i in range(2, 6)]


# --- damage


def test_a_changed_byte_is_never_read_as_an_image(packed, tmp_path):
    shutil.copytree(packed, tmp_path, dirs_exist_ok=True)
    shard = tmp_path / 'train-00001-of-00004.array_record'
    good, source = shard.read_bytes(), reopened(packed)
    expected = [source.image(i) for i in range(ROWS)]
    content = [i for i in range(len(good)) if good[i]]
    refused = noticed = 0
    for at in content[::max(1, len(content) // 60)]:
        shard.write_bytes(flip_bit(good, at))
        try:
            damaged = reopened(tmp_path)
        except UserError as error:
            assert shard.name in str(error)
            refused += 1
            continue
        for i in range(10, 20):
            try:
                assert damaged.image(i) == expected[i]
            except OSError as error:
                assert shard.name in str(error)
                noticed += 1
        assert damaged.image(3) == expected[3]
    assert refused and noticed > 30


def test_a_damaged_image_is_one_bad_sample_be_it_a_shards_first(packed, tmp_path):
    shutil.copytree(packed, tmp_path, dirs_exist_ok=True)
    shard, image = tmp_path / 'train-00001-of-00004.array_record', reopened(packed).image(10)
    shard.write_bytes(flip_bit(good := shard.read_bytes(), good.index(image) + 300))
    source = reopened(tmp_path)
    with pytest.raises(OSError, match=shard.name):
        source.image(10)
    assert source.image(11) == reopened(packed).image(11)


def damage(name, change):
    def do(folder):
        path = folder / name
        path.write_bytes(change(path.read_bytes()))
    return do


SHARD = 'train-00002-of-00004.array_record'


@pytest.mark.parametrize(('do', 'message'), [
    (damage(SHARD, lambda data: data[:-1]), f'{SHARD} has .* bytes, and the manifest says'),
    (lambda folder: (folder / SHARD).unlink(), f'{SHARD} is missing'),
    (damage('train.index.npz', lambda data: flip_bit(data, 200)), 'train.index.npz is damaged'),
    (lambda folder: (folder / 'train.index.npz').unlink(), 'train.index.npz is missing'),
    (lambda folder: (folder / 'train.json').unlink(), 'is not finished: there is no train.json yet'),
    (damage('train.json', lambda data: data[:100]), 'train.json is no manifest'),
    (damage('train.json', lambda data: b'{}'), 'train.json is no manifest'),
    (damage('train.json', lambda data: b'[1]'), 'train.json is no manifest'),
    (damage('train.json', lambda data: data.replace(b'"shards"', b'"shard"')),
     'train.json .* missing or of another kind are shards'),
    (damage('train.json', lambda data: data.replace(b'"made_of": {', b'"made_of": 1, "x": {')), 'kind are made_of'),
    (damage('train.json', lambda data: data.replace(b'"version": 1', b'"version": 2')), 'is of version 2'),
    (lambda folder: [p.unlink() for p in folder.iterdir()], 'splits in .*: none'),
    # The next two keep the size.
    (lambda folder: (folder / SHARD).write_bytes(bytes((folder / SHARD).stat().st_size)), f'{SHARD}.*; copy it anew'),
    (lambda folder: shutil.copy(folder / SHARD.replace('2-', '1-'), folder / SHARD),
     f'{SHARD} is a shard of another conversion.*, or remove')])
def test_what_is_wrong_is_said_at_once(packed, tmp_path, do, message):
    shutil.copytree(packed, tmp_path, dirs_exist_ok=True)
    do(tmp_path)
    with pytest.raises(UserError, match=message):
        reopened(tmp_path)


def test_a_shard_of_another_conversion_is_noticed_though_it_has_the_same_keys(tree, packed, tmp_path):
    convert(plan(tree, tmp_path, shards=4, encoding=Encoding(quality=80)), workers=1)
    assert (tmp_path / SHARD).stat().st_size == (packed / SHARD).stat().st_size
    shutil.copy(packed / SHARD, tmp_path / SHARD)
    with pytest.raises(UserError, match=f'{SHARD} is a shard of another conversion'):
        reopened(tmp_path)


def test_other_files_of_that_name_are_no_conversion(tmp_path):
    image_folder(class_tree(tmp_path), {'train.json': b'{"annotations": []}'})
    assert len(sources.create('folder', str(tmp_path), 'train')) == 11


# --- interrupted, shared, refused


def command(tree, output, *arguments, before=(), **kwargs):
    line = [*before, sys.executable, '-m', 'imagenet_jax', 'convert', '--format', 'folder', '--path', str(tree),
            '--split', 'train', '--output', str(output), *arguments]
    return subprocess.Popen(line, cwd=ROOT, env=environment(), text=True, stdout=subprocess.PIPE,
                            stderr=subprocess.STDOUT, **kwargs)


@pytest.fixture(scope='module')
def slow_tree(tmp_path_factory):
    """Images that take a while."""
    data = encode(scene(700, 900))
    return image_folder(tmp_path_factory.mktemp('slow'), {f'train/a/{i:03d}.JPEG': data for i in range(96)})


SLOW = '--shards', '12', '--raw', '200', '--workers', '2'


@pytest.fixture(scope='module')
def whole(slow_tree, tmp_path_factory):
    """They, converted without interruption."""
    output = tmp_path_factory.mktemp('whole') / 'new'
    said = command(slow_tree, output, *SLOW).communicate(timeout=300)[0]
    assert '96 of 96 images, ' in said and 'images/s, 00:00 left\n96 images, 0 left out, in 12 shards' in said
    assert '\r' not in said
    return output


@pytest.mark.parametrize('number', [signal.SIGKILL, signal.SIGINT])
def test_a_conversion_goes_on_where_it_was(slow_tree, whole, tmp_path, number):
    interrupted = tmp_path / 'interrupted'
    process = command(slow_tree, interrupted, *SLOW, start_new_session=True)
    while not (done := sorted(interrupted.glob('.train.convert/0*.json'))):
        assert process.poll() is None, process.stdout.read()
        time.sleep(0.005)
    shard = interrupted / f'train-{done[0].stem}-of-00012.array_record'
    if number == signal.SIGINT:
        os.killpg(process.pid, number)
    else:
        process.kill()
    assert 'Traceback' not in process.communicate(timeout=60)[0]
    assert process.returncode == (130 if number == signal.SIGINT else -signal.SIGKILL)
    deadline = time.monotonic() + 60
    while subprocess.run(['pgrep', '-g', str(process.pid)], capture_output=True).stdout:  # no worker outlives it
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert not (interrupted / 'train.json').exists()
    with pytest.raises(UserError, match='is not finished'):
        reopened(interrupted)
    kept = shard.stat().st_mtime_ns
    process = command(slow_tree, interrupted, *SLOW)
    assert '96 images, 0 left out, in 12 shards' in process.communicate(timeout=300)[0]
    assert shard.stat().st_mtime_ns == kept
    assert files(interrupted) == files(whole)


def test_hosts_share_the_shards(tree, packed, tmp_path):
    assert convert(plan(tree, tmp_path, shards=4), workers=1, part=(1, 2)) is None
    assert len(list(tmp_path.glob('*.array_record'))) == 2
    manifest = convert(plan(tree, tmp_path, shards=4), workers=1, part=(0, 2))
    assert manifest['examples'] == ROWS and not any(p.is_dir() for p in tmp_path.iterdir())
    assert filecmp.cmpfiles(packed, tmp_path, [p.name for p in packed.iterdir()], shallow=False)[0] == [
        *(p.name for p in packed.iterdir())]


def test_what_killed_processes_left_is_removed(tree, tmp_path):
    convert(plan(tree, tmp_path, shards=4), workers=1, part=(0, 2))
    gone = subprocess.Popen(['true'])
    gone.wait()
    host, folder = socket.gethostname(), tmp_path / '.train.convert'
    left = {name: folder / name for name in (f'00001.{host}.{gone.pid}', f'00001.{host}.{os.getpid()}', '00001.far.1')}
    for path in left.values():
        path.write_bytes(b'half')
    convert(plan(tree, tmp_path, shards=4), workers=1, part=(0, 2))
    assert [path.exists() for path in left.values()] == [False, True, True]
    convert(plan(tree, tmp_path, shards=4), workers=1)
    assert not folder.exists()


def test_the_callers_other_processes_live_on(tree, tmp_path):
    other = multiprocessing.get_context('spawn').Process(target=time.sleep, args=(600,))
    other.start()
    try:
        convert(plan(tree, tmp_path), workers=1)
        assert other.is_alive() and other in multiprocessing.active_children()
    finally:
        other.kill()
        other.join()


def test_a_finished_one_is_left_alone_and_another_refused(tree, packed, caplog):
    before = files(packed)
    with caplog.at_level(logging.INFO, 'imagenet_jax'):
        assert convert(plan(tree, packed, shards=4), workers=1)['examples'] == ROWS
    assert 'train.json is finished already' in caplog.text
    with pytest.raises(UserError, match=r'made of something else or in another way(?s:.)*encoding: .*raw'):
        convert(plan(tree, packed, shards=4, encoding=Encoding(raw=8)))
    with pytest.raises(UserError, match='shards: 4, now 5'):
        convert(plan(tree, packed, shards=5))
    assert files(packed) == before


def test_a_finished_one_that_is_damaged_since_is_not_called_finished(tree, packed, tmp_path):
    shutil.copytree(packed, tmp_path, dirs_exist_ok=True)
    (tmp_path / SHARD).unlink()
    with pytest.raises(UserError, match=f"{SHARD} is missing.* remove the split's files and convert again"):
        convert(plan(tree, tmp_path, shards=4))
    for path in tmp_path.iterdir():
        path.unlink()
    convert(plan(tree, tmp_path, shards=4), workers=1)
    assert files(tmp_path) == files(packed)


def test_an_unfinished_one_with_other_options_is_refused(tree, tmp_path):
    convert(plan(tree, tmp_path, shards=4), workers=1, part=(0, 2))
    with pytest.raises(UserError, match='encoding'):
        convert(plan(tree, tmp_path, shards=4, encoding=Encoding(resize_shorter=8)))
    shutil.rmtree(tmp_path / '.train.convert')
    with pytest.raises(UserError, match='is in the way'):
        convert(plan(tree, tmp_path, shards=4))


def test_a_full_disk_leaves_no_shard_that_is_not_whole(slow_tree, tmp_path):
    process = command(slow_tree, tmp_path / 'out', '--shards', '4', '--workers', '1',
                      before=('sh', '-c', 'ulimit -f 600; exec "$@"', 'sh'))
    output = process.communicate(timeout=300)[0]
    assert process.returncode == 1 and 'Traceback' not in output
    assert 'error: cannot write to' in output and 'File too large' in output and 'GB are free' in output
    assert not list((tmp_path / 'out').glob('*.array_record')) and not (tmp_path / 'out' / 'train.json').exists()
    process = command(slow_tree, tmp_path / 'out', '--shards', '4', '--workers', '1')
    assert '96 images, 0 left out' in process.communicate(timeout=300)[0]


def test_what_does_not_come_back_as_written_is_no_shard(tree, tmp_path, monkeypatch):
    class Careless(shards.ArrayRecordWriter):
        def write(self, record):
            super().write(flip_bit(record, len(record) // 2))

    monkeypatch.setattr(shards, 'ArrayRecordWriter', Careless)
    made = plan(tree, tmp_path, shards=4)
    made.folder.mkdir()
    with pytest.raises(OSError, match='is not what was written'):
        shards.make_shard(made, 1, lambda: None, 0)
    assert not list(tmp_path.glob('*.array_record')) and not list(made.folder.iterdir())


def test_a_worker_that_dies_is_noticed(slow_tree, tmp_path):
    process = command(slow_tree, tmp_path / 'out', *SLOW)
    while not list((tmp_path / 'out').glob('*.array_record')):
        assert process.poll() is None, process.stdout.read()
        time.sleep(0.005)
    workers = subprocess.run(['pgrep', '-P', str(process.pid), '-f', 'spawn_main'], text=True, capture_output=True)
    killed = int(workers.stdout.split()[0])
    os.kill(killed, signal.SIGKILL)
    output = process.communicate(timeout=60)[0]
    assert process.returncode == 1 and f'error: worker process {killed} has ended, with exit code -9' in output


def test_wrong_names_and_parts(tree, tmp_path):
    with pytest.raises(UserError, match=r"--name 'a/b' must be of letters"):
        Plan(sources.create('folder', str(tree), 'train'), {}, tmp_path, 'a/b')
    for output, arguments, message in ((tmp_path, ('--shard-index', '2', '--shard-count', '2'), 'must be in 0..1'),
                                       (tree, (), 'is --path: a split must not lie in one folder in two formats')):
        process = command(tree, output, *arguments)
        assert message in process.communicate()[0] and process.returncode == 1


def test_records_are_what_the_docstring_says():
    record = array_record.pack(2**32 - 1, 3, 'a/b.png', 7, b'abc')
    assert record[4 + int.from_bytes(record[:4], 'little'):] == b'abc'
    assert array_record.unpack(record) == (2**32 - 1, 3, 'a/b.png', 7, b'abc')


def test_the_manifest_has_what_is_needed_to_check_it(packed):
    manifest = json.loads((packed / 'train.json').read_text())
    for shard in manifest['shards']:
        assert array_record.sha256(packed / shard['file']) == shard['sha256']
    assert manifest['class_names'] == ['ant', 'bee', 'cat'] and manifest['made_of']['source']['format'] == 'folder'
