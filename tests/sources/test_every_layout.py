"""What is asked of all layouts on disk alike."""

import itertools
import pickle
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from fixtures_images import class_tree, image_folder, jpeg, parquet_file
from fixtures_layouts import LAYOUTS, text
from fixtures_sources import create, refused

from imagenet_jax import sources
from imagenet_jax.sources.holdout import Part
from imagenet_jax.sources.upright import UprightSource


def test_unknown_format_suggests_the_nearest():
    refused('data.format', "'foldr'", 'did you mean folder', format='foldr')
    elsewhere = {'array_record', 'ilsvrc2012', 'tfds'}  # have test files of their own
    assert set(sources.names()) == {*LAYOUTS, *elsewhere, 'digits', 'synthetic'}


@pytest.mark.parametrize('format', [*LAYOUTS, 'digits', 'synthetic'])
def test_unknown_option_is_refused(tmp_path, format):
    path = LAYOUTS[format](tmp_path) if format in LAYOUTS else ''
    refused('num_exmples', 'config.data', format=format, path=path, num_exmples=3)


EXPECTED = {'folder': '<root>/<split>/<class>/<image>', 'parquet': 'train-*.parquet', 'flat': '_flatten',
            'list': 'train.txt', 'lmdb': 'train.lmdb', 'cifar': 'cifar-100-python', 'voc': 'ImageSets/Main/train.txt',
            'webdataset': 'train-*.tar'}


@pytest.mark.parametrize('format', LAYOUTS)
def test_missing_path_is_named_with_what_was_expected(tmp_path, format):
    refused(tmp_path / 'nowhere', EXPECTED[format], format=format, path=tmp_path / 'nowhere')
    refused('data.path', format=format, path='')


@pytest.mark.parametrize('format', LAYOUTS)
def test_path_to_a_file_is_refused(tmp_path, format):
    (tmp_path / 'file').write_text('')
    refused(tmp_path / 'file', format=format, path=tmp_path / 'file')


@pytest.mark.parametrize('format', LAYOUTS)
def test_every_layout_answers_alike_also_in_a_worker(tmp_path, format):
    source = create(format, LAYOUTS[format](tmp_path), num_classes=20)
    data = pickle.dumps(source)
    again = pickle.loads(data)
    assert len(source) and source.labels.shape == (len(source),) and source.labels.dtype == np.int32
    assert len({source.key(i) for i in range(len(source))}) == len(source)
    with ThreadPoolExecutor(4) as pool:
        rows = list(pool.map(again.__getitem__, range(len(source))))
    for i, row in enumerate(rows):
        assert (row['label'], row['key']) == (source.labels[i], source.key(i)) and isinstance(row['label'], int)
        np.testing.assert_array_equal(row['image'], source.image(i))
    assert len(pickle.dumps(source)) == len(data) < 4000
    for made in (Part(source, np.array([0])), UprightSource(source)):
        assert pickle.loads(pickle.dumps(made)).key(0) == source.key(0)


def test_missing_split_lists_those_there(tmp_path):
    class_tree(tmp_path / 'tree', split='val')
    refused(tmp_path / 'tree' / 'train', 'val', path=tmp_path / 'tree')
    parquet_file(tmp_path / 'hub' / 'test-00000-of-00001.parquet', [jpeg()], [0])
    refused(tmp_path / 'hub', 'test-00000-of-00001.parquet', format='parquet', path=tmp_path / 'hub')


def test_empty_split_is_refused(tmp_path):
    (tmp_path / 'tree' / 'train').mkdir(parents=True)
    refused(tmp_path / 'tree' / 'train', 'no class folders', path=tmp_path / 'tree')
    parquet_file(tmp_path / 'hub' / 'train-0.parquet', [], [])
    refused(tmp_path / 'hub', "'train' is empty", format='parquet', path=tmp_path / 'hub')


def test_class_without_images_is_refused(tmp_path):
    class_tree(tmp_path)
    image_folder(tmp_path, {'train/dog/readme.txt': b'none yet'})
    refused(tmp_path / 'train' / 'dog', 'no image', path=tmp_path, num_classes=4)


def test_labels_out_of_range_are_refused(tmp_path):
    class_tree(tmp_path / 'tree', count=5)
    refused('1 labels', 'outside 0..1', 'the first 2 at cat/002.JPEG', '3 classes', 'config.model.num_classes',
            path=tmp_path / 'tree', num_classes=2)


@pytest.mark.parametrize('label', [-1, 3, 2**31, 2**32 + 1])
def test_stored_labels_out_of_range_are_refused(tmp_path, label):
    parquet_file(tmp_path / 'train-0.parquet', [jpeg()] * 2, [0, label])
    refused(tmp_path, label, format='parquet', path=tmp_path)


COPIES = [name for name in LAYOUTS if name != 'list']


@pytest.mark.parametrize('format,other', list(itertools.permutations(COPIES, 2)))
def test_another_format_is_suggested_and_two_are_refused(tmp_path, format, other):
    LAYOUTS[other](tmp_path)
    refused(tmp_path, f'set config.data.format={other}', format=format, path=tmp_path)
    LAYOUTS[format](tmp_path)
    refused(tmp_path, 'two formats', format, other, format=format, path=tmp_path)


@pytest.mark.parametrize('format', COPIES)
def test_a_list_may_lie_beside_any_format(tmp_path, format):
    LAYOUTS[format](tmp_path)
    alone = len(create(format, tmp_path, num_classes=20))
    text(tmp_path, train='any.JPEG 0\n')
    assert len(create(format, tmp_path, num_classes=20)) == alone
    assert create('list', tmp_path).key(0) == 'any.JPEG'


def test_a_list_alone_is_suggested(tmp_path):
    refused('set config.data.format=list', format='folder', path=text(tmp_path, train='any.JPEG 0\n'))
