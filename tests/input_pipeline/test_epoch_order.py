"""The order of an epoch: a permutation of as many samples as there may be, without a trace of the order before it."""

import logging

import jax
import numpy as np
import pytest
from fixtures_input import assert_same, joined, take, train

from imagenet_jax import input_pipeline
from imagenet_jax.errors import UserError
from imagenet_jax.input_pipeline import BadSamples, Workers, to_devices
from imagenet_jax.order import TABLE, order
from imagenet_jax.sources import Source
from imagenet_jax.step import make_mesh

PAST_INT32 = 2**31 + 5


class Made(Source):
    """So many images, none of which is kept anywhere; with `broken` every fifth cannot be read."""

    def __init__(self, count, broken=False):
        self.labels, self._broken = Labels(count), broken

    def image(self, index):
        if self._broken and index % 5 == 0:
            raise OSError('broken')
        return np.full((8, 8, 3), index % 251, np.uint8)

    def key(self, index):
        return f'made/{index}'


class Labels:
    """The last digit of each image's number."""
    ndim = 1

    def __init__(self, count):
        self._count = count

    def __len__(self):
        return self._count

    def __getitem__(self, index):
        return np.int32(index % 10)


def places(count, length, seed=0, epoch=0):
    """Where the first places of an epoch are taken from."""
    return np.array([order(length, seed, epoch)(place) for place in range(count)])


def surprise(*samples, cells):
    """How many deviations the chi-square of samples in [0, 1) is above its mean, were they even and independent."""
    counts, _ = np.histogramdd(np.stack(samples, 1), cells, [(0, 1)] * len(samples))
    chi_square = ((counts - counts.mean())**2 / counts.mean()).sum()
    return (chi_square - (counts.size - 1)) / np.sqrt(2 * (counts.size - 1))


@pytest.mark.parametrize('length', [*range(1, 101), TABLE])
def test_few_samples_come_as_in_version_0_1(length):
    found = places(length, length, 3, 7)
    np.testing.assert_array_equal(found, np.random.default_rng((3, 7)).permutation(length))
    assert all(type(order(length, 3, 7)(place)) is int for place in (0, length - 1))


@pytest.mark.parametrize('length', [TABLE + 1, 100_003, 2**18 + 1])
def test_each_of_many_samples_comes_once(length):
    np.testing.assert_array_equal(np.sort(places(length, length)), np.arange(length))


@pytest.mark.parametrize('length', [1_281_167, 14_197_122, 10**9, PAST_INT32, 2**40])
def test_no_two_places_of_a_part_have_one_sample(length):
    found = places(5000, length)
    assert len(set(found.tolist())) == 5000 and found.min() >= 0 and found.max() < length
    assert surprise(found / length, cells=20) < 4


@pytest.mark.parametrize('length', [1000, TABLE + 1, PAST_INT32])
@pytest.mark.parametrize('kind', [np.int32, np.int64, np.uint32, np.uint64])
def test_places_may_be_numpys_numbers(length, kind):
    there = order(length, 0, 0)
    assert [there(kind(place)) for place in range(20)] == [there(place) for place in range(20)]


def test_the_order_of_many_is_the_same_with_every_version():
    """A run that goes on under a later one sees what it would have seen."""
    assert places(3, 1_281_167, 0, 0).tolist() == [787174, 568817, 1100464]
    assert places(3, 1_281_167, 0, 1).tolist() == [785695, 1127712, 430707]
    assert places(3, PAST_INT32, 1, 0).tolist() == [1631803404, 2002400647, 1936208570]


@pytest.mark.parametrize('length', [TABLE + 1, 1_281_167])
def test_no_trace_is_left_of_the_order_before(length):
    """Even are the samples at a place over the epochs, the pairs of neighbours, and of an epoch and the next."""
    now, then, other = (places(20_000, length, seed, epoch) for seed, epoch in ((0, 0), (0, 1), (1, 0)))
    samples = now / length
    assert surprise(samples[:-1], samples[1:], cells=10) < 4
    assert surprise(samples[:-2], samples[2:], cells=10) < 4
    assert surprise(np.diff(samples) % 1, cells=50) < 4
    assert surprise(samples, np.arange(20_000) / 20_000, cells=10) < 4
    assert surprise(samples, then / length, cells=10) < 4 and surprise(samples, other / length, cells=10) < 4
    assert abs(np.mean(now % 2 == np.arange(20_000) % 2) - 1 / 2) < 0.015
    first, second = (np.array([order(length, 0, epoch)(place) for epoch in range(3000)]) for place in (0, 1))
    assert surprise(first / length, second / length, cells=5) < 4


def test_batches_of_more_samples_than_int32_counts(caplog):
    """Bad ones too: replaced, named by their own number, and the same wherever a run begins."""
    source, bad = Made(PAST_INT32, broken=True), BadSamples(Made(PAST_INT32, broken=True))
    batches = train(source, 12)
    index, replaced = joined(batches, 'index'), joined(batches, 'bad')
    assert index.dtype == replaced.dtype == np.int64 and index.min() >= 0 and index.max() < PAST_INT32
    np.testing.assert_array_equal(np.where(replaced < 0, index, replaced), places(48, PAST_INT32))
    assert (index % 5 != 0).all() and (replaced[replaced >= 0] % 5 == 0).all() and (replaced >= 0).any()
    np.testing.assert_array_equal(joined(batches, 'label'), index % 10)
    start = 5 * PAST_INT32 // 4  # the sixth epoch begins in it
    late = train(source, 3, start=start)
    assert_same(train(source, 2, start=start + 1, workers=Workers(threads=3)), late[1:])
    with caplog.at_level(logging.WARNING):
        for batch in batches:
            bad.check(batch)
    assert {f'made/{number}' for number in replaced[replaced >= 0]} == {
        message.split()[3] for message in caplog.messages}
    (host, device), *_ = take(to_devices(take_as_generator(batches), make_mesh(jax.devices()[:1]), ('index',)))
    np.testing.assert_array_equal(device['bad'], np.where(host['bad'] < 0, -1, 0))


def take_as_generator(batches):
    yield from batches


def test_hosts_tell_each_other_of_samples_past_int32(monkeypatch):
    mine, theirs = PAST_INT32 - 1, PAST_INT32 - 2
    bad = BadSamples(Made(PAST_INT32))
    monkeypatch.setattr(jax, 'process_count', lambda: 2)
    monkeypatch.setattr(input_pipeline, 'why_unreadable', lambda source, index: 'broken')
    bad.check({'bad': np.array([mine, -1])})

    def gathered(array):  # as JAX does, which has no int64 here
        return np.stack([np.asarray(jax.numpy.asarray(array)), np.array([theirs, -1]).view(np.int32)])
    monkeypatch.setattr(input_pipeline.multihost_utils, 'process_allgather', gathered)
    assert bad.news == 1
    bad.share(2)
    assert (bad.news, len(bad)) == (0, 2)
    with pytest.raises(UserError, match=f'the first: made/{theirs}, made/{mine}'):
        bad.check_total(PAST_INT32)


def test_an_evaluation_does_not_take_one_sample_for_another():
    """What is told of single images is numbered by the devices, in int32."""
    batch = {'index': np.array([PAST_INT32])}
    with pytest.raises(UserError, match=f'index {PAST_INT32} is past .*config.misclassified=0'):
        take(to_devices(take_as_generator([batch]), make_mesh(jax.devices()[:1]), ()))
