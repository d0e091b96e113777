"""Labels in a model's order, matched by class name."""

import logging

import numpy as np
import pytest
from fixtures_images import class_tree, parquet_file
from fixtures_sources import Pixels

from imagenet_jax import sources, trained
from imagenet_jax.errors import UserError

CLASSES = ('ant', 'bee', 'cat')


def folder(root):
    return sources.create('folder', str(root), 'train')


def test_same_names_in_the_same_order_change_nothing(tmp_path):
    source = folder(class_tree(tmp_path))
    assert trained.renumber(source, CLASSES, 3) is source


@pytest.mark.parametrize('order', [('cat', 'ant', 'bee'), ('cow', 'cat', 'bee', 'ant')])
def test_labels_follow_the_names(order, tmp_path, caplog):
    """A folder and a Parquet file number the same classes each in its own way; a model in a third."""
    caplog.set_level(logging.INFO, 'imagenet_jax')
    tree = folder(class_tree(tmp_path / 'tree'))
    file = parquet_file(tmp_path / 'hub' / 'train-0.parquet', [tree.image(i) for i in range(len(tree))],
                        [2 - int(label) for label in tree.labels], CLASSES[::-1])
    hub = sources.create('parquet', str(file.parent), 'train')
    assert not (hub.labels == tree.labels).all()
    for source in (tree, hub):
        caplog.clear()
        found = trained.renumber(source, order, 5)
        assert [order[label] for label in found.labels] == [CLASSES[label] for label in tree.labels]
        assert found.labels.dtype == np.int32 and found.class_names == order
        assert f"3 of the model's {len(order)} classes" in caplog.text
        assert [found.image(i) for i in range(11)] == [tree.image(i) for i in range(11)]
    assert hub.class_names == CLASSES[::-1]  # the source itself stays as it was


def test_vectors_follow_the_names():
    source = Pixels([], np.array([[1, 0], [np.nan, 1]], np.float32), ('bee', 'ant'))
    found = trained.renumber(source, CLASSES, 3)
    np.testing.assert_array_equal(found.labels, np.array([[0, 1, np.nan], [1, np.nan, np.nan]], np.float32))


@pytest.mark.parametrize(('theirs', 'ours', 'labels', 'message'), [
    (('ant', 'wasp', 'fly'), CLASSES, [0], r"2 of 3 classes .* the 3 that the model knows, the first: 'wasp', 'fly'"),
    (('ant', 'ant', 'bee'), CLASSES, [0], 'share a name'),
    (('bee', 'ant'), CLASSES, [0, 2], 'labels up to 2, and 2 classes have names'),
    ((), CLASSES, [0, 4], 'labels up to 4, and the model has 3 outputs'),
    ((), CLASSES, [[0.0, 1.0]], 'labels up to 1, and the model has 3 outputs'),
    ((), CLASSES, [0, 1], 'labels up to 1, unnamed, and the model 3 outputs, with no names to match them by'),
    (('ant', 'bee'), (), [0, 1], r"2 classes \('ant', 'bee'\), and the model 3 outputs"),
    (('ant', 'bee'), ('0', '1', '2'), [0, 1], '--by-number'),
    (('1', '2', '3'), CLASSES, [0, 1], "'1', '2', '3'; the model has 'ant', 'bee', 'cat'"),
    (('0', '1', '2'), ('1', '2', '3'), [0, 1], "'0'"),
    (('0', 'ant'), CLASSES, [0, 1], "1 of 2 classes .* '0'"),
])
def test_what_has_no_place_is_refused(theirs, ours, labels, message):
    labels = np.array(labels)
    source = Pixels([], labels.astype(np.float32 if labels.ndim == 2 else np.int32), theirs)
    with pytest.raises(UserError, match=message):
        trained.renumber(source, ours, 3)


@pytest.mark.parametrize(('theirs', 'ours', 'message'), [
    ((), CLASSES, 'the data set has no class names: labels are taken by number'),
    (CLASSES, (), 'the model has no class names: labels are taken by number')])
def test_without_names_by_number_with_a_warning(theirs, ours, message, caplog):
    source = Pixels([], np.array([2, 0], np.int32), theirs)
    assert trained.renumber(source, ours, 3) is source
    assert message in caplog.text


@pytest.mark.parametrize(('theirs', 'ours', 'expected'), [
    (('2', '0'), CLASSES, [2, 0]), (('02', '00'), (), [2, 0]), (('10', '2'), ('2', '7', '10'), [2, 0]),
    (('chain saw', 'tench'), ('n01440764', 'n01443537', 'n03000684'), [2, 0]),
    (('n03000684', 'n01440764'), ('tench, Tinca tinca', 'goldfish', 'chain saw, chainsaw'), [2, 0])])
def test_numbers_and_the_names_of_imagenet_find_their_class(theirs, ours, expected):
    source = trained.renumber(Pixels([], np.array([0, 1], np.int32), theirs), ours, 3)
    assert source.labels.tolist() == expected


def test_fewer_labels_without_names_where_they_are_known_to_be_the_models():
    source = Pixels([], np.array([1, 0], np.int32), ())
    assert trained.renumber(source, CLASSES, 3, by_number=True) is source
