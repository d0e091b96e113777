"""What one batch of evaluation counts, and what a split adds up to. The model's logits are its input's pixels."""

import dataclasses
import itertools
from types import SimpleNamespace

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn import metrics

from imagenet_jax import step
from imagenet_jax.evaluation import Evaluator, make_eval_step, measure
from imagenet_jax.metrics.evaluation_result import Result
from imagenet_jax.task import Sigmoid, Softmax


class Pixels(nn.Module):
    """The 'images' (N, K) are the logits; they are flipped where it is called as in training."""

    @nn.compact
    def __call__(self, images, train):
        return -images if train else images


def make(devices=1, task=Softmax(), **more):
    def answer(variables, images):
        return Pixels().apply(variables, images, train=False)
    return make_eval_step(answer, task, step.make_mesh(jax.devices()[:devices]), **more)


def cross_entropy(logits, labels):
    return Softmax().loss(logits, Softmax().targets(labels, logits.shape[-1]))


@pytest.fixture(scope='module')
def count():
    """logits, labels -> sums; bad and mask as the pipeline gives them for readable images, unless given."""
    eval_step = make()

    def call(logits, labels, bad=None, mask=None):
        logits, labels = np.asarray(logits, np.float32), np.asarray(labels, np.int32)
        bad = np.full(len(labels), -1) if bad is None else bad
        mask = np.ones(len(labels), bool) if mask is None else mask
        sums, rows = jax.device_get(eval_step({}, batch(logits, labels, bad, mask)))
        assert rows == {}
        return sums
    return call


def batch(logits, labels, bad, mask):
    return {'image': logits, 'label': labels, 'bad': np.asarray(bad, np.int32), 'mask': np.asarray(mask)}


def drawn(n, k, seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, k)).astype(np.float32), rng.integers(k, size=n).astype(np.int32)


def by_hand(logits, labels, counted):
    order = np.argsort(-logits, 1)
    confusion = np.zeros((logits.shape[1],) * 2, int)
    np.add.at(confusion, (labels[counted], order[counted, 0]), 1)
    return {'top1': (order[:, 0] == labels)[counted].sum(),
            'top5': (order[:, :5] == labels[:, None]).any(1)[counted].sum(), 'confusion': confusion}


def check(sums, expected):
    for name, value in expected.items():
        np.testing.assert_array_equal(sums[name], value, err_msg=name)


def test_sums(count):
    logits, labels = drawn(40, 10)
    sums = count(logits, labels)
    expected = by_hand(logits, labels, np.ones(40, bool))
    assert 0 < expected['top1'] < expected['top5'] < 40
    check(sums, expected | {'count': 40})
    np.testing.assert_allclose(sums['loss'], cross_entropy(jnp.asarray(logits), jnp.asarray(labels)).sum(), rtol=1e-6)
    assert {name: value.dtype for name, value in sums.items() if name != 'calibration'} == {
        'count': np.int32, 'bad_samples': np.int32, 'not_finite': np.int32, 'top1': np.int32, 'top5': np.int32,
        'loss': np.float32, 'confusion': np.int32, 'labels': np.int32}
    assert [x.dtype for x in sums['calibration']] == [np.int32, np.int32, np.float32]


def test_equal_logits_are_not_right_for_every_label(count):
    sums = count(np.zeros((10, 10)), np.arange(10))
    check(sums, {'count': 10, 'top1': 1, 'top5': 5})


@pytest.mark.parametrize('broken', [np.nan, np.inf])
@pytest.mark.parametrize('where', [slice(None), 2, 5], ids=['all', 'label', 'other'])
def test_logits_that_are_not_finite_count_as_wrong(count, broken, where):
    logits = np.zeros((10, 10))
    logits[:, 2] = 1.0
    logits[3:, where] = broken
    sums = count(logits, np.full(10, 2))
    check(sums, {'count': 10, 'top1': 3, 'top5': 3, 'not_finite': 7})
    assert sums['confusion'].sum() == 3


def test_unreadable_images_count_as_wrong(count):
    logits, labels = np.eye(10), np.arange(10)
    bad = np.where(np.arange(10) < 3, np.arange(10), -1)  # index 0 is unreadable too
    check(count(logits, labels, bad=bad), {'count': 10, 'bad_samples': 3, 'top1': 7, 'top5': 7,
                                           'confusion': np.diag(np.arange(10) >= 3)})


def test_padding_does_not_count(count):
    logits, labels = np.zeros((10, 10)), np.zeros(10)  # what padding would be right for
    logits[:, 0] = 1
    mask = np.arange(10) < 4
    sums = count(logits, labels, mask=mask)
    check(sums, {'count': 4, 'top1': 4, 'top5': 4})
    assert sums['confusion'].sum() == 4
    np.testing.assert_allclose(sums['loss'], 4 * cross_entropy(jnp.eye(10)[:1], jnp.zeros(1, int))[0], rtol=1e-6)
    logits[4:] = np.nan
    assert np.isfinite(count(logits, labels, mask=mask)['loss'])


def test_everything_at_once_on_eight_devices():
    logits, labels = drawn(24, 10)
    bad, mask = np.full(24, -1), np.arange(24) < 21
    bad[[1, 20]] = [1, 20]
    logits[5, 3] = np.nan
    sums, _ = jax.device_get(make(8)({}, batch(logits, labels, bad, mask)))
    counted = mask & (bad < 0) & (np.arange(24) != 5)
    check(sums, by_hand(logits, labels, counted) | {'count': 21, 'bad_samples': 2, 'not_finite': 1})


def test_fewer_than_five_classes(count):
    logits, labels = drawn(10, 3)
    sums = count(logits, labels)
    check(sums, by_hand(logits, labels, np.ones(10, bool)))
    assert sums['top5'] == 10


@pytest.mark.parametrize(('devices', 'top'), [(1, 20), (8, 5)])
def test_what_is_kept_of_each_image(devices, top):
    """Of all but padding; no answer to what is unreadable or not finite; nothing else of the program changes."""
    logits, labels = drawn(24, 10)
    logits = logits.round(1)  # some are equal
    bad, mask = np.full(24, -1), np.arange(24) < 21
    bad[[1, 20]] = [1, 20]
    logits[5, 3] = np.nan
    given = batch(logits, labels, bad, mask) | {'index': np.arange(100, 124, dtype=np.int32)}
    sums, rows = jax.device_get(make(devices, top=top)({}, given))
    jax.tree.map(np.testing.assert_array_equal, sums, jax.device_get(make(devices)({}, given))[0])
    found, answered = rows['images'], mask & (bad < 0) & (np.arange(24) != 5)
    np.testing.assert_array_equal(found['index'], np.where(mask, given['index'], -1))
    np.testing.assert_array_equal(found['readable'], bad < 0)
    order = np.argsort(-logits, 1, kind='stable')
    np.testing.assert_array_equal(found['classes'], np.where(answered[:, None], order[:, :top], -1))
    rank = 1 + np.argmax(order == labels[:, None], 1)
    np.testing.assert_array_equal(found['rank'], np.where(answered, rank, 0))
    p = np.take_along_axis(np.exp(logits) / np.exp(logits).sum(1, keepdims=True), order[:, :top], 1)
    np.testing.assert_allclose(found['probabilities'][answered], p[answered], 1e-6)


def test_the_rank_of_several_classes_is_that_of_the_best():
    logits = np.array([[1, 4, 3, 2], [1, 4, 3, 2], [1, 4, 3, 2]], np.float32)
    labels = np.array([[1, 0, np.nan, 1], [np.nan, 1, 0, 1], [0, 0, 0, np.nan]], np.float32)
    given = batch(logits, labels, [-1] * 3, [True] * 3) | {'index': np.arange(3, dtype=np.int32)}
    found = jax.device_get(make(1, Sigmoid(), top=2)({}, given))[1]['images']
    assert found['rank'].tolist() == [3, 1, 0] and found['classes'].tolist() == [[1, 2]] * 3
    np.testing.assert_allclose(found['probabilities'], 1 / (1 + np.exp([[-4, -3]] * 3)), 1e-6)


def test_outputs_that_do_not_count_are_not_there():
    logits, labels = drawn(24, 10)
    chosen = np.array([7, 2, 4])
    logits[3, 0] = np.nan  # of none that counts
    given = batch(logits, labels % 3, np.full(24, -1), np.ones(24, bool))
    found = jax.device_get(make(2, outputs=chosen)({}, given)[0])
    expected = jax.device_get(make(2)({}, given | {'image': logits[:, chosen]})[0])
    jax.tree.map(np.testing.assert_array_equal, found, expected)


class Digits:
    """A source whose pixels are its indices; the first cannot be read."""

    def image(self, index):
        if not index:
            raise OSError
        return index


def test_the_worst_are_the_surest_and_are_read_again():
    evaluator = Evaluator(**dict.fromkeys(('answer', 'task', 'batch_size', 'workers', 'bad_samples', 'mesh',
                                           'remedy')), view=SimpleNamespace(one=lambda image: image * 2),
                          source=Digits(), mistakes=4)
    images = {'index': np.array([3, 0, 2, 1, 4, 5, -1]), 'rank': np.array([2, 9, 2, 3, 1, 0, 2]),
              'classes': np.array([7, 7, 8, 9, 7, -1, 7])[:, None],
              'probabilities': np.array([0.5, 0.75, 0.5, 0.875, 0.9, 0.9, 0.9], np.float32)[:, None]}
    result = Result({}, {}, images=images)
    assert evaluator.worst(result) == [(2, 1, 9, 0.875), (4, 2, 8, 0.5), (6, 3, 7, 0.5)]
    assert evaluator.worst(result, images['classes'][:, 0] == 7) == [(6, 3, 7, 0.5)]
    assert dataclasses.replace(evaluator, mistakes=1).worst(result) == [(2, 1, 9, 0.875)]
    assert evaluator.worst(Result({}, {})) == []


# --- measure


def batches(logits, labels, size):
    """As input_pipeline.eval_batches and to_devices give them: the last batch padded."""
    for start in range(0, len(labels), size):
        rows = slice(start, start + size)
        missing = size - len(labels[rows])
        made = batch(np.pad(logits[rows], ((0, missing), (0, 0))), np.pad(labels[rows], (0, missing)),
                     np.full(size, -1), np.arange(size) < size - missing)
        yield {'start': start}, made


def test_fractions_of_the_split():
    logits, labels = drawn(22, 10)
    seen = []
    result = measure(make(2), Softmax(), {}, batches(logits, labels, 8), 22, seen.append)
    expected = by_hand(logits, labels, np.ones(22, bool))
    there = np.bincount(labels, minlength=10)
    np.testing.assert_allclose(result.per_class['class_accuracy'],
                               np.where(there, expected['confusion'].diagonal() / there.clip(1), np.nan))
    assert {name: result.scalars[name] for name in ('top1', 'top5', 'bad_samples', 'loss')} == {
        'top1': pytest.approx(expected['top1'] / 22), 'top5': pytest.approx(expected['top5'] / 22), 'bad_samples': 0,
        'loss': pytest.approx(float(cross_entropy(jnp.asarray(logits), jnp.asarray(labels)).mean()))}
    np.testing.assert_array_equal(result.confusion, expected['confusion'])
    assert seen == [{'start': 0}, {'start': 8}, {'start': 16}]


def plain_calibration_error(confidence, right):
    edges = np.linspace(0, 1, 16)
    inside = [(confidence > low) & (confidence <= high) for low, high in itertools.pairwise(edges)]
    return sum(abs(right[i].mean() - confidence[i].mean()) * i.sum() for i in inside if i.any()) / len(right)


@pytest.mark.parametrize(('devices', 'size'), [(1, 22), (8, 16)])
def test_measures_agree_with_scikit_learn_and_plain_numpy(devices, size):
    """One class has no image, one is neither labelled nor predicted; an image is unreadable, an answer not finite."""
    logits, labels = drawn(300, 7, seed=1)
    logits[:, 6], logits[:200] = -9, logits[:200] * 4
    labels[200:280] = logits[200:280].argmax(1)  # right, but less sure
    labels[labels == 3], labels[labels == 6] = 2, 5
    logits[7, 1], bad = np.nan, np.where(np.arange(300) == 12, 12, -1)
    given = ((host, made | {'bad': np.pad(bad, (0, size))[host['start']:][:size]})
             for host, made in batches(logits, labels, size))
    result = measure(make(devices), Softmax(), {}, given, 300)
    answered = (bad < 0) & np.isfinite(logits).all(1)
    predicted = np.where(answered, np.nan_to_num(logits).argmax(1), -1)
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    confidence = np.where(answered, p.max(1), 0)
    expected = {'macro_f1': metrics.f1_score(labels, predicted, labels=range(7), average='macro', zero_division=np.nan),
                'mean_class_accuracy': np.mean([(predicted == labels)[labels == k].mean() for k in np.unique(labels)]),
                'expected_calibration_error': plain_calibration_error(confidence, predicted == labels)}
    assert {name: result.scalars[name] for name in expected} == pytest.approx(expected, rel=1e-5)
    np.testing.assert_array_equal(result.confusion, metrics.confusion_matrix(labels, predicted, labels=range(7)))
    assert result.calibration.images.sum() == 300 and np.isnan(result.per_class['class_accuracy']).sum() == 2


@pytest.mark.parametrize('expected', [7, 9])
def test_a_wrong_count_is_an_error(expected):
    logits, labels = drawn(8, 10)
    with pytest.raises(AssertionError, match=f'counted 8 images of {expected}'):
        measure(make(), Softmax(), {}, batches(logits, labels, 8), expected)


def test_what_check_raises_ends_it():
    def refuse(host_batch):
        raise ValueError(host_batch['start'])
    logits, labels = drawn(8, 10)
    with pytest.raises(ValueError, match='0'):
        measure(make(), Softmax(), {}, batches(logits, labels, 8), 8, refuse)


@pytest.mark.parametrize('broken', [np.nan, np.inf])
def test_what_is_not_finite_is_said_loudly(broken, caplog):
    logits, labels = drawn(8, 10)
    measure(make(), Softmax(), {}, batches(logits, labels, 8), 8)
    assert not caplog.records
    logits[3] = broken
    result = measure(make(), Softmax(), {}, batches(logits, labels, 8), 8)
    assert [record.levelname for record in caplog.records] == ['ERROR']
    assert 'EVALUATION IS NOT FINITE: the answer to 1 of 8 images' in caplog.text and 'loss is nan' in caplog.text
    assert not np.isfinite(result.scalars['loss'])


def test_what_hosts_gather_of_each_image_of_one_class_does_not_grow_with_the_classes():
    """Every host has the sums, and of each image some bytes: never its logits."""
    def rows(classes, top):
        numbers = jax.ShapeDtypeStruct((16,), jnp.int32)
        of_batch = {'image': jax.ShapeDtypeStruct((16, classes), jnp.float32), 'label': numbers, 'bad': numbers,
                    'index': numbers, 'mask': jax.ShapeDtypeStruct((16,), bool)}
        _, found = jax.eval_shape(make(2, top=top), {}, of_batch)
        return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(found))
    assert rows(1000, top=1) == rows(10, top=1) < 16 * 32
    assert rows(10, top=0) == 0
