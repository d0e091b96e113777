"""The list of arrays that goes with each checkpoint: their shapes, dtypes and CRC-32, and a CRC-32 of the list."""

import functools
import json
import zlib
from collections.abc import Mapping

import jax
import numpy as np

from imagenet_jax.optim import path_name

_SEAL = 'crc32'  # beside the names of arrays: of the list itself


def named(state) -> dict[str, jax.Array]:
    """Path, such as params/conv1/kernel -> array."""
    return {path_name(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(state)}


def layout(state) -> dict[str, list]:
    """Path -> [shape, dtype]."""
    return {name: [list(leaf.shape), str(leaf.dtype)] for name, leaf in named(state).items()}


def of(state) -> dict[str, list]:
    """Path -> [shape, dtype, CRC-32]. The file format's own checks do not cover array bytes."""
    listed = layout(state)
    for name, value in _on_host(state).items():
        listed[name].append(zlib.crc32(np.ascontiguousarray(value)))
    return listed


def copied(state) -> dict[str, np.ndarray]:
    """Path -> a copy on the host: on a CPU an array's own memory may be the next step's."""
    return {name: np.array(value) for name, value in _on_host(state).items()}


def _on_host(state) -> dict[str, np.ndarray]:
    return jax.device_get({name: leaf.addressable_data(0) if isinstance(leaf, jax.Array) else leaf
                           for name, leaf in named(state).items()})


def checksum(variables) -> int:
    """CRC-32 of all arrays, one after the other."""
    return functools.reduce(lambda crc, x: zlib.crc32(np.ascontiguousarray(x), crc), jax.tree.leaves(variables), 0)


def sealed(contents: Mapping[str, list]) -> dict:
    """What is saved: the list, and its own CRC-32 beside."""
    return dict(contents) | {_SEAL: zlib.crc32(json.dumps(contents, sort_keys=True).encode())}


def opened(saved: Mapping) -> dict[str, list]:
    """The list that was sealed. Of one that was saved without a checksum it cannot be told whether it is whole.

    Raises:
      ValueError: it is not as it was saved.
    """
    if all(isinstance(value, list) for value in saved.values()):
        return dict(saved)
    names = {name: value for name, value in saved.items() if name != _SEAL}
    if saved != sealed(names):
        raise ValueError('its list of arrays is not as it was saved')
    return names


def refuse_changed(state, contents: Mapping[str, list]) -> None:
    """Raises ValueError where arrays are not those of the list."""
    wrong = [name for name, value in of(state).items() if value != contents[name]]
    if wrong:
        raise ValueError(f'{len(wrong)} arrays differ from what was saved, the first {wrong[0]}')
