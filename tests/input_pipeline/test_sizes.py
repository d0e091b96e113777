"""Images that grow with the epochs, and several views of each."""

import dataclasses

import jax
import numpy as np
import pytest
from fixtures_input import AUGMENT, COUNT, ONE, assert_same, take, train

from imagenet_jax import sources
from imagenet_jax.images.distort import Distort
from imagenet_jax.images.ramp import Ramp
from imagenet_jax.input_pipeline import Workers, train_batches, train_pairs
from imagenet_jax.step import make_mesh

# Epochs of 11 samples: sides 4, 4, 6, 6, 8, 8, ...
GROWING = dataclasses.replace(AUGMENT, ramp=Ramp(size=8, first_size=4, ramp_epochs=(1, 5)))


def grown(source, count, batch=4, start=0, workers=ONE, view=GROWING):
    return take(train_batches(source, view, batch, 0, start, workers), count)


def sides(batches):
    return [batch['image'].shape[-2] for batch in batches]


@pytest.mark.parametrize('batch', [1, 4, 11, 16, 40])
def test_a_batch_has_the_size_of_the_epoch_in_which_it_begins(good, batch):
    count = 70 // batch + 2
    batches = grown(good, count, batch)
    assert sides(batches) == [[4, 4, 6, 6, 8][min(4, step * batch // COUNT)] for step in range(count)]
    for got, plain in zip(batches, train(good, count, batch), strict=True):
        np.testing.assert_array_equal(got['index'], plain['index'])  # size changes no image's turn
        if got['image'].shape == plain['image'].shape:
            np.testing.assert_array_equal(got['image'], plain['image'])
    assert_same(batches[:1], grown(good, 1, batch, view=dataclasses.replace(AUGMENT, size=4)))


def test_a_later_start_gives_the_tail(good):
    run = grown(good, 14)
    assert sorted(set(sides(run))) == [4, 6, 8]
    for start in range(14):
        assert_same(grown(good, 14 - start, start=start, workers=Workers(threads=3)), run[start:])


def test_processes_give_what_threads_give(good):
    view = dataclasses.replace(GROWING, views=2, repeats=2)
    run = [grown(good, 6, start=8, workers=workers, view=view) for workers in (ONE, Workers(processes=2))]
    assert_same(*run)
    assert sides(run[0]) == [6, 6, 6, 8, 8, 8]


def test_hosts_change_size_together(good, monkeypatch):
    run = grown(good, 14)
    monkeypatch.setattr(jax, 'process_count', lambda: 2)
    for host in range(2):
        monkeypatch.setattr(jax, 'process_index', lambda host=host: host)
        for part, whole in zip(grown(good, 14), run, strict=True):
            np.testing.assert_array_equal(part['image'], whole['image'][host::2])


def test_views_are_an_axis_of_their_own(good):
    batches = grown(good, 14, view=dataclasses.replace(GROWING, views=3))
    assert [batch['image'].shape for batch in batches] == [(4, 3, side, side, 3) for side in sides(batches)]
    assert {batch['label'].shape for batch in batches} == {(4,)}
    undistorted = dataclasses.replace(AUGMENT, distort=Distort())
    last = take(train_batches(good, undistorted, 4, 0, 13, ONE), 1)[0]
    np.testing.assert_array_equal(batches[13]['image'][:, 0], last['image'])


def test_the_devices_get_each_size(good):
    for host, device in take(train_pairs(good, GROWING, 8, 0, 0, ONE, make_mesh()), 9):
        np.testing.assert_array_equal(device['image'], host['image'])
    assert device['image'].shape == (8, 8, 8, 3) and len(device['image'].sharding.device_set) == 8


def test_what_is_drawn_on_the_devices_grows_too():
    source = sources.create('synthetic', '', 'train', 5, 8, num_examples=COUNT)
    view = dataclasses.replace(GROWING, views=2)

    def drawn(start, count):
        return [batch for _, batch in take(train_pairs(source, view, 8, 0, start, ONE, make_mesh()), count)]
    run = drawn(0, 8)
    assert [batch['image'].shape for batch in run] == [(8, 2, side, side, 3) for side in (4, 4, 4, 6, 6, 6, 8, 8)]
    assert_same(drawn(6, 2), run[6:])
