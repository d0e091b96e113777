"""Lists of paths and labels."""

import os
import pickle

import numpy as np
import pytest
from fixtures_images import image_folder
from fixtures_layouts import LAYOUTS, listed, text
from fixtures_sources import create, refused

from imagenet_jax import sources
from imagenet_jax.errors import UserError


def test_list_keeps_its_order_and_its_paths(tmp_path):
    source = create('list', listed(tmp_path, '\ufeff# from a mirror\r\ntrain/a b/1.JPEG  2\r\n\r\ntrain/c.JPEG\t0\r\n'))
    assert [source[i] for i in range(len(source))] == [
        {'image': b'one', 'label': 2, 'key': 'train/a b/1.JPEG'}, {'image': b'two', 'label': 0, 'key': 'train/c.JPEG'}]
    assert source.labels.dtype == np.int32 and source.class_names == ()


def test_list_of_images_elsewhere(tmp_path):
    image_folder(tmp_path / 'photos', {'c.JPEG': b'two'})
    text(tmp_path / 'lists', train='c.JPEG 0\n')
    for images in (str(tmp_path / 'photos'), '../photos'):
        assert create('list', tmp_path / 'lists', images=images).image(0) == b'two'
    assert create('list', tmp_path, 'lists/train', images='photos').image(0) == b'two'
    refused(tmp_path / 'lists' / 'none', 'data.images', format='list', path=tmp_path / 'lists', images='none')


def test_list_follows_links_and_undecodable_names(tmp_path):
    name = os.fsdecode(b'\xff.JPEG')
    image_folder(tmp_path / 'disk', {name: b'three'})
    root = image_folder(tmp_path / 'set', {'train.txt': b'train/\xff.JPEG 1\n'})
    (root / 'train').symlink_to(tmp_path / 'disk', target_is_directory=True)
    assert pickle.loads(pickle.dumps(create('list', root))).image(0) == b'three'


def test_a_listed_image_that_is_missing_is_a_bad_sample(tmp_path):
    source = create('list', listed(tmp_path, 'train/none.JPEG 0\ntrain/c.JPEG 1\n'))
    with pytest.raises(OSError, match='none'):
        source.image(0)
    assert source.image(1) == b'two'


@pytest.mark.parametrize('line,words', [
    ('../outside.JPEG 0', 'leads out'), ('train/../../outside.JPEG 0', 'leads out'), ('/etc/passwd 0', 'leads out'),
    ('train/c.JPEG', 'does not end in a label'), ('train/c.JPEG n01440764', 'does not end in a label'),
    ('train/c.JPEG 1.0', 'does not end in a label'), ('train/c.JPEG \u0661', 'does not end in a label'),
    ('train/c.JPEG 4294967296', 'does not end in a label'), ('7', 'no path'), ('train/c\0.JPEG 0', 'no path of a file'),
    ('x' * 5000 + ' 0', 'no path of a file')])
def test_broken_lines_are_refused_with_their_number(tmp_path, line, words):
    refused(f'{tmp_path / "train.txt"}:2', words, format='list', path=listed(tmp_path, f'train/c.JPEG 0\n{line}\n'))


def test_list_without_entries_or_file_is_refused(tmp_path):
    refused("'train' is empty", format='list', path=listed(tmp_path, '# nothing\n'))
    refused(tmp_path / 'val.txt', 'train.txt', format='list', path=tmp_path, split='val')
    refused('outside 0..1', 'train/a b/1.JPEG', format='list', path=listed(tmp_path), num_classes=2)
    one_of_none = listed(tmp_path, 'train/a.JPEG 0\ntrain/c.JPEG -1\n')
    refused('outside 0..2', 'the first -1 at train/c.JPEG', format='list', path=one_of_none)


def test_a_label_that_is_no_class_number_is_refused(tmp_path):
    path = LAYOUTS['list'](tmp_path)
    with (path / 'train.txt').open('a') as file:
        file.write(f'{(path / "train.txt").read_text().split()[0]} 2000000000\n')
    with pytest.raises(UserError, match=r'outside 0\.\.999999, the first 2000000000'):
        sources.create('list', str(path), 'train')


@pytest.mark.parametrize('names', [
    'house finch\ncrane\ncrane\n', '0 house finch\n1 crane\n2 crane', '2: crane\n\n0: house finch\n1:crane\n',
    '0,house finch\n1,crane\n2,crane\n', "{0: 'house finch',\n 1: 'crane', 2: \"crane\"}"])
def test_class_names_of_a_list(tmp_path, names):
    source = create('list', listed(tmp_path, labels_to_content=names))
    assert source.class_names == ('house finch', 'crane', 'crane')


@pytest.mark.parametrize('names,words', [
    ('0 a\n2 b\n', 'look at label 1'), ('0 a\n0 b\n', 'look at label 1'), ('1 a\n2 b\n', 'look at label 0'),
    ('0 a\nb\n', "'b' does not begin with a label"), ("{0: 'a', 0: 'b'}", 'look at label 1'),
    ("{0: __import__('os').getcwd()}", 'not the text of a dict'), ("{'a': 0}", 'dict of labels'),
    ("{0: 'a'", 'not the text of a dict'), ('{**{}}', 'not the text of a dict'), ('{' * 9000, 'not the text of a dict'),
    ("{-1: 'a', 0: 'b'}", 'look at label -1')])
def test_broken_class_names_of_a_list_are_refused(tmp_path, names, words):
    refused(tmp_path / 'labels_to_content.txt', words, format='list', path=listed(tmp_path, labels_to_content=names))


def test_class_names_that_are_not_utf8_are_refused(tmp_path):
    image_folder(listed(tmp_path), {'labels_to_content.txt': b'K\xe4fer\n'})
    refused('labels_to_content.txt', 'not UTF-8', format='list', path=tmp_path)


def test_a_list_beside_the_folders_it_names_is_no_second_format(tmp_path):
    image_folder(tmp_path, {'train/n01440764/1.JPEG': b'one', 'train/n01443537/2.JPEG': b'two'})
    text(tmp_path, train='train/n01443537/2.JPEG 0\n')
    assert len(create('folder', tmp_path)) == 2
    assert create('list', tmp_path)[0] == {'image': b'two', 'label': 0, 'key': 'train/n01443537/2.JPEG'}
