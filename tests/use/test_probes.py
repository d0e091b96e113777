"""k nearest neighbours and the linear probe, beside scikit-learn's own, and what neither is made of."""

import dataclasses
import subprocess
import sys

import numpy as np
import pytest
from runs import ROOT
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier

from imagenet_jax.errors import UserError
from imagenet_jax.use import probes
from imagenet_jax.use.feature_table import Features

NAMES = ('ant', 'bee', 'cat', 'dog')


def drawn(count, seed, names=NAMES):
    """Four clouds that overlap; a length that says nothing, a column that never changes."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(4, size=count).astype(np.int32)
    centres = np.random.default_rng(9).normal(size=(4, 6))
    values = (centres[labels] + rng.normal(size=(count, 6))) * rng.uniform(0.5, 2, (count, 1))
    values = np.concatenate([values, np.full((count, 1), 0.5)], 1).astype(np.float32)
    return Features([str(i) for i in range(count)], labels, values, names)


TRAIN, TEST = drawn(150, 0), drawn(101, 1)


@pytest.mark.parametrize('k', [1, 20, 100])
def test_neighbours_are_scikit_learns(k, monkeypatch):
    monkeypatch.setattr(probes, '_MOST_ROWS', 17)
    found = probes.knn(TRAIN, TEST, k)
    for name, weights in (('knn_top1', 'uniform'),
                          ('knn_weighted_top1', lambda distance: np.exp((1 - distance) / 0.07))):
        plain = KNeighborsClassifier(k, metric='cosine', algorithm='brute', weights=weights)
        expected = plain.fit(TRAIN.values.astype(float), TRAIN.labels).score(TEST.values.astype(float), TEST.labels)
        assert found[name] == pytest.approx(expected) and 0.3 < found[name] < 1


def test_the_probe_minimises_what_it_says():
    values = (TRAIN.values - TRAIN.values.mean(0)) / np.maximum(TRAIN.values.std(0), 1e-6)
    others = (TEST.values - TRAIN.values.mean(0)) / np.maximum(TRAIN.values.std(0), 1e-6)
    plain = LogisticRegression(C=1 / (0.03 * 150), max_iter=5000, tol=1e-8).fit(values.astype(float), TRAIN.labels)
    found = probes.linear_probe(TRAIN, TEST, [0.03])
    assert found == {'linear_probe_top1': pytest.approx(plain.score(others, TEST.labels)), 'regularization': 0.03}


def test_the_strength_is_chosen_on_images_held_out():
    """Noise beside the signal: the penalty matters, and the images to measure on would choose another."""
    rng = np.random.default_rng(3)
    train, test = (dataclasses.replace(each, values=np.concatenate(
        [each.values, rng.normal(size=(len(each), 60)).astype(np.float32)], 1)) for each in (TRAIN, TEST))
    held, strengths = probes._held_out(train.labels), (1e-6, 0.1, 1e4)
    rest, some = (dataclasses.replace(train, values=train.values[rows], labels=train.labels[rows],
                                      keys=[''] * sum(rows)) for rows in (~held, held))
    scores = [probes.linear_probe(rest, some, [strength])['linear_probe_top1'] for strength in strengths]
    best = strengths[int(np.argmax(scores))]
    assert len({*scores}) == 3 and best != strengths[0]
    assert probes.linear_probe(train, test, strengths) == probes.linear_probe(train, test, [best])


def test_a_fifth_of_each_class_is_held_out():
    labels = np.repeat([0, 1, 2], [50, 4, 11])
    held = probes._held_out(labels)
    assert np.bincount(labels[held], minlength=3).tolist() == [10, 0, 2]
    with pytest.raises(UserError, match=r'no class has 5 images.*--regularization 0\.01'):
        probes._held_out(np.repeat([0, 1], 4))


def test_classes_are_matched_by_name():
    """In another order and with one that has no image; by number where neither side has names."""
    places = np.array([4, 2, 1, 3])  # where ant, bee, cat, dog are
    other = dataclasses.replace(TEST, labels=places[TEST.labels].astype(np.int32),
                                class_names=('cow', 'cat', 'bee', 'dog', 'ant'))
    train = dataclasses.replace(TRAIN, class_names=(*NAMES, 'cow'))
    expected = probes.knn(TRAIN, TEST)
    assert probes.knn(train, other) == expected
    assert probes.linear_probe(train, other, [0.01]) == probes.linear_probe(TRAIN, TEST, [0.01])
    assert probes.knn(*(dataclasses.replace(each, class_names=()) for each in (TRAIN, TEST))) == expected


@pytest.mark.parametrize(('train', 'test', 'message'), [
    ({}, {'labels': np.zeros((101, 4), np.float32)}, 'images of one class each'),
    ({'labels': np.zeros((150, 4), np.float32)}, {}, 'images of one class each'),
    ({'labels': np.zeros(150, int)}, {}, 'all of one class'),
    ({}, {'class_names': ('ant', 'bee', 'cat', 'cow')}, "1 of 4 classes .* the split to train on .*'cow'"),
    ({}, {'class_names': ()}, 'no class names'), ({'class_names': ()}, {}, 'no class names'),
    ({}, {'labels': np.full(101, 4)}, 'labels up to 4, and 4 classes'),
    ({'labels': np.minimum(TRAIN.labels, 2)}, {}, "1 classes of .* have no image to train on, the first: 'dog'"),
    ({}, {'values': TEST.values[:, 1:]}, '7 an image, and those to measure on 6'),
    ({'origin': 'a, layer3'}, {'origin': 'a, pooled'}, 'not of one model, stage and view: a, layer3; a, pooled')])
def test_what_would_give_a_wrong_number_is_refused(train, test, message):
    train, test = dataclasses.replace(TRAIN, **train), dataclasses.replace(TEST, **test)
    for probe in (probes.knn, probes.linear_probe):
        with pytest.raises(UserError, match=message):
            probe(train, test)


def test_more_neighbours_than_images():
    with pytest.raises(UserError, match='151 neighbours are more than the 150 images'):
        probes.knn(TRAIN, TEST, 151)


def test_needs_no_jax():
    program = ('import sys; from imagenet_jax.use import feature_table, probes; '
               'sys.exit(any(name in sys.modules for name in ("jax", "sklearn")))')
    subprocess.run([sys.executable, '-c', program], cwd=ROOT, check=True)
