"""Folders of class folders."""

import logging
import os
import pickle

import numpy as np
import pytest
from fixtures_images import class_tree, encode, image_folder, jpeg, scene
from fixtures_sources import NAMES, create

from imagenet_jax import sources
from imagenet_jax.images.decode import DecodeError, decode


def test_folder_numbers_sorted_classes_and_sorts_their_images(tmp_path):
    files = {'val/bee/2.png': b'x', 'val/bee/10.JPG': b'y', 'val/ant/b/deep/er.webp': b'z', 'val/ant/z.jpeg': b'w',
             'val/cat/a.bmp': b'v'}
    source = create('folder', image_folder(tmp_path, files), 'val')
    assert source.class_names == NAMES
    rows = [source[i] for i in range(len(source))]
    assert [(row['key'], row['label'], row['image']) for row in rows] == [
        ('ant/b/deep/er.webp', 0, b'z'), ('ant/z.jpeg', 0, b'w'), ('bee/10.JPG', 1, b'y'), ('bee/2.png', 1, b'x'),
        ('cat/a.bmp', 2, b'v')]
    assert source.labels.dtype == np.int32


def test_folder_without_splits(tmp_path):
    class_tree(tmp_path, split='.')
    assert len(create('folder', tmp_path, '')) == 11


def test_hidden_and_other_files_are_left_out(tmp_path, caplog):
    class_tree(tmp_path)
    image_folder(tmp_path, {
        'train/ant/.000.JPEG': b'', 'train/ant/Thumbs.db': b'', 'train/bee/notes.txt': b'', 'train/bee/noending': b'',
        'train/.cache/x.png': b'', 'train/ant/.ipynb_checkpoints/copy.png': b'', 'train/list.txt': b''})
    with caplog.at_level(logging.WARNING):
        source = create('folder', tmp_path)
    assert len(source) == 11 and source.class_names == NAMES
    assert '4 files that are not images' in caplog.text


def test_loops_of_links_end(tmp_path):
    class_tree(tmp_path)
    (tmp_path / 'train' / 'ant' / 'loop').symlink_to(tmp_path / 'train', target_is_directory=True)
    (tmp_path / 'train' / 'itself').symlink_to('itself')
    source = create('folder', tmp_path)
    assert len(source) == 11 and source.class_names == NAMES


def test_links_to_folders_inside_a_class_are_followed_once(tmp_path):
    class_tree(tmp_path)
    more = image_folder(tmp_path / 'more', {'d.png': b'd', 'deep/e.png': b'e'})
    for name in ('first', 'second'):
        (tmp_path / 'train' / 'ant' / name).symlink_to(more, target_is_directory=True)
    (more / 'deep' / 'up').symlink_to(more, target_is_directory=True)
    (more / 'everything').symlink_to('/', target_is_directory=True)
    source = create('folder', tmp_path)
    assert len(source) == 13
    assert [key for key in map(source.key, range(13)) if key.endswith('.png')] == [
        'ant/first/d.png', 'ant/first/deep/e.png']


def test_a_named_pipe_is_a_bad_sample_and_not_waited_for(tmp_path):
    class_tree(tmp_path)
    os.mkfifo(tmp_path / 'train' / 'ant' / 'zz.jpg')
    source = create('folder', tmp_path)
    index = list(map(source.key, range(12))).index('ant/zz.jpg')
    with pytest.raises(OSError, match='no regular file'):
        source.image(index)


def test_a_class_may_be_a_link_to_a_folder(tmp_path):
    class_tree(tmp_path)
    elsewhere = image_folder(tmp_path / 'elsewhere', {'d.png': b'd'})
    (tmp_path / 'train' / 'dog').symlink_to(elsewhere, target_is_directory=True)
    source = create('folder', tmp_path, num_classes=4)
    assert source.class_names == (*NAMES, 'dog') and source[11] == {'image': b'd', 'label': 3, 'key': 'dog/d.png'}


def test_names_beyond_ascii(tmp_path):
    undecodable = os.fsdecode(b'\xff\xfe.jpg')  # not UTF-8, as an old disk may have it
    names = ('Käfer', '犬', 'a b')
    image_folder(tmp_path, {f'train/{name}/{file}': name.encode()
                            for name in names for file in ('ünï 🐝.JPEG', undecodable)})
    source = pickle.loads(pickle.dumps(create('folder', tmp_path)))
    assert source.class_names == tuple(sorted(names))
    assert {source.key(i) for i in range(6)} == {f'{n}/{f}' for n in names for f in ('ünï 🐝.JPEG', undecodable)}
    assert all(source.image(i).decode() == source.key(i).split('/')[0] for i in range(6))


def test_folder_reads_misnamed_images(tmp_path):
    png = encode(scene(6, 7), 'PNG')
    image_folder(tmp_path, {'train/ant/png.JPEG': png, 'train/bee/jpeg.png': jpeg(), 'train/cat/text.JPEG': b'text'})
    source = create('folder', tmp_path)
    np.testing.assert_array_equal(decode(source.image(0)), scene(6, 7))
    assert decode(source.image(1)).shape == (10, 12, 3)
    with pytest.raises(DecodeError):
        decode(source.image(2))


def test_a_file_that_goes_away_is_an_os_error(tmp_path):
    source = create('folder', class_tree(tmp_path))
    (tmp_path / 'train' / 'ant' / '000.JPEG').unlink()
    with pytest.raises(OSError, match='000'):
        source.image(0)


@pytest.mark.parametrize(('names', 'num_classes', 'labels', 'warned'), [
    (range(12), None, list(range(12)), False), (range(12), 12, list(range(12)), False),
    ((0, 1, 10), 11, [0, 1, 10], False), (('03', '00'), 4, [0, 3], False), ((1, 2, 10), 3, [0, 1, 2], True),
    ((0, 1, 10), None, [0, 1, 2], False),
    ((0, 10, 'ant', 2), 20, [0, 1, 2, 3], False)])
def test_folders_that_are_all_numbers_are_labels_by_number(tmp_path, caplog, names, num_classes, labels, warned):
    image_folder(tmp_path, {f'train/{name}/a.jpg': b'x' for name in names})
    source = sources.create('folder', str(tmp_path), 'train', num_classes)
    assert sorted(source.labels.tolist()) == labels
    for index in range(len(source)):
        assert source.class_names[source.labels[index]] == source.key(index).split('/')[0]
    assert ('order as text' in caplog.text) == warned
