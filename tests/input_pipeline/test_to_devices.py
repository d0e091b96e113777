"""The way to the devices, and batches made on them."""

import inspect

import jax
import numpy as np
from fixtures_input import AUGMENT, ONE, VIEW, assert_same, take

from imagenet_jax import sources
from imagenet_jax.input_pipeline import drawn_batches, eval_batches, to_devices, train_batches
from imagenet_jax.step import make_mesh


def test_to_devices_keeps_order_and_content(good):
    mesh = make_mesh()
    assert mesh.size == 8
    expected = take(eval_batches(good, VIEW, 8, ONE)) + take(eval_batches(good, VIEW, 8, ONE))
    pairs = list(to_devices((batch for batch in expected), mesh))
    assert_same([host for host, _ in pairs], expected)
    for host, device in pairs:
        assert device.keys() == host.keys() - {'index', 'bad'}
        for name, value in device.items():
            assert len(value.sharding.device_set) == 8 and value.addressable_shards[0].data.shape[0] == 1
            np.testing.assert_array_equal(value, host[name])


def test_closing_the_device_iterator_closes_the_one_below(good):
    batches = train_batches(good, AUGMENT, 8, 0, workers=ONE)
    on_devices = to_devices(batches, make_mesh())
    next(on_devices)
    on_devices.close()
    assert inspect.getgeneratorstate(batches) == inspect.GEN_CLOSED


def synthetic(count, seed=0, start=0, devices=1):
    source = sources.create('synthetic', '', 'train', 5, 4, num_examples=10)
    return take(drawn_batches(source, (64, 4, 4, 3), seed, make_mesh(jax.devices()[:devices]), start), count)


def test_synthetic_batches_are_made_on_the_devices():
    (host, batch), = synthetic(1, devices=8)
    assert host == {}
    assert batch['image'].shape == (64, 4, 4, 3) and batch['image'].dtype == np.uint8
    assert len(batch['image'].sharding.device_set) == 8
    assert batch['label'].dtype == np.int32 and set(np.asarray(batch['label'])) == set(range(5))
    assert abs(np.asarray(batch['image']).mean() - 127.5) < 8


def test_synthetic_batches_are_a_function_of_seed_and_step():
    run = [batch for _, batch in synthetic(4)]
    assert_same([batch for _, batch in synthetic(2, start=2, devices=4)], run[2:])
    other = [batch for _, batch in synthetic(4, seed=1)]
    assert len({np.asarray(batch['image']).tobytes() for batch in run + other}) == 8
