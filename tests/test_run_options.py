"""When a run does what."""

import pytest

from imagenet_jax.run_options import Every


@pytest.mark.parametrize(('steps', 'last', 'expected'), [
    (3, 10, [3, 6, 9, 10]), (2.5, 10, [3, 5, 8, 10]), (0, 10, []), (20, 10, [10]), (1, 3, [1, 2, 3])])
def test_every(steps, last, expected):
    assert [at for at in range(1, last + 1) if Every(steps, last).due(at)] == expected


def test_what_is_done_at_another_cadence_is_done_at_its_next_chance():
    """Evaluations every 4 steps, a picture every 10 at one of them: the first at or after each multiple."""
    every, drawn = Every(10, 41), [0]
    for at in range(4, 41, 4):
        if every.due(at, drawn[-1]):
            drawn.append(at)
    assert drawn[1:] == [12, 20, 32, 40]
