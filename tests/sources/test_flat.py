"""Flat folders, classes in the names."""

import logging
import pickle

import numpy as np
import pytest
from fixtures_layouts import flat
from fixtures_sources import create, refused

WNIDS = ('n01440764', 'n01443537', 'n01484850')


def test_flat_labels_are_lines_of_synsets(tmp_path):
    source = pickle.loads(pickle.dumps(create('flat', flat(tmp_path))))
    assert source.class_names == WNIDS and source.labels.dtype == np.int32
    assert [(source.key(i), source[i]['label']) for i in range(4)] == [
        ('n01440764_10026.JPEG', 0), ('n01440764_ILSVRC2012_val_00000293.JPEG', 0), ('n01443537_1.png', 1),
        ('n01484850_3.JPEG', 2)]
    assert all(source.image(i) == source.key(i).encode() for i in range(4))


def test_flat_numbers_by_line_not_by_name(tmp_path):
    source = create('flat', flat(tmp_path, '\n'.join(reversed(WNIDS))))
    assert source.labels.tolist() == [2, 2, 1, 0]


def test_flat_leaves_out_what_is_no_image(tmp_path, caplog):
    flat(tmp_path, files=['readme', '.hidden.JPEG'])
    (tmp_path / 'train_flatten' / 'loop').symlink_to(tmp_path / 'train_flatten', target_is_directory=True)
    with caplog.at_level(logging.WARNING):
        assert len(create('flat', tmp_path)) == 4
    assert '2 files or folders that are not images' in caplog.text


@pytest.mark.parametrize('name', ['n09999999_1.JPEG', 'n01440764.JPEG', '_1.JPEG', 'x.JPEG'])
def test_flat_names_without_a_known_wnid_are_refused(tmp_path, name):
    refused('1 images', name, tmp_path / 'synsets.txt', format='flat', path=flat(tmp_path, files=[name]))


@pytest.mark.parametrize('synsets,words', [
    ('n01440764\nn01443537\nn01440764 again\n', ('synsets.txt:3', 'repeats n01440764 of line 1')),
    ('n01440764\n\nn01443537\n', ('synsets.txt:2', 'names no wnid')), ('', ('synsets.txt:1',))])
def test_broken_synsets_are_refused(tmp_path, synsets, words):
    refused(*words, format='flat', path=flat(tmp_path, synsets))


def test_flat_without_synsets_or_split_is_refused(tmp_path):
    flat(tmp_path)
    refused(tmp_path / 'val_flatten', 'train_flatten', format='flat', path=tmp_path, split='val')
    (tmp_path / 'synsets.txt').unlink()
    refused(tmp_path / 'synsets.txt', 'one wnid a line', format='flat', path=tmp_path)
