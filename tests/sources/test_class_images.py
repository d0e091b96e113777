"""The list of a folder's images is kept, and not longer than it is true."""

import logging
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from fixtures_images import class_tree
from fixtures_sources import create

from imagenet_jax.sources import class_images, kept


@pytest.fixture
def root(tmp_path, monkeypatch, caplog):
    """Eleven images in three classes, some deeper, that count as many and as unchanged for long."""
    caplog.set_level(logging.INFO, 'imagenet_jax')
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'cache'))
    monkeypatch.setattr(class_images, '_MANY', 3)
    monkeypatch.setattr(class_images, '_CLOCK_NS', -10**18)
    data = class_tree(tmp_path / 'data')
    deep = data / 'train' / 'bee' / 'deep' / 'er'
    deep.mkdir(parents=True)
    for name in ('é.jpg', os.fsdecode(b'\xff.jpg'), 'notes.txt'):
        (deep / name).write_bytes(b'')
    return data


def rows(source):
    return [(source.key(i), int(source.labels[i])) for i in range(len(source))]


def opened(root, caplog):
    """(key, label) of each image, and whether the list was the kept one."""
    caplog.clear()
    return rows(create('folder', root, num_classes=4)), 'no folder has changed since' in caplog.text


def test_what_is_kept_is_what_was_listed(root, caplog):
    first, again = opened(root, caplog), opened(root, caplog)
    assert (first[1], again[1]) == (False, True) and first[0] == again[0] and len(first[0]) == 13
    assert '1 files that are not images' in caplog.text
    assert first[0] == sorted(first[0]) and ('bee/deep/er/é.jpg', 1) in first[0]


CHANGES = {
    'a new image': lambda train: (train / 'ant' / 'new.jpg').write_bytes(b''),
    'one gone': lambda train: (train / 'ant' / '000.JPEG').unlink(),
    'one renamed': lambda train: (train / 'bee/deep/er/é.jpg').rename(train / 'bee/deep/er/a.jpg'),
    'a new folder': lambda train: shutil.copytree(train / 'ant', train / 'cat' / 'more'),
    'a folder gone': lambda train: shutil.rmtree(train / 'bee' / 'deep'),
    'a new class': lambda train: shutil.copytree(train / 'ant', train / 'dog'),
    'a class renamed': lambda train: (train / 'ant').rename(train / 'ape'),
    'a link to other images': lambda train: (train / 'cat' / 'link').symlink_to(train / 'ant')}


@pytest.mark.parametrize('change', CHANGES)
def test_any_change_is_seen_also_with_the_times_put_back(root, caplog, change, monkeypatch):
    opened(root, caplog)
    folders = [root / 'train', *(path for path in (root / 'train').rglob('*') if path.is_dir())]
    before = {folder: os.stat(folder) for folder in folders}
    CHANGES[change](root / 'train')
    for folder, was in before.items():
        if folder.exists():
            os.utime(folder, ns=(was.st_atime_ns, was.st_mtime_ns))
    found, was_kept = opened(root, caplog)
    monkeypatch.setattr(kept, 'load', lambda of: None)
    assert not was_kept and found == opened(root, caplog)[0]


def test_a_list_is_not_kept_where_a_change_might_not_show(root, caplog, monkeypatch):
    monkeypatch.setattr(class_images, '_CLOCK_NS', 10**12)  # changed just now
    assert [opened(root, caplog)[1] for _ in range(2)] == [False, False]
    monkeypatch.setattr(class_images, '_CLOCK_NS', -10**18)
    monkeypatch.setattr(class_images, '_MANY', 100)  # few
    assert [opened(root, caplog)[1] for _ in range(2)] == [False, False]


def test_of_a_list_that_cannot_be_kept_no_part_is_left(root, caplog, monkeypatch):
    def fill(file, values):
        file.write(b'some')
        raise OSError(28, 'No space left on device')
    monkeypatch.setattr(kept.np, 'save', fill)
    opened(root, caplog)
    assert 'not kept for the next time: cannot write' in caplog.text and 'No space left' in caplog.text
    assert not [path for path in Path(os.environ['XDG_CACHE_HOME']).rglob('*') if path.is_file()]


@pytest.mark.parametrize('damage', [
    lambda whole: whole[:200], lambda whole: b'PK\x05\x06' + bytes(18), lambda whole: b'PK\x03\x04' + whole,
    lambda whole: whole.replace(b"{'descr'", b"(('descr'"),
    lambda whole: whole.replace(b"'shape': (", b"'shape': (99999999"),
    lambda whole: whole.replace(b'ant/000', b'ant/007')])  # a name that is as good
def test_a_damaged_list_is_made_anew(root, caplog, damage):
    whole = opened(root, caplog)[0]
    file, = Path(os.environ['XDG_CACHE_HOME']).rglob('*.npy')
    changed = damage(file.read_bytes())
    assert changed != file.read_bytes()
    file.write_bytes(changed)
    assert opened(root, caplog) == (whole, False) and opened(root, caplog) == (whole, True)


def test_a_class_that_is_a_link_is_followed_and_one_to_nothing_told_of(root, caplog):
    before = opened(root, caplog)[0]
    link = root / 'train' / 'ant'
    link.rename(root / 'ant')
    link.symlink_to(root / 'gone')
    assert len(opened(root, caplog)[0]) < len(before) and 'are no classes, and left out: ant' in caplog.text
    link.unlink()
    link.symlink_to(root / 'ant')
    assert opened(root, caplog)[0] == before and 'are no classes' not in caplog.text


def test_a_user_without_a_folder_has_no_list_kept(root, caplog, monkeypatch):
    monkeypatch.delenv('XDG_CACHE_HOME')
    monkeypatch.setattr(Path, 'home', _no_home)
    assert not opened(root, caplog)[1] and 'set HOME or XDG_CACHE_HOME' in caplog.text


def _no_home():
    raise RuntimeError('Could not determine home directory.')


def test_several_threads_give_the_order_of_one(root, monkeypatch):
    several = class_images.images(root / 'train', ['ant', 'bee', 'cat'])
    monkeypatch.setattr(class_images, '_THREADS', 1)
    monkeypatch.setattr(kept, 'load', lambda of: None)
    for one, other in zip(several, class_images.images(root / 'train', ['ant', 'bee', 'cat']), strict=True):
        np.testing.assert_array_equal(one, other)
