"""Which samples come, in what order, whoever decodes them."""

import dataclasses

import jax
import numpy as np
import pytest
from fixtures_input import AUGMENT, COUNT, ONE, VIEW, assert_same, joined, take, train
from grain.experimental import RngPool

from imagenet_jax.errors import UserError
from imagenet_jax.input_pipeline import Workers, eval_batches, train_batches


def test_batch_has_the_promised_arrays(good):
    batch, = train(good, 1)
    assert {name: (value.shape, value.dtype) for name, value in batch.items()} == {
        'image': ((4, 8, 8, 3), np.uint8), 'label': ((4,), np.int32), 'index': ((4,), np.int64),
        'bad': ((4,), np.int64)}
    np.testing.assert_array_equal(batch['label'], good.labels[batch['index']])
    assert (batch['bad'] == -1).all()


def test_each_epoch_is_another_permutation(good):
    epochs = joined(train(good, COUNT), 'index').reshape(4, COUNT)  # 11 batches of 4: most epochs end inside a batch
    for epoch in epochs:
        assert sorted(epoch) == list(range(COUNT))
    assert len({tuple(epoch) for epoch in epochs}) == 4


def test_an_image_is_augmented_anew_in_each_epoch(good):
    batches = train(good, COUNT)
    images, index = joined(batches, 'image'), joined(batches, 'index')
    assert len({image.tobytes() for image in images[index == 3]}) == 4


def test_batches_are_cut_from_one_stream(good):
    stream = train(good, 12, batch=1)
    for size in (3, 6, 12):
        batches = train(good, 12 // size, batch=size)
        for name in ('index', 'image', 'label'):
            np.testing.assert_array_equal(joined(batches, name), joined(stream, name))


def test_order_and_augmentation_follow_the_seed(good):
    first, again, other = (train(good, 3, seed=seed) for seed in (1, 1, 2))
    assert_same(first, again)
    assert joined(first, 'index').tolist() != joined(other, 'index').tolist()
    assert joined(first, 'image').tobytes() != joined(other, 'image').tobytes()


@pytest.mark.parametrize('start', [1, 3, 40])
def test_a_later_start_gives_the_tail_of_the_run(good, start):
    assert_same(train(good, 3, start=start, workers=Workers(threads=3)), train(good, start + 3)[start:])


def test_threads_do_not_change_what_comes(good):
    one = train(good, 12)
    for workers in (Workers(threads=3), Workers()):
        assert_same(train(good, 12, workers=workers), one)


def test_hosts_share_each_batch(good, monkeypatch):
    alone = train(good, 4), take(eval_batches(good, VIEW, 4, ONE))
    monkeypatch.setattr(jax, 'process_count', lambda: 2)
    shares = []
    for host in range(2):
        monkeypatch.setattr(jax, 'process_index', lambda host=host: host)
        shares.append((train(good, 4), take(eval_batches(good, VIEW, 4, ONE))))
    for whole, *parts in zip(alone, *shares, strict=True):
        interleaved = [{name: np.stack([a[name], b[name]], 1).reshape(w[name].shape) for name in w}
                       for w, a, b in zip(whole, *parts, strict=True)]
        assert_same(interleaved, whole)
    with pytest.raises(UserError, match='batch of 5 images does not divide among 2 processes'):
        train(good, 1, batch=5)


@pytest.mark.parametrize('repeats', [2, 3, 20])
def test_a_repeated_image_comes_in_a_row_with_views_of_its_own(good, repeats, monkeypatch):
    view = dataclasses.replace(AUGMENT, repeats=repeats)

    def taken(start, count):
        return take(train_batches(good, view, 4, 0, start, ONE), count)

    index, once = joined(taken(0, COUNT), 'index'), joined(train(good, COUNT), 'index')
    for place in range(4 * COUNT):  # epochs of as many samples, each the start of its order
        epoch, at = divmod(place, COUNT)
        assert index[place] == once[epoch * COUNT + at // repeats]
    images = joined(taken(0, COUNT), 'image')
    assert len({image.tobytes() for image in images}) == 4 * COUNT
    samples = [(image, label) for image, label in zip(images, joined(taken(0, COUNT), 'label'), strict=True)]
    for place in (0, 7, 30):  # as at that place any image is augmented
        pixels = view(good.image(index[place]), RngPool(0).acquire_rng(place))
        np.testing.assert_array_equal(samples[place][0], pixels)
        assert samples[place][1] == good.labels[index[place]]
    assert_same(taken(5, 6), taken(0, COUNT)[5:])
    monkeypatch.setattr(jax, 'process_count', lambda: 2)
    for host in range(2):
        monkeypatch.setattr(jax, 'process_index', lambda host=host: host)
        np.testing.assert_array_equal(joined(taken(0, COUNT), 'image'), images[host::2])


def test_wrong_numbers_are_refused(good):
    with pytest.raises(UserError, match='batch of 0'):
        train(good, 1, batch=0)
    for wrong in ({'processes': -1}, {'threads': -1}):
        with pytest.raises(UserError, match='must not be negative'):
            Workers(**wrong)


@pytest.mark.parametrize('batch', [1, 4, 11, 16])
@pytest.mark.parametrize('workers', [ONE, Workers(threads=3)], ids=['one', 'three'])
def test_evaluation_sees_every_image_once(good, batch, workers):
    batches = take(eval_batches(good, VIEW, batch, workers))
    assert len(batches) == -(-COUNT // batch)
    assert all(b['image'].shape == (batch, 8, 8, 3) for b in batches)
    mask, index = joined(batches, 'mask'), joined(batches, 'index')
    assert mask.dtype == bool and index[mask].tolist() == list(range(COUNT))
    np.testing.assert_array_equal(joined(batches, 'label')[mask], good.labels)
    np.testing.assert_array_equal(joined(batches, 'image')[mask], [VIEW(good.image(i)) for i in range(COUNT)])
    assert (index[~mask] == -1).all() and (joined(batches, 'bad') == -1).all()
    assert not joined(batches, 'image')[~mask].any()


@pytest.mark.parametrize('hosts', [1, 2, 4])
def test_an_evaluation_is_shared_out_evenly_and_padded_by_less_than_a_batch(good, hosts, monkeypatch):
    monkeypatch.setattr(jax, 'process_count', lambda: hosts)
    read, shares = [], []
    monkeypatch.setattr(good, 'image', lambda index, image=good.image: read.append(index) or image(index))
    for host in range(hosts):
        monkeypatch.setattr(jax, 'process_index', lambda host=host: host)
        batches = take(eval_batches(good, VIEW, 4, ONE))
        assert [len(each['mask']) for each in batches] == [4 // hosts] * -(-COUNT // 4)
        shares.append(joined(batches, 'mask'))
    images = [int(share.sum()) for share in shares]
    assert sum(images) == COUNT and max(images) - min(images) <= 1
    assert sum(map(len, shares)) - COUNT < 4
    # Nothing is read but for its own share; the first image of a split is, once more, where its shape is asked for.
    assert sorted(set(read)) == list(range(COUNT)) and len(read) <= COUNT + hosts
