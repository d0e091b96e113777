"""A held-out part of a data set without a split to evaluate on."""

import os
import pickle
import unicodedata

import pytest
from fixtures_images import class_tree, image_folder
from fixtures_layouts import LAYOUTS, text
from fixtures_sources import create, refused


def keys(root, split, holdout=0.3, format='folder', **options):
    source = create(format, root, split, num_classes=None, holdout=holdout, **options)
    return [source.key(i) for i in range(len(source))]


def tree(root, count=60, split='.'):
    return class_tree(root, count, split)


@pytest.mark.parametrize('split', ['.', 'train'])
def test_the_parts_are_disjoint_and_all_there_is(tmp_path, split):
    tree(tmp_path, split=split)
    whole = create('folder', tmp_path, '' if split == '.' else 'train')
    rest, held = keys(tmp_path, 'train'), keys(tmp_path, 'val')
    assert sorted(rest + held) == [whole.key(i) for i in range(60)] and not set(rest) & set(held)
    assert 9 <= len(held) <= 27 and rest == sorted(rest)
    part = pickle.loads(pickle.dumps(create('folder', tmp_path, 'val', holdout=0.3)))
    assert part.class_names == whole.class_names and part.labels.dtype == whole.labels.dtype
    for i, key in enumerate(held):
        assert part[i] == whole[[whole.key(j) for j in range(60)].index(key)]


def test_a_key_decides_whatever_comes_or_goes(tmp_path):
    # By a hash that is written down: the same on every machine, and in every later version.
    assert keys(tree(tmp_path / 'few', 12), 'val', 0.25) == ['ant/009.JPEG', 'cat/008.JPEG']
    few, many = set(keys(tmp_path / 'few', 'val')), set(keys(tree(tmp_path / 'many'), 'val'))
    assert few == {key for key in many if int(key[4:7]) < 12}
    assert few <= set(keys(tmp_path / 'few', 'val', 0.5))
    listed = sorted(f'{p.parent.name}/{p.name} 0\n' for p in (tmp_path / 'few').glob('*/*'))
    text(tmp_path / 'few', train=''.join(reversed(listed)))
    assert set(keys(tmp_path / 'few', 'val', format='list')) == few


def test_names_decomposed_by_a_file_system_stay_in_their_part(tmp_path):
    for form in ('NFC', 'NFD'):
        image_folder(tmp_path / form, {unicodedata.normalize(form, f'ant/Käfer é {i}.jpg'): b'' for i in range(30)}
                     | {os.fsdecode(b'ant/\xff.jpg'): b''})
    composed, decomposed = (keys(tmp_path / form, 'val') for form in ('NFC', 'NFD'))
    assert composed and composed == [unicodedata.normalize('NFC', key) for key in decomposed]


@pytest.mark.parametrize('format', LAYOUTS)
def test_any_layout_can_be_parted(tmp_path, format):
    LAYOUTS[format](tmp_path)
    whole, fraction = create(format, tmp_path, num_classes=None), 0.5
    rest, held = (keys(tmp_path, split, fraction, format, eval_split='dev') for split in ('train', 'dev'))
    assert rest and held and sorted(rest + held) == sorted(whole.key(i) for i in range(len(whole)))


def test_another_split_is_opened_as_it_is(tmp_path):
    tree(tmp_path, 12, 'train')
    tree(tmp_path, 5, 'test')
    assert len(keys(tmp_path, 'test')) == 5
    refused(tmp_path / 'dev', path=tmp_path, split='dev', holdout=0.3)


def test_it_is_refused_beside_a_split_to_evaluate_on(tmp_path):
    for name in ('val', 'valid', 'validation'):
        tree(tmp_path / name, 12, 'train')
        tree(tmp_path / name, 5, name)
        for split in ('train', 'val'):
            refused('config.data.holdout', f"has split '{name}'", f'config.data.eval_split={name}',
                    path=tmp_path / name, split=split, holdout=0.3)
    refused('digits', 'splits of its own', format='digits', holdout=0.3)
    refused('both', path=tmp_path / 'val', holdout=0.3, eval_split='train')


@pytest.mark.parametrize('fraction', [-0.1, 1, 1.5, float('nan'), float('inf'), 'half', True])
def test_fractions_out_of_range_are_refused(tmp_path, fraction):
    refused('config.data.holdout', fraction, path=tree(tmp_path), holdout=fraction)


def test_a_part_without_images_is_refused(tmp_path):
    for fraction in (1e-9, 1 - 1e-9):
        refused('config.data.holdout', 'of 60 images', path=tree(tmp_path), holdout=fraction)


def test_a_folder_without_splits_says_what_to_give(tmp_path):
    refused('holdout=0.1', path=tree(tmp_path))
    tree(tmp_path / 'other', split='train')
    refused('holdout=0.1', path=tmp_path / 'other', split='val')
