"""What waits together is answered together, and what fails or is wanted no more holds nobody up."""

import threading
from concurrent.futures import CancelledError

import numpy as np
import pytest

from imagenet_jax.use.serve.batching import Batcher, batch_sizes


class Recorder:
    """Models that answer each image by its first byte, and note what they were shown."""

    def __init__(self, sizes=(1, 2, 4, 8), most=8, max_wait=0.0, **kwargs):
        self.seen, self.held = [], threading.Event()
        self.batcher = Batcher({name: lambda images, name=name: self.answer(name, images) for name in 'ab'},
                               dict.fromkeys('ab', sizes), most, max_wait, **kwargs)

    def answer(self, name, images):
        self.seen.append((name, images[:, 0].tolist()))
        if 255 in images:
            raise ValueError('255')
        return images[:, 0]

    def hold(self):
        """Keeps the thread busy until `held` is set."""
        begun = threading.Event()
        self.batcher.call(lambda: (begun.set(), self.held.wait(60)))
        begun.wait(60)

    def submit(self, name, value, **kwargs):
        return self.batcher.submit(name, np.full(3, value, np.uint8), **kwargs)


def test_what_waits_together_is_one_batch_of_a_compiled_size():
    recorder = Recorder()
    recorder.hold()
    answers = [recorder.submit('a', value) for value in (5, 6, 7)]
    recorder.held.set()
    assert [each.result(60) for each in answers] == [5, 6, 7]
    assert recorder.seen == [('a', [5, 6, 7, 0])]


def test_models_take_turns_oldest_first_in_batches_of_at_most_so_many():
    recorder = Recorder(sizes=(2,), most=2)
    recorder.hold()
    answers = [recorder.submit(name, value) for value, name in enumerate('abaaab', 1)]
    recorder.held.set()
    assert [each.result(60) for each in answers] == [1, 2, 3, 4, 5, 6]
    assert recorder.seen == [('a', [1, 3]), ('b', [2, 6]), ('a', [4, 5])]


def test_the_first_waits_for_others():
    recorder = Recorder(sizes=(2,), most=2, max_wait=60)
    first = recorder.submit('a', 1)
    assert not first.done()
    recorder.submit('a', 2).result(60)  # the batch is full
    assert first.result(60) == 1 and recorder.seen == [('a', [1, 2])]


def test_none_waits_where_no_other_is_on_its_way():
    recorder = Recorder(sizes=(2,), most=2, max_wait=10**6, coming=lambda: 1)
    assert recorder.submit('a', 1).result(60) == 1


def test_what_fails_or_is_wanted_no_more_holds_nobody_up():
    recorder = Recorder()
    with pytest.raises(ValueError, match='255'):
        recorder.submit('a', 255).result(60)
    recorder.hold()
    gone, answer = recorder.submit('a', 1, gone=lambda: True), recorder.submit('a', 2)
    recorder.submit('a', 3).cancel()
    recorder.held.set()
    assert answer.result(60) == 2 and recorder.seen[-1] == ('a', [2])
    with pytest.raises(CancelledError):
        gone.result(60)
    with pytest.raises(ZeroDivisionError):
        recorder.batcher.call(lambda: 1 / 0).result(60)
    assert recorder.batcher.alive


def test_closing_lets_go_of_what_waits():
    recorder = Recorder()
    recorder.hold()
    waiting = recorder.submit('a', 1)
    recorder.batcher.close(0)
    recorder.held.set()
    for each in (waiting, recorder.submit('a', 2)):
        with pytest.raises(CancelledError):
            each.result(60)
    assert not recorder.seen


@pytest.mark.parametrize('most, devices, sizes', [
    (1, 1, (1,)), (32, 1, (1, 2, 4, 8, 16, 32)), (24, 1, (1, 2, 4, 8, 16, 24)), (4, 8, (8,)), (20, 8, (8, 16, 24))])
def test_sizes_of_batches(most, devices, sizes):
    assert batch_sizes(most, devices) == sizes
