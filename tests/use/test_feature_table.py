"""Files of features: what is written is what is read, whole or not at all, and nothing else is taken for one."""

import dataclasses
import os

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

from imagenet_jax.errors import UserError
from imagenet_jax.use import feature_table
from imagenet_jax.use.feature_table import Features

SINGLE = np.array([1, 0, 1, 2, 2], np.int32)
MULTI = np.array([[1, 0, np.nan], [0, 0, 0], [1, 1, 1], [0, 1, 0], [np.nan, 0, 1]], np.float32)


def made(labels=SINGLE, names=('Bär', 'cat', 'x'), **changes):
    values = np.random.default_rng(0).normal(size=(5, 4)).astype(np.float32)
    keys = ['a.jpg', 'sub/é.png', 'long' * 30, '3', '猫.webp']
    return dataclasses.replace(Features(keys, labels, values, names, 'resnet, pooled'), **changes)


def parts(features, size=2):
    for start in range(0, len(features), size):
        rows = slice(start, start + size)
        yield dataclasses.replace(features, keys=features.keys[rows], labels=features.labels[rows],
                                  values=features.values[rows])


def same(a, b):
    assert (list(a.keys), a.class_names, a.origin) == (list(b.keys), b.class_names, b.origin)
    np.testing.assert_array_equal(a.labels, b.labels)
    np.testing.assert_array_equal(a.values, b.values)
    assert (a.labels.dtype, a.values.dtype) == (b.labels.dtype, b.values.dtype)


@pytest.mark.parametrize('ending', ['.npz', '.Parquet'])
@pytest.mark.parametrize(('labels', 'names'), [(SINGLE, ('Bär', 'cat', 'x')), (SINGLE, ()), (MULTI, ('a', 'b', 'c'))],
                         ids=['names', 'none', 'multi'])
def test_what_is_written_is_read(ending, labels, names, tmp_path, monkeypatch):
    monkeypatch.setattr(feature_table, '_GROUP', 3)
    features, path = made(labels, names), tmp_path / f'ü{ending}'
    assert feature_table.write(path, parts(features), 9) == 5
    same(feature_table.read(path), features)
    assert list(tmp_path.iterdir()) == [path]


def test_columns_of_a_parquet_file(tmp_path):
    file = tmp_path / 'x.parquet'
    feature_table.write(file, [made(keys=[os.fsdecode(b'\xff.jpg'), *'bcde'])], 5)
    rows = parquet.read_table(file).to_pylist()
    assert [row['key'] for row in rows] == ['\\udcff.jpg', *'bcde']
    assert [row['label_name'] for row in rows] == ['cat', 'Bär', 'cat', 'x', 'x']
    feature_table.write(file, [made(MULTI)], 5)
    assert parquet.read_table(file)['label_name'].to_pylist() == [['Bär'], [], ['Bär', 'cat', 'x'], ['cat'], ['x']]


def test_a_key_that_is_no_text_is_kept_by_npz(tmp_path):
    features = made(keys=[os.fsdecode(b'\xff.jpg'), *'bcde'])
    feature_table.write(tmp_path / 'x.npz', [features], 5)
    same(feature_table.read(tmp_path / 'x.npz'), features)


@pytest.mark.parametrize('ending', feature_table.ENDINGS)
def test_whole_or_not_at_all(ending, tmp_path):
    def broken():
        yield from parts(made())
        raise UserError('too many unreadable')
    path = tmp_path / f'x{ending}'
    path.write_bytes(b'before')
    with pytest.raises(UserError, match='too many'):
        feature_table.write(path, broken(), 5)
    with pytest.raises(UserError, match='no image has features'):
        feature_table.write(path, [], 5)
    assert list(tmp_path.iterdir()) == [path] and path.read_bytes() == b'before'


@pytest.mark.parametrize('ending', feature_table.ENDINGS)
def test_damage_is_noticed(ending, tmp_path):
    """A byte changed, or the end missing: an error of one line, or what was written."""
    features, path = made(), tmp_path / f'x{ending}'
    feature_table.write(path, [features], 5)
    whole, noticed = path.read_bytes(), 0
    damaged = [whole[:at] + bytes([whole[at] ^ 0x55]) + whole[at + 1:] for at in range(0, len(whole), 41)]
    for data in (*damaged, whole[:-1], whole[:len(whole) // 2], b'', b'text'):
        path.write_bytes(data)
        try:
            found = feature_table.read(path)
        except UserError as error:
            assert '\n' not in str(error)
            noticed += 1
        else:
            np.testing.assert_array_equal(found.values, features.values)
    assert noticed > len(damaged) / 4


@pytest.mark.parametrize(('arrays', 'message'), [
    ({'features': None}, 'features'), ({'features': np.zeros(5, np.float32)}, 'not float'),
    ({'features': np.zeros((5, 2), int)}, 'not float'), ({'features': np.full((5, 2), np.nan)}, 'not finite'),
    ({'labels': np.zeros(4, int)}, '4 labels'), ({'labels': np.arange(5) - 1}, 'negative'),
    ({'labels': np.zeros(5)}, 'labels are float64'), ({'keys': np.array([None] * 5)}, 'damaged'),
    ({'keys': np.zeros(0, str), 'labels': np.zeros(0, int), 'features': np.zeros((0, 2))}, 'of no image')])
def test_other_files_are_refused(arrays, message, tmp_path):
    whole = {'keys': np.array(list('abcde')), 'labels': SINGLE, 'features': np.zeros((5, 2))} | arrays
    np.savez(tmp_path / 'x.npz', **{name: value for name, value in whole.items() if value is not None})
    with pytest.raises(UserError, match=message):
        feature_table.read(tmp_path / 'x.npz')


def test_no_file_and_no_such_format(tmp_path):
    for name, message in (('none.npz', 'No such file'), ('none.parquet', 'No such file'), ('x.csv', r'ends in \.npz')):
        with pytest.raises(UserError, match=message):
            feature_table.read(tmp_path / name)
    parquet.write_table(pa.table({'key': ['a'], 'label': [0], 'features': [[]]}), tmp_path / 'x.parquet')
    with pytest.raises(UserError, match='not float'):
        feature_table.read(tmp_path / 'x.parquet')
