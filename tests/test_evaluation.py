"""What one batch of evaluation counts, and what a split adds up to. The model's logits are its input's pixels."""

import dataclasses
from types import SimpleNamespace

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from imagenet_jax import step
from imagenet_jax.evaluation import Evaluator, make_eval_step, measure
from imagenet_jax.task import Result, Softmax


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
    assert {name: value.dtype for name, value in sums.items()} == {
        'count': np.int32, 'bad_samples': np.int32, 'not_finite': np.int32, 'top1': np.int32, 'top5': np.int32,
        'loss': np.float32, 'confusion': np.int32}


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


def test_wrong_images_and_how_sure_the_model_was():
    """Not those that are right, unreadable, not finite or padding; nothing else of the program changes."""
    logits, labels = drawn(24, 10)
    bad, mask = np.full(24, -1), np.arange(24) < 21
    bad[[1, 20]] = [1, 20]
    logits[5, 3] = np.nan
    given = batch(logits, labels, bad, mask) | {'index': np.arange(100, 124, dtype=np.int32)}
    sums, rows = jax.device_get(make(8, wrong=True)({}, given))
    jax.tree.map(np.testing.assert_array_equal, sums, jax.device_get(make(8)({}, given))[0])
    best = np.argmax(logits, 1)
    valid = mask & (bad < 0) & (np.arange(24) != 5)
    probabilities = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    np.testing.assert_array_equal(rows['index'], given['index'])
    np.testing.assert_array_equal(rows['predicted'], best)
    np.testing.assert_allclose(rows['confidence'], np.where(valid & (best != labels), probabilities.max(1), -1), 1e-6)


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
    wrong = {'index': np.array([3, 0, 2, 1, 4, 5]), 'predicted': np.array([7, 7, 8, 9, 7, 7]),
             'confidence': np.array([0.5, 0.75, 0.5, 0.875, -1, -1], np.float32)}
    result = Result({}, {}, wrong=wrong)
    assert evaluator.worst(result) == [(2, 1, 9, 0.875), (4, 2, 8, 0.5), (6, 3, 7, 0.5)]
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
    assert result.scalars == {
        'top1': pytest.approx(expected['top1'] / 22), 'top5': pytest.approx(expected['top5'] / 22), 'bad_samples': 0,
        'loss': pytest.approx(float(cross_entropy(jnp.asarray(logits), jnp.asarray(labels)).mean()))}
    np.testing.assert_array_equal(result.confusion, expected['confusion'])
    assert result.per_class == {}
    assert seen == [{'start': 0}, {'start': 8}, {'start': 16}]


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
