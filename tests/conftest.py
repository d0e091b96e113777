"""Tests run on the CPU with eight simulated devices, set before JAX starts."""

import logging
import os
import signal

import pytest

os.environ['JAX_PLATFORMS'] = 'cpu'
# Compiling is most of what tests do, and the code it makes runs for milliseconds.
os.environ['XLA_FLAGS'] = '--xla_force_host_platform_device_count=8 --xla_backend_optimization_level=0'
# A shell without job control has what it puts into the background ignore Ctrl-C, and so would all that tests start.
signal.signal(signal.SIGINT, signal.default_int_handler)

from imagenet_jax import runtime  # noqa: E402

runtime.configure_jax(deterministic=False, compilation_cache=False)  # as a run does


def pytest_collection_modifyitems(items):
    """Files that start whole runs go first: one left to the end would keep a single worker busy."""
    import runs
    items.sort(key=lambda item: getattr(item.module, 'run', None) is not runs.run)


@pytest.fixture(autouse=True)
def log():
    """Commands called in this process set the log up as for a terminal."""
    ours = logging.getLogger('imagenet_jax')
    handlers, level, propagate = ours.handlers[:], ours.level, ours.propagate
    yield
    ours.handlers[:], ours.propagate = handlers, propagate
    ours.setLevel(level)
