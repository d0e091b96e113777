"""Files that hold a PyTorch state_dict: found on disk or on a model hub, read and written."""

import argparse
import hashlib
import logging
import os
import re
from collections.abc import Mapping
from pathlib import Path, PosixPath
from typing import Any

import numpy as np

from imagenet_jax.errors import UserError, beside, expanded, first_line, replacing

log = logging.getLogger(__name__)

SUFFIXES = ('.safetensors', '.pth', '.pt', '.th', '.bin', '.tar')
_HUB_FILES = ('model.safetensors', '*.safetensors', 'pytorch_model.bin')
# Of other JAX code: Flax's own form, and what lies in a folder of Orbax's.
_FLAX = ('*.msgpack', '_CHECKPOINT_METADATA', '_METADATA', 'manifest.ocdbt')


def find(source: str) -> tuple[Path, dict[str, str]]:
    """The file that `source` names, and where it is from, for a record: its SHA-256, and the revision if it has one.

    Args:
      source: a file, a folder that holds one (such as a snapshot of a model hub's repository), or
        hf:OWNER/NAME[@REVISION][/FILE], which huggingface_hub downloads or finds in its cache.

    Raises:
      UserError: there is no such file, or no choosing between several.
    """
    origin = {'source': source}
    if source.startswith('hf:'):
        path, origin['revision'] = _from_hub(source)
    else:
        path = expanded(source)
    if os.path.isdir(path):
        path = _in_folder(path)
    if not os.path.isfile(path):
        raise UserError(f'{source}: no such file; {beside(path)}')
    with path.open('rb') as file:
        origin['sha256'] = hashlib.file_digest(file, 'sha256').hexdigest()
    log.info('%s: %s', path, ', '.join(f'{key} {value}' for key, value in origin.items() if key != 'source'))
    return path, origin


def names_weights(source: str | Path) -> bool:
    """Whether `source` is a file of weights, a folder with one or of another code's checkpoint, or on a hub; not one
    of a run or an import."""
    path = Path(source) if str(source).startswith('hf:') else expanded(source)
    if str(source).startswith('hf:') or path.suffix in SUFFIXES or os.path.isfile(path):
        return True
    return os.path.isdir(path) and not os.path.isdir(path / 'checkpoints') and any(
        any(path.glob(pattern)) for pattern in (*_HUB_FILES, *_FLAX))


def _in_folder(folder: Path) -> Path:
    for pattern in _HUB_FILES:
        paths = sorted(folder.glob(pattern))
        if len(paths) > 1:
            raise UserError(f'{folder} holds several: {", ".join(p.name for p in paths)}; name one')
        if paths:
            return paths[0]
    for pattern in _FLAX:
        if paths := sorted(folder.glob(pattern)):
            raise _of_other_flax(paths[0])
    raise UserError(f'{folder} holds none of {", ".join(_HUB_FILES)}, and is no folder of a run')


def _of_other_flax(path: Path) -> UserError:
    return UserError(f'{path} is a checkpoint of other JAX code, which names its arrays as it likes: save them under '
                     "the names that timm or torchvision has for the model, as .safetensors, or give a run's folder")


def _from_hub(source: str) -> tuple[Path, str]:
    """The file or its folder in the hub's local cache, and the commit that it is of."""
    parsed = re.fullmatch(r'hf:([^/@]+/[^/@]+)(?:@([^/]+))?(?:/(.+))?', source)
    if not parsed:
        raise UserError(f'{source}: must be hf:OWNER/NAME[@REVISION][/FILE]')
    try:
        import huggingface_hub
    except ImportError as error:
        raise UserError(f"{source} needs huggingface_hub: pip install 'imagenet_jax[hub]'") from error
    name, revision, file = parsed.groups()
    try:
        for pattern in [file] if file else _HUB_FILES:
            folder = Path(huggingface_hub.snapshot_download(
                name, revision=revision, allow_patterns=[pattern, 'config.json']))  # which says what they are
            if any(folder.glob(pattern)):
                break
    except Exception as error:  # no network, no such repository, no permission, ...: each of another type
        raise UserError(f'{source}: {type(error).__name__}: {first_line(error)}') from error
    return folder / (file or ''), folder.name  # a snapshot's folder is named by its commit


def read(path: Path) -> Mapping[str, Any]:
    """The state_dict of a file, as it is: arrays of .safetensors, half precision as float32, or torch's tensors.

    Raises:
      UserError: the file is of no known kind or damaged, or PyTorch is needed to read it.
    """
    path = Path(path)
    load = _read_safetensors if _suffix(path) == '.safetensors' else _read_torch
    try:
        return load(path)
    except UserError:
        raise
    except Exception as error:  # damage shows as SafetensorError, UnpicklingError, EOFError, RuntimeError, ...
        if 'Unsupported global' in str(error):
            name = re.search(r'GLOBAL (\S+)', str(error))
            raise UserError(f'{path} holds more than tensors{f", {name[1]}" if name else ""}, and reading Python '
                            'objects may run code: where you trust it, save its state_dict alone with torch.save, and '
                            'import that') from error
        raise UserError(f'{path} cannot be read: {type(error).__name__}: {first_line(error)}') from error


def write(path: Path, state_dict: Mapping[str, np.ndarray]) -> None:
    """Writes a state_dict as .safetensors or, for any other of `SUFFIXES`, as torch.save does; whole or not at all.

    Raises:
      UserError: an unknown suffix, PyTorch is needed to write it, or there is no writing to the path.
    """
    path = Path(path)
    save = _write_safetensors if _suffix(path) == '.safetensors' else _write_torch
    with replacing(path) as partial:
        save(partial, state_dict)


def _read_safetensors(path):
    from safetensors.numpy import load_file
    return {name: value.astype(np.float32) if value.dtype.itemsize == 2 and value.dtype.kind in 'fV' else value
            for name, value in load_file(path).items()}


def _write_safetensors(path, state_dict):
    from safetensors.numpy import save  # not save_file: that leaves the file to its owner alone, whatever the umask
    path.write_bytes(save(dict(state_dict), metadata={'format': 'pt'}))


def _read_torch(path):
    # Weights alone: anything else in a pickle would be code to run. What training scripts save beside them, their
    # arguments and scores, is harmless.
    torch = _torch(path)
    harmless = [argparse.Namespace, PosixPath, np.dtype, *(type(np.dtype(kind)) for kind in ('f4', 'f8', 'i8')),
                *((np._core.multiarray.scalar, f'numpy.{core}.multiarray.scalar') for core in ('core', '_core'))]
    with torch.serialization.safe_globals(harmless):
        return torch.load(path, map_location='cpu', weights_only=True)


def _write_torch(path, state_dict):
    torch = _torch(path)
    torch.save({name: torch.from_numpy(value) for name, value in state_dict.items()}, path)


def _torch(path):
    try:
        import torch
    except ImportError as error:
        raise UserError(f"{path} needs PyTorch: pip install 'imagenet_jax[torch]', or use .safetensors") from error
    return torch


def _suffix(path: Path) -> str:
    if path.suffix == '.msgpack':
        raise _of_other_flax(path)
    if path.suffix not in SUFFIXES:
        raise UserError(f'{path}: weights files end in {", ".join(SUFFIXES)}')
    return path.suffix
