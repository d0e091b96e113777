"""Tars as WebDataset packs them."""

import json
import logging
import pickle
import subprocess

import numpy as np
import pytest
from fixtures_images import class_tree, flip_bit, image_folder, jpeg
from fixtures_layouts import shards, tar
from fixtures_sources import create, refused

from imagenet_jax.convert import Plan, convert
from imagenet_jax.sources import tars, webdataset


def one(root, *files, name='train-0.tar', **options):
    """The split of one tar."""
    tar(root / name, files)
    return create('webdataset', root, **options)


@pytest.mark.parametrize(('name', 'split'), [
    ('imagenet1k-train-%04d.tar', 'train'), ('train-%06d.tar', 'train'), ('data/train-%05d-of-00002.tar', 'train'),
    ('train/%03d.tar', 'train'), ('train/tiny-%03d.tar', 'train'), ('tiny_val_%d.tar', 'val'), ('%05d.tar', ''),
    ('imagenet1k-validation-%02d.tar', 'val'), ('valid/%d.tar', 'validation')])
def test_samples_come_in_the_order_of_the_tars(tmp_path, name, split):
    source = create('webdataset', shards(tmp_path, name), split)
    assert source.labels.tolist() == [0, 1, 2, 0, 1, 2] and source.labels.dtype == np.int32
    assert [source.image(i) for i in (5, 0, 3, 1, 2, 4)] == [jpeg(i) for i in (5, 0, 3, 1, 2, 4)]
    assert source.key(4) == f'{(name % 1).rpartition("/")[2]}:n/4.jpg' and source.class_names == ()


def test_shards_are_sorted_by_number(tmp_path):
    for number in range(11):
        tar(tmp_path / 'train' / f'{number}.tar', [('a.jpg', jpeg(number)), ('a.cls', b'0')])
    source = create('webdataset', tmp_path)
    assert [source.image(i) for i in (2, 10)] == [jpeg(2), jpeg(10)]


@pytest.mark.parametrize('files', [
    [('x.json', b'{"caption": "no label"}'), ('x.jpg', jpeg()), ('x.cls', b' 2\n')],
    [('./d.r/x.PNG', jpeg()), ('./d.r/x.json', b'{"label": "cat", "class_id": 2}')],
    [('x.cls', b'2'), ('x.txt', b'a cat'), ('x.seg.png', b'mask'), ('x.webp', jpeg()), ('__key__.cls', b'none')],
    [('x' * 150 + '.jpeg', jpeg()), ('x' * 150 + '.CLS', b'2')]], ids=['both', 'json', 'others', 'long name'])
def test_a_sample_is_the_files_of_one_name(tmp_path, files):
    source = one(tmp_path, *files)
    assert source.labels.tolist() == [2] and source.image(0) == jpeg()


def test_files_of_a_sample_may_lie_apart(tmp_path):
    source = one(tmp_path, *[(f'{i}.jpg', jpeg(i)) for i in range(3)], *[(f'{i}.cls', b'%d' % i) for i in (2, 0, 1)])
    assert source.labels.tolist() == [0, 1, 2] and source.image(1) == jpeg(1)


def test_another_field_of_json(tmp_path):
    text = json.dumps({'label': 0, 'coarse': 1}).encode()
    assert one(tmp_path, ('x.jpg', jpeg()), ('x.cls', b'2'), ('x.json', text), labels='coarse').labels.tolist() == [1]
    refused('x.json must have the label', 'as fine', format='webdataset', path=tmp_path, labels='fine')


def test_class_names_lie_beside(tmp_path):
    image_folder(shards(tmp_path, 'train/%d.tar'), {'classnames.txt': b'ant\nbee\ncat\n'})
    assert create('webdataset', tmp_path).class_names == ('ant', 'bee', 'cat')
    (tmp_path / 'classnames.txt').write_text('ant\nbee\n')
    refused('names 2 classes', '0.tar:n/2.jpg has label 2', format='webdataset', path=tmp_path)


def test_a_sample_without_an_image_is_bad(tmp_path, caplog):
    with caplog.at_level(logging.WARNING):
        source = one(tmp_path, ('a.cls', b'1'), ('b.jpg', jpeg()), ('b.cls', b'0'))
    assert source.labels.tolist() == [1, 0] and source.image(1) == jpeg()
    assert '1 samples have no image, the first train-0.tar:a' in caplog.text
    with pytest.raises(OSError, match='no image'):
        source.image(0)


@pytest.mark.parametrize(('files', 'words'), [
    ([('a.jpg', jpeg()), ('b.jpg', jpeg()), ('b.cls', b'0')], ['1 of 2 samples have no label, the first a.jpg']),
    ([('a.jpg', jpeg()), ('a.cls', b'1.5')], ['a.cls must hold a whole number', "b'1.5'"]),
    ([('a.jpg', jpeg()), ('a.cls', b'n01440764')], ['a.cls must hold a whole number']),
    ([('a.jpg', jpeg()), ('a.cls', b'9' * 10)], ['9999999999 is no label']),
    ([('a.jpg', jpeg()), ('a.cls', b'3')], ['outside 0..2', 'train-0.tar:a.jpg']),
    ([('a.jpg', jpeg()), ('a.cls', b'-1')], ['kept secret are -1: use another split']),
    ([('a.jpg', jpeg()), ('a.json', b'{"label": true}')], ['a.json must have the label', "{'label': True}"]),
    ([('a.jpg', jpeg()), ('a.json', b'[' * 100_000)], ['a.json is no JSON']),
    ([('a.jpg', jpeg()), ('a.png', jpeg()), ('a.cls', b'0')], ['a.jpg and a.png are images of one sample']),
    ([('a.jpg', jpeg()), ('a.cls', b'0'), ('a.cls', b'1')], ['a.cls is there twice']),
    ([('a.txt', b'x'), ('a.cls', b'0')], ['no sample has an image']), ([], ["'train' is empty"])])
def test_wrong_samples_are_named(tmp_path, files, words):
    tar(tmp_path / 'train-0.tar', files)
    refused(tmp_path, *words, format='webdataset', path=tmp_path)


@pytest.mark.parametrize(('damage', 'words'), [
    (lambda data: data[:1000], 'ends after the archive'), (lambda data: data[:512], 'not whole'),
    (lambda data: data.rstrip(b'\0'), 'not whole'), (lambda data: data + data, 'damaged or not whole'),
    (lambda data: flip_bit(data, 3), 'damaged or not whole'), (lambda data: b'', 'not whole'),
    (lambda data: b'version https://git-lfs.github.com/spec/v1\n', 'git lfs pull')],
    ids=['cut', 'header', 'no end', 'two', 'flipped', 'empty', 'pointer'])
def test_damaged_tars_are_refused(tmp_path, damage, words):
    file = shards(tmp_path) / 'tiny-train-0001.tar'
    file.write_bytes(damage(file.read_bytes()))
    refused(file, words, format='webdataset', path=tmp_path)


def test_a_header_that_claims_gigabytes_is_not_read(tmp_path, monkeypatch):
    monkeypatch.setattr(tars, '_LONGEST_HEADER', 1000)
    tar(tmp_path / 'train-0.tar', [('x' * 2000 + '.jpg', jpeg())])
    refused('a header claims', format='webdataset', path=tmp_path)


@pytest.mark.parametrize('name', ['train-0.tar.gz', 'train-0.tar', 'it is/train/0.tgz'])
def test_the_command_that_unpacks_a_compressed_tar(tmp_path, name):
    tar(tmp_path / name, [('a.jpg', jpeg()), ('a.cls', b'0')], 'w:gz')
    root = tmp_path / 'it is' if 'it is' in name else tmp_path
    with pytest.raises(Exception, match='is compressed') as caught:
        create('webdataset', root)
    subprocess.run(str(caught.value).rpartition('before: ')[2], shell=True, check=True)
    assert create('webdataset', root).image(0) == jpeg()


def test_missing_shards_are_refused(tmp_path):
    (shards(tmp_path) / 'tiny-train-0001.tar').rename(tmp_path / 'tiny-train-0003.tar')
    refused('2 are missing, by number: 1, 2', format='webdataset', path=tmp_path)
    refused('no *test-*.tar', 'tars there: tiny-train-0000.tar', format='webdataset', path=tmp_path, split='test')


def test_tars_of_other_layouts_are_none_of_this(tmp_path):
    class_tree(tmp_path)
    for name in ('train.tar', 'train/n01440764.tar'):
        tar(tmp_path / name, [])
    assert len(create('folder', tmp_path)) == 11
    tar(tmp_path / 'ILSVRC2012_img_train.tar', [])
    assert not webdataset.WebDataset.is_at(str(tmp_path), 'train')


def test_what_lies_where_is_kept(tmp_path, cache, monkeypatch):
    source = create('webdataset', shards(tmp_path))
    with monkeypatch.context() as patch:
        patch.setattr(webdataset.tars, 'members', lambda *_: pytest.fail('read again'))
        again = pickle.loads(pickle.dumps(create('webdataset', tmp_path)))
    assert [again[i] for i in range(6)] == [source[i] for i in range(6)] and len(list(cache.iterdir())) == 1
    tar(tmp_path / 'tiny-train-0001.tar', [('a.jpg', jpeg(9)), ('a.cls', b'1')])
    assert create('webdataset', tmp_path).labels.tolist() == [0, 1, 2, 1]
    with pytest.raises(OSError, match='shorter than when it was opened'):
        (tmp_path / 'tiny-train-0001.tar').write_bytes(b'')
        source.image(4)


def test_it_goes_straight_into_convert(tmp_path):
    source = create('webdataset', shards(tmp_path))
    convert(Plan(source, {'format': 'webdataset'}, tmp_path / 'out', 'train'), workers=1)
    packed = create('array_record', tmp_path / 'out')
    assert [packed[i] for i in range(6)] == [source[i] for i in range(6)]
