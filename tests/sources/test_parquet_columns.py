"""Where the hub puts a split, and which columns its files have."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fixtures_images import image_folder, jpeg, parquet_file
from fixtures_sources import NAMES, create, refused

from imagenet_jax.images.decode import DecodeError, decode


def images(*rows, kind=None) -> pa.Array:
    """A column of structs, of (bytes, path)."""
    kind = kind or pa.struct([('bytes', pa.binary()), ('path', pa.string())])
    return pa.array([row and dict(zip(('bytes', 'path'), row, strict=True)) for row in rows], kind)


def written(file: Path, features=None, **columns) -> Path:
    """A Parquet file of any columns; `features` as in the hub's metadata."""
    file.parent.mkdir(parents=True, exist_ok=True)
    metadata = {'huggingface': json.dumps({'info': {'features': features}})} if features else None
    pq.write_table(pa.table(columns).replace_schema_metadata(metadata), file)
    return file


def test_null_image_cannot_be_decoded(tmp_path):
    written(tmp_path / 'train-0.parquet', image=images((jpeg(), None), (None, None), None), label=[0, 1, 2])
    source = create('parquet', tmp_path)
    assert source.image(0) == jpeg()
    for index in (1, 2):
        with pytest.raises(DecodeError, match='0 bytes'):
            decode(source.image(index))


def test_images_may_lie_beside(tmp_path):
    image_folder(tmp_path, {'hub/data/x/1.jpg': jpeg(1), 'out.jpg': jpeg(2)})
    paths = ['x/1.jpg', '../../out.jpg', str(tmp_path / 'out.jpg'), 'x/2.jpg', 'x']
    for column in (images(*[(None, path) for path in paths]), paths):
        written(tmp_path / 'hub' / 'data' / 'train-0.parquet', image=column, label=[0] * 5)
        source = create('parquet', tmp_path / 'hub')
        assert source.image(0) == jpeg(1)
        for index, words in enumerate(['leads out', 'leads out', 'No such file', 'directory|regular'], 1):
            with pytest.raises(OSError, match=words):
                source.image(index)


@pytest.mark.parametrize('kind', [pa.binary(), pa.large_binary(), pa.dictionary(pa.int32(), pa.binary())])
def test_images_may_be_plain_bytes(tmp_path, kind):
    written(tmp_path / 'train-0.parquet', image=pa.array([jpeg(1), jpeg(2)]).cast(kind), label=[0, 1])
    assert create('parquet', tmp_path).image(1) == jpeg(2)


# Where a split is


@pytest.mark.parametrize('names', [
    ['default/train/0000.parquet', 'default/train/0001.parquet'], ['train/0000.parquet', 'train/0001.parquet'],
    ['train.parquet'], ['data/train.parquet'], ['cfg/train-00000-of-00001.parquet'],
    ['default/partial-train/0000.parquet'],
    ['train/part-00000-c0ffee.snappy.parquet'], ['data/train-00000-of-00001-1359597a978bc4fa.parquet']])
def test_where_the_hub_puts_a_split(tmp_path, names):
    for number, name in enumerate(names):
        parquet_file(tmp_path / name, [jpeg(number)], [number])
    source = create('parquet', tmp_path)
    assert [source.image(i) for i in range(len(names))] == [jpeg(i) for i in range(len(names))]
    folder, name = (tmp_path / names[0]).parent, Path(names[0]).name
    assert len(create('parquet', folder, 'train' if 'train' in name else '')) == len(names)


@pytest.mark.parametrize('name', ['val', 'valid', 'validation'])
def test_the_split_to_evaluate_on_has_three_names(tmp_path, name):
    parquet_file(tmp_path / f'{name}.parquet', [jpeg(1)], [1])
    for split in ('val', 'valid', 'validation'):
        assert create('parquet', tmp_path, split).image(0) == jpeg(1)
    parquet_file(tmp_path / 'validation.parquet', [jpeg(2)], [2])
    assert create('parquet', tmp_path, name).image(0) == jpeg(2 if name == 'validation' else 1)


def test_one_of_several_configurations_has_to_be_named(tmp_path):
    for name in ('large', 'small'):
        parquet_file(tmp_path / name / 'train' / '0000.parquet', [jpeg()], [0])
    refused('2 configurations', tmp_path / 'large', tmp_path / 'small', format='parquet', path=tmp_path)
    assert len(create('parquet', tmp_path / 'small')) == 1


@pytest.mark.parametrize('names', [['default/train/0001.parquet'], ['train/0000.parquet', 'train/0002.parquet'],
                                   ['train-1.parquet', 'train-3.parquet']])
def test_a_missing_number_is_a_missing_file(tmp_path, names):
    for name in names:
        parquet_file(tmp_path / name, [jpeg()], [0])
    refused('1 are missing, by number', format='parquet', path=tmp_path)


@pytest.mark.parametrize('names', [['train.parquet', 'train-00000-of-00001.parquet'],
                                   ['train.parquet', 'train/0000.parquet'], ['train.parquet', 'data/train.parquet']])
def test_a_split_in_two_places_is_refused(tmp_path, names):
    for name in names:
        parquet_file(tmp_path / name, [jpeg()], [0])
    refused('train.parquet', 'keep one', format='parquet', path=tmp_path)


# Labels


FINE = {'img': {'_type': 'Image'}, 'fine_label': {'_type': 'ClassLabel', 'names': list('abc')},
        'coarse_label': {'_type': 'ClassLabel', 'names': ['x', 'y']}}


def test_the_column_of_labels(tmp_path):
    written(tmp_path / 'train-0.parquet', FINE, img=images((jpeg(), '')), fine_label=[2], coarse_label=[1])
    for option, label, names in (('', 2, 'abc'), ('coarse', 1, 'xy'), ('fine_label', 2, 'abc')):
        source = create('parquet', tmp_path, labels=option)
        assert source.labels.tolist() == [label] and source.class_names == tuple(names)
    refused("data.labels='middle'", 'img, fine_label, coarse_label', format='parquet', path=tmp_path, labels='middle')


@pytest.mark.parametrize(('image', 'label'), [('image', 'labels'), ('jpg', 'cls'), ('photo', 'kind')])
def test_columns_of_other_names(tmp_path, image, label):
    features = {image: {'_type': 'Image'}, label: {'_type': 'ClassLabel', 'names': list(NAMES)}}
    written(tmp_path / 'train-0.parquet', features, **{image: images((jpeg(3), '')), label: [1], 'note': ['x']})
    source = create('parquet', tmp_path)
    assert source.labels.tolist() == [1] and source.image(0) == jpeg(3) and source.class_names == NAMES


@pytest.mark.parametrize('kind', [pa.string(), pa.large_string(), pa.dictionary(pa.int8(), pa.string())])
def test_texts_are_numbered_as_in_train(tmp_path, kind):
    def put(split, *texts):
        written(tmp_path / f'{split}.parquet', image=images(*[(jpeg(), '')] * len(texts)),
                label=pa.array(texts).cast(kind))
    put('val', 'cat', 'bee')
    assert create('parquet', tmp_path, 'val').class_names == ('bee', 'cat')
    put('train', 'cat', 'ant', 'cat', 'bee')
    assert create('parquet', tmp_path).labels.tolist() == [2, 0, 2, 1]
    source = create('parquet', tmp_path, 'val')
    assert source.labels.tolist() == [2, 1] and source.class_names == NAMES
    put('test', 'cat', 'dog')
    refused("1 classes of split 'test'", "'dog'", format='parquet', path=tmp_path, split='test')


def test_secret_labels_are_refused(tmp_path):
    parquet_file(tmp_path / 'test.parquet', [jpeg()] * 2, [-1, -1])
    refused('the first -1', 'kept secret are -1: use another split', format='parquet', path=tmp_path, split='test')


@pytest.mark.parametrize('labels,words', [
    (pa.array([1, None], pa.int64()), 'with 1 nulls'), (pa.array(['a', None]), 'it is string with 1 nulls'),
    (pa.nulls(2), 'kept secret'), (pa.array([[0], [0, 1]]), 'several labels'), (pa.array([0.0, 1.0]), 'it is double'),
    (pa.array([True, False]), 'it is bool')])
def test_labels_that_are_no_integers_are_refused(tmp_path, labels, words):
    parquet_file(tmp_path / 'train-0.parquet', [jpeg()] * 2, labels)
    refused('train-0.parquet', 'column label must hold an integer', words, format='parquet', path=tmp_path)


def test_image_column_of_another_type_is_refused(tmp_path):
    pq.write_table(pa.table({'image': [[1, 2]], 'label': [0]}), tmp_path / 'train-0.parquet')
    refused('train-0.parquet', 'column image must be a struct with a field bytes', 'list',
            format='parquet', path=tmp_path)


def test_missing_columns_are_named_with_those_there(tmp_path):
    parquet_file(tmp_path / 'train-0.parquet', [jpeg()], [0], image='photo')
    refused('no column image, img', 'photo, label', format='parquet', path=tmp_path)
    parquet_file(tmp_path / 'train-0.parquet', [jpeg()], [0], label='kind')
    refused('no column label, labels', 'image, kind', format='parquet', path=tmp_path)
