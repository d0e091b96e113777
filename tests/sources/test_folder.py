"""Folders of class folders."""

import logging
import os
import pickle

import numpy as np
import pytest
from fixtures_images import class_tree, encode, image_folder, jpeg, scene
from fixtures_sources import NAMES, create, refused

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


def test_what_systems_leave_in_folders_is_no_class_and_no_image(tmp_path):
    class_tree(tmp_path)
    image_folder(tmp_path, {f'train/{name}': b'' for name in (
        '__MACOSX/._ant', '@eaDir/thumb.jpg', 'lost+found/x.jpg', 'ant/._000.JPEG', 'ant/@eaDir/000.JPEG/small.jpg',
        'ant/__MACOSX/a.jpg', '.DS_Store', 'bee/.DS_Store', 'desktop.ini')})
    source = create('folder', tmp_path)
    assert len(source) == 11 and source.class_names == NAMES


def test_images_in_no_class_are_left_out_and_named(tmp_path, caplog):
    image_folder(class_tree(tmp_path), {'train/z.jpg': b'', 'train/y.jpg': b''})
    with caplog.at_level(logging.WARNING):
        assert len(create('folder', tmp_path)) == 11
    assert '2 images that are in no class folder are left out, the first y.jpg' in caplog.text


def test_a_class_that_is_the_split_itself_is_a_loop_and_one_that_is_another_refused(tmp_path):
    class_tree(tmp_path)
    for name, target in (('up', '..'), ('here', '.'), ('itself', 'itself'), ('nowhere', 'gone')):
        (tmp_path / 'train' / name).symlink_to(target)
    assert create('folder', tmp_path).class_names == NAMES
    (tmp_path / 'train' / 'dog').symlink_to('cat')
    refused('cat and dog', 'are one folder', path=tmp_path)


@pytest.mark.parametrize('files,split,words', [
    (['data/train/ant/0.jpg'], 'train', ['<root>/<split>/<class>/<image>', 'There is one in', 'config.data.path']),
    (['train/train/ant/0.jpg', 'train/train/bee/0.jpg'], 'train', ['splits, not classes: train', 'config.data.path']),
    (['train/ant/0.jpg', 'val/ant/0.jpg'], '', ['splits, not classes: train, val']),
    (['train/imagenet/ant/0.jpg', 'train/imagenet/bee/0.jpg'], 'train', ['one class folder, imagenet', 'ant, bee']),
    (['train/ant/0.jpg', 'valid/ant/0.jpg'], 'val', ["split 'valid'", 'config.data.train_split or eval_split']),
    (['validation/ant/0.jpg'], 'valid', ["split 'validation'"]),
    (['train.zip', 'x.jpg'], 'train', ['train.zip', 'Unpack']),
    (['train/n01.tar', 'train/n02.tar'], 'train', ['n01.tar, n02.tar', 'Unpack']),
    (['train/ant/0.jpg', 'train/bee/bee.zip'], 'train', ['bee holds no image', 'bee.zip'])])
def test_what_lies_otherwise_is_said(tmp_path, files, split, words):
    refused(*words, path=image_folder(tmp_path, dict.fromkeys(files, b'')), split=split)


def test_an_archive_as_path_is_said(tmp_path):
    image_folder(tmp_path, {'data.zip': b''})
    refused('data.zip is a file: unpack it', path=tmp_path / 'data.zip')


def test_a_folder_that_cannot_be_read_is_no_empty_one(tmp_path, monkeypatch):
    def scandir(folder, real=os.scandir):
        if os.fspath(folder).endswith('deep'):
            raise PermissionError(13, 'Permission denied', os.fspath(folder))
        return real(folder)
    image_folder(class_tree(tmp_path), {'train/ant/deep/x.jpg': b''})
    monkeypatch.setattr(os, 'scandir', scandir)
    refused(tmp_path, 'cannot be read', 'Permission denied', 'ant/deep', path=tmp_path)
    refused('cannot be read', 'File name too long', path='x' * 300)


def test_a_file_that_is_larger_than_any_image_is_not_read(tmp_path):
    source = create('folder', class_tree(tmp_path))
    with open(tmp_path / 'train' / source.key(0), 'wb') as file:
        file.truncate(1 << 40)
    with pytest.raises(OSError, match='more than an image has'):
        source.image(0)
