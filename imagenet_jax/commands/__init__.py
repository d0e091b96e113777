"""The command line: one module a command."""

import logging


def log_to_stderr(clock: bool = False) -> None:
    """Shows our own log lines, with the time of day where wanted."""
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter('%(asctime)s %(message)s' if clock else '%(message)s', '%H:%M:%S'))
    ours = logging.getLogger('imagenet_jax')
    ours.addHandler(handler)
    ours.setLevel(logging.INFO)
    ours.propagate = False
