"""A conversion may be interrupted, shared among hosts, and done again."""

import filecmp
import logging
import multiprocessing
import os
import shutil
import signal
import socket
import subprocess
import sys
import time

import pytest
from fixtures_convert import ROWS, SHARD, files, plan, reopened
from fixtures_images import encode, flip_bit, image_folder, scene
from runs import ROOT, environment

from imagenet_jax import sources
from imagenet_jax.convert import Encoding, Plan, convert, shards
from imagenet_jax.errors import UserError


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


@pytest.mark.parametrize('report', ['{"keys": ["ant/0', '{}'])
def test_a_shard_whose_report_is_damaged_is_made_again(tree, packed, tmp_path, report):
    convert(plan(tree, tmp_path, shards=4), workers=1, part=(0, 2))
    (tmp_path / '.train.convert' / '00002.json').write_text(report)
    convert(plan(tree, tmp_path, shards=4), workers=1)
    assert files(tmp_path) == files(packed)


def test_a_folder_that_cannot_be_made_is_said(tree, tmp_path):
    (tmp_path / 'file').write_text('')
    with pytest.raises(UserError, match=r'cannot make .*file: .*Not a directory.*; choose another --output'):
        convert(plan(tree, tmp_path / 'file'))


def test_a_damaged_plan_is_said(tree, tmp_path):
    (tmp_path / '.train.convert').mkdir()
    (tmp_path / '.train.convert' / 'plan.json').write_text('{"source": ')
    with pytest.raises(UserError, match=r'plan.json is damaged .*remove .*\.train\.convert and train-\*'):
        convert(plan(tree, tmp_path, shards=4))


def test_where_another_process_was_faster_it_is_finished_too(tree, packed, tmp_path, monkeypatch):
    def make_while_another_does(*arguments):
        monkeypatch.undo()
        convert(plan(tree, tmp_path, shards=4), workers=1)
    monkeypatch.setattr('imagenet_jax.convert._make', make_while_another_does)
    assert convert(plan(tree, tmp_path, shards=4), workers=1)['examples'] == ROWS
    assert files(tmp_path) == files(packed)


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
