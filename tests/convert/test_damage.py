"""What was changed, cut or mixed after packing is noticed."""

import json
import shutil

import numpy as np
import pytest
from fixtures_convert import ROWS, SHARD, plan, reopened
from fixtures_images import class_tree, flip_bit, image_folder

from imagenet_jax import sources
from imagenet_jax.convert import Encoding, convert
from imagenet_jax.errors import UserError
from imagenet_jax.sources import array_record


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
    (damage('train.json', lambda data: b'[' * 100_000), 'train.json is no manifest'),
    (damage('train.json', lambda data: data.replace(b'"examples": 10', b'"examples": "10"', 1)),
     r'of another kind are shards\[0\].examples$'),
    (damage('train.json', lambda data: data.replace(b'"shards": [\n', b'"shards": [1,\n')), r'are shards\[0\]'),
    (damage('train.json', lambda data: data.replace(b'"sha256"', b'"sha1"', 1)), 'are index.sha256$'),
    (damage('train.json', lambda data: data.replace(b'"class_names": [', b'"class_names": [1,')), 'are class_names$'),
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


def save(**arrays):
    return lambda file: np.savez(file, **arrays)


@pytest.mark.parametrize(('write', 'message'), [
    (save(labels=np.zeros(ROWS, np.int32)), "train.index.npz is no index .*'keys.*convert again"),
    (lambda file: file.write(b'PK no archive'), 'train.index.npz is no index .*convert again'),
    (lambda file: file.write(b''), 'train.index.npz is no index .*convert again'),
    (lambda file: np.save(file, np.zeros(ROWS)), 'train.index.npz is no index .*convert again'),
    (save(labels=np.full(ROWS, 0.5), keys=np.array([b'a'] * ROWS)), 'labels of type float64 in 1 dim.*convert again'),
    (save(labels=np.zeros((ROWS, 1), int), keys=np.array([b'a'] * ROWS)), 'labels of type int64 in 2 dim')])
def test_an_index_that_the_manifest_knows_may_be_none_all_the_same(packed, tmp_path, write, message):
    shutil.copytree(packed, tmp_path, dirs_exist_ok=True)
    index, manifest = tmp_path / 'train.index.npz', json.loads((tmp_path / 'train.json').read_text())
    with index.open('wb') as file:
        write(file)
    manifest['index'] |= {'bytes': index.stat().st_size, 'sha256': array_record.sha256(index)}
    (tmp_path / 'train.json').write_text(json.dumps(manifest))
    with pytest.raises(UserError, match=message):
        reopened(tmp_path)
