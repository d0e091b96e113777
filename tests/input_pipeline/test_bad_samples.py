"""Samples that cannot be read are replaced or counted, named, and too many an error."""

import logging

import numpy as np
import pytest
from fixtures_images import flip_bit, image_folder, jpeg, parquet_file
from fixtures_input import COUNT, ONE, VIEW, assert_same, joined, take, train

from imagenet_jax import sources
from imagenet_jax.errors import UserError
from imagenet_jax.input_pipeline import BadSamples, Workers, eval_batches


def test_training_replaces_a_bad_sample_and_reports_it(spoiled):
    batches = train(spoiled, COUNT)
    index, bad = joined(batches, 'index').reshape(4, COUNT), joined(batches, 'bad').reshape(4, COUNT)
    for epoch in range(4):
        assert sorted(bad[epoch])[:-1] == [-1] * (COUNT - 1) and bad[epoch].max() == 4
    assert 4 not in index
    assert len(set(index[bad == 4])) > 1  # another one each time
    np.testing.assert_array_equal(joined(batches, 'label'), spoiled.labels[index.ravel()])
    assert all(image.any() for image in joined(batches, 'image'))
    assert_same(train(spoiled, 3, start=8, workers=Workers(threads=3)), batches[8:])


def test_a_bad_sample_leaves_the_others_as_they_were(good, spoiled):
    for with_all, without in zip(train(good, 5), train(spoiled, 5), strict=True):
        readable = without['bad'] < 0
        for name in with_all:
            np.testing.assert_array_equal(with_all[name][readable], without[name][readable])


def test_training_gives_up_where_nothing_can_be_read(tmp_path):
    image_folder(tmp_path, {f'train/ant/{i}.JPEG': b'junk' for i in range(5)})
    source = sources.create('folder', str(tmp_path), 'train', 1, 8)
    with pytest.raises(UserError, match=r'16 samples in a row cannot be read, the first ant/\d.JPEG: 4 bytes of no'):
        train(source, 1)


def test_evaluation_counts_a_bad_sample(spoiled):
    batches = take(eval_batches(spoiled, VIEW, 4, ONE))
    mask, bad = joined(batches, 'mask'), joined(batches, 'bad')
    assert joined(batches, 'index')[mask].tolist() == list(range(COUNT))
    assert bad.tolist() == [4 if i == 4 else -1 for i in range(12)]
    np.testing.assert_array_equal(joined(batches, 'label')[mask], spoiled.labels)
    assert not joined(batches, 'image')[4].any() and joined(batches, 'image')[5].any()


def test_a_damaged_row_group_is_bad_samples(tmp_path):
    file = parquet_file(tmp_path / 'train-0.parquet', [jpeg(i) for i in range(6)], [0] * 6, row_group_size=2,
                        compression='none', write_page_checksum=True)
    data = file.read_bytes()
    file.write_bytes(flip_bit(data, data.index(jpeg(3)) + 300))
    source = sources.create('parquet', str(tmp_path), 'train', 1, 8)
    batch, = take(eval_batches(source, VIEW, 6, ONE))
    assert batch['bad'].tolist() == [-1, -1, 2, 3, -1, -1]


def test_bad_samples_are_counted_and_named_once(spoiled, caplog):
    bad = BadSamples(spoiled, max_bad_fraction=0.1)
    with caplog.at_level(logging.WARNING):
        for batch in train(spoiled, COUNT) + take(eval_batches(spoiled, VIEW, 4, ONE)):
            bad.check(batch)
    assert len(bad) == 1
    assert [record.getMessage() for record in caplog.records] == [
        'bad sample 1: bee/001.JPEG cannot be read: 0 bytes of no known image format']
    bad.check({})  # a batch made on the device
    assert len(bad) == 1


@pytest.mark.parametrize('fraction', [-0.1, 1.5])
def test_the_fraction_has_a_range(fraction, spoiled):
    with pytest.raises(UserError, match=rf'data\.max_bad_fraction={fraction} must be in \[0, 1\]'):
        BadSamples(spoiled, max_bad_fraction=fraction)


def test_on_error_raise_stops_at_the_first(spoiled):
    bad = BadSamples(spoiled, on_error='raise', max_bad_fraction=1.0)
    first, second, _ = take(eval_batches(spoiled, VIEW, 4, ONE))
    bad.check(first)
    with pytest.raises(UserError, match=r'bee/001\.JPEG cannot be read: .*data\.on_error=raise'):
        bad.check(second)
    with pytest.raises(UserError, match=r"data\.on_error 'rais'; did you mean raise"):
        BadSamples(spoiled, on_error='rais')


def test_too_many_bad_samples_are_an_error_that_lists_ten(tmp_path):
    image_folder(tmp_path, {f'train/ant/{i:02d}.JPEG': b'' if i < 13 else jpeg(i) for i in range(24)})
    source = sources.create('folder', str(tmp_path), 'train', 1, 8)
    bad = BadSamples(source, max_bad_fraction=0.5)
    first, second = take(eval_batches(source, VIEW, 12, ONE))
    bad.check(first)  # twelve of twenty-four are half, and allowed
    with pytest.raises(UserError, match='13 of 24 samples') as caught:
        bad.check(second)
    assert 'data.max_bad_fraction' in str(caught.value)
    listed = [i for i in range(24) if f'ant/{i:02d}.JPEG' in str(caught.value)]
    assert listed == list(range(10))
