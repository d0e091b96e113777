"""CIFAR-10 and CIFAR-100 as their pickles."""

import pickle

import numpy as np
import pytest
from fixtures_layouts import IMAGES, Run, cifar10, cifar100, python2
from fixtures_sources import create, refused


@pytest.mark.parametrize('dump', [python2, pickle.dumps])
@pytest.mark.parametrize('inside', ['', 'cifar-10-batches-py'])
def test_cifar10_is_read_in_file_order(tmp_path, dump, inside):
    cifar10(tmp_path, dump)
    source = pickle.loads(pickle.dumps(create('cifar', tmp_path / inside)))
    assert len(source) == 50 and source.class_names == ('cat', 'dog', 'elk')
    assert source.labels.tolist() == [0, 1, 2, 0, 1, 2, 0, 1, 2, 0] * 5 and source.labels.dtype == np.int32
    for i in (0, 9, 10, 27, 49):
        assert source.key(i) == f'data_batch_{i // 10 + 1}:{i % 10}'
        assert source.image(i).dtype == np.uint8 and source.image(i).flags.c_contiguous
        np.testing.assert_array_equal(source.image(i), IMAGES[i].transpose(1, 2, 0))
    test = create('cifar', tmp_path / inside, 'test')
    assert test.key(3) == 'test_batch:3'
    np.testing.assert_array_equal(test[3]['image'], IMAGES[53].transpose(1, 2, 0))


def test_cifar_pickles_small(tmp_path):
    assert len(pickle.dumps(create('cifar', cifar10(tmp_path)))) < 5000


def test_cifar100_has_fine_and_coarse_labels(tmp_path):
    cifar100(tmp_path)
    fine, coarse = create('cifar', tmp_path, num_classes=5), create('cifar', tmp_path, num_classes=2, labels='coarse')
    assert fine.class_names == tuple('abcde') and fine.labels.tolist() == [0, 1, 2, 3, 4] * 2
    assert coarse.class_names == ('vowel', 'consonant') and coarse.labels.tolist() == [0, 1] * 5
    refused('data.labels', "'corse'", 'coarse', format='cifar', path=tmp_path, labels='corse')


def test_cifar_parts_of_the_training_split(tmp_path):
    cifar100(tmp_path / 'whole', 50_000, pickle.dumps)
    train, val = (create('cifar', tmp_path / 'whole', split, num_classes=5) for split in ('train45k', 'val5k'))
    assert (len(train), len(val)) == (45_000, 5_000)
    assert train.key(44_999) == 'train:44999' and val.key(0) == 'train:45000' and val.key(4_999) == 'train:49999'
    assert val.labels[:3].tolist() == [0, 1, 2]
    assert [train.image(44_999)[0, 0, 0], val.image(0)[0, 0, 0]] == [44_999 % 251, 45_000 % 251]
    cifar100(tmp_path / 'small')
    refused('part of 50,000', 'has 10', format='cifar', path=tmp_path / 'small', split='val5k')


def test_cifar_that_is_not_there_or_twice_is_refused(tmp_path):
    refused(tmp_path, 'no CIFAR', 'cifar-10-batches-py', format='cifar', path=tmp_path)
    cifar10(tmp_path)
    refused("'val'", 'did you mean val5k', format='cifar', path=tmp_path, split='val')
    refused('data.labels of cifar-10-batches-py', "'coarse'", format='cifar', path=tmp_path, labels='coarse')
    cifar100(tmp_path)
    refused('cifar-10-batches-py and cifar-100-python', format='cifar', path=tmp_path)


@pytest.mark.parametrize('changes,words', [
    ({'data': np.zeros((9, 3072), np.uint8)}, '10 labels for 9 images'), ({'data': [1]}, 'it is list'),
    ({'data': np.zeros((10, 3071), np.uint8)}, '(10, 3071)'), ({'labels': [0] * 9 + [3]}, 'of row 9'),
    ({'labels': [0] * 9 + [-1]}, 'of row 9'), ({'labels': [0] * 9 + ['1']}, 'of row 9'), ({'labels': 7}, 'no labels')])
def test_cifar_with_wrong_contents_is_refused(tmp_path, changes, words):
    refused('data_batch_3', words, format='cifar', path=cifar10(tmp_path, **changes))


@pytest.mark.parametrize('data', [np.zeros((10, 3072)), np.zeros((10, 3072), object), Run('touch ran')])
def test_cifar_with_anything_but_uint8_is_refused(tmp_path, data, monkeypatch):
    monkeypatch.chdir(tmp_path)
    word = 'posix.system' if isinstance(data, Run) else 'not of uint8'
    refused('data_batch_3', word, format='cifar', path=cifar10(tmp_path / 'set', pickle.dumps, data=data))
    assert not (tmp_path / 'ran').exists()


@pytest.mark.parametrize('file', ['data_batch_2', 'batches.meta'])
def test_damaged_cifar_files_are_named(tmp_path, file):
    path = cifar10(tmp_path) / 'cifar-10-batches-py' / file
    data = path.read_bytes()
    for damaged in (data[:len(data) // 2], data[:-1], b'', b'\x1f\x8b' + data, python2([1])):
        path.write_bytes(damaged)
        refused(path, format='cifar', path=tmp_path)
    path.unlink()
    refused(file if 'batch_' in file else 'no CIFAR', format='cifar', path=tmp_path)


def test_a_file_larger_than_any_of_cifar_is_not_read(tmp_path):
    with open(cifar10(tmp_path) / 'cifar-10-batches-py' / 'data_batch_2', 'r+b') as file:
        file.truncate(1 << 40)
    refused('data_batch_2', '1,099,511,627,776 bytes', format='cifar', path=tmp_path)
