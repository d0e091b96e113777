"""Features of many images, with their keys and labels, and files of them. Needs no JAX."""

import contextlib
import dataclasses
import json
import struct
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
from pyarrow import parquet

from imagenet_jax.errors import UserError, as_text, first_line, replacing

ENDINGS = ('.npz', '.parquet')
# Rows that a group of a Parquet file has at least: what a reader takes at a time.
_GROUP = 8192
# What reading a file that has changed may raise.
_DAMAGE = ValueError, EOFError, RuntimeError, OverflowError, struct.error, zlib.error, zipfile.BadZipFile


@dataclasses.dataclass(frozen=True)
class Features:
    """Of some images, in order.

    Attributes:
      keys: what the data set calls each.
      labels: int32 (N,), the data set's own numbers; multi-label float32 (N, K) of 0 and 1, NaN where neither counts.
      values: float32 (N, C), all finite.
      class_names: one a class; () where the data set has none.
      origin: the model, its weights, stage and view of an image, in words; '' where it is not known.
    """
    keys: Sequence[str]
    labels: np.ndarray
    values: np.ndarray
    class_names: tuple[str, ...] = ()
    origin: str = ''

    def __len__(self) -> int:
        return len(self.keys)

    @property
    def multi_label(self) -> bool:
        """As of a source."""
        return self.labels.ndim == 2


def joined(parts: Iterable[Features], most: int) -> Features:
    """All parts as one, of `most` images at most: memory is taken once, and not again to join them.

    Raises:
      UserError: they have no image.
    """
    rows, keys, labels, values, part = 0, [], [], None, None
    for part in parts:
        if values is None:
            values = np.empty((most, part.values.shape[1]), np.float32)
        values[rows:rows + len(part)] = part.values
        keys += part.keys
        labels.append(part.labels)
        rows += len(part)
    _refuse_none(rows)
    return Features(keys, np.concatenate(labels), values[:rows], part.class_names, part.origin)


def write(path: Path, parts: Iterable[Features], most: int) -> int:
    """Writes a file whole or not at all, in the format that its name ends in; a Parquet file as the parts come.

    .npz: keys (text), labels, class_names (text), features, origin (text), as `Features` has them. .parquet: a row an
    image; columns key, label, label_name (null where classes have no names; lists where an image may have several) and
    features; class names and origin are in the schema's metadata. There a key that is no text has escapes.

    Args:
      path: of the file.
      parts: what to write.
      most: images that they have together, at most.

    Returns:
      The number of images.

    Raises:
      UserError: they have no image, or the file cannot be written.
    """
    with replacing(path) as partial:
        if path.suffix.lower() == '.parquet':
            return _write_parquet(partial, parts)
        made = joined(parts, most)
        with open(partial, 'wb') as file:  # by its name it would get an ending of its own
            np.savez(file, keys=np.array(made.keys), labels=made.labels, class_names=np.array(made.class_names, str),
                     features=made.values, origin=np.array(made.origin))
        return len(made)


def read(path: Path) -> Features:
    """A file that `write` made, or one of the same form; the features may be of any float dtype.

    Raises:
      UserError: there is none, it is damaged, or holds something else.
    """
    _refuse_ending(path)
    with _reading(path):
        made = (_read_parquet if path.suffix.lower() == '.parquet' else _read_npz)(path)
        if made.values.ndim != 2 or made.values.dtype.kind != 'f':
            raise ValueError(f'its features are {made.values.dtype} {made.values.shape}, not float (N, C)')
        if made.labels.dtype.kind not in {1: 'iu', 2: 'f'}.get(made.labels.ndim, ''):
            raise ValueError(f'its labels are {made.labels.dtype} {made.labels.shape}, not a class number an image')
        if not len(made.keys) == len(made.labels) == len(made.values):
            raise ValueError(f'it has {len(made.keys)} keys, {len(made.labels)} labels and features of '
                             f'{len(made.values)} images')
        if not np.isfinite(made.values).all():
            raise ValueError('some of its features are not finite')
        if not made.multi_label and (made.labels < 0).any():
            raise ValueError('some of its labels are negative')
    _refuse_none(len(made), path)
    return dataclasses.replace(made, values=made.values.astype(np.float32, copy=False))


def _refuse_ending(path: Path) -> None:
    if path.suffix.lower() not in ENDINGS:
        raise UserError(f'{path}: a file of features ends in {" or ".join(ENDINGS)}')


def _refuse_none(rows: int, path: Path | None = None) -> None:
    if not rows:
        raise UserError(f'{path} has features of no image' if path else 'no image has features: none could be read, or '
                        'what the model makes of them is not finite')


@contextlib.contextmanager
def _reading(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UserError(f'cannot read {path}: {error.strerror or first_line(error)}') from error
    except KeyError as error:
        raise UserError(f'{path} is no file of features: {error.args[0]}') from error
    except (*_DAMAGE, pa.ArrowException) as error:
        raise UserError(f'{path} is no file of features, or damaged: {first_line(error)}') from error


def _write_parquet(path: Path, parts: Iterable[Features]) -> int:
    rows, waiting = 0, []
    with contextlib.ExitStack() as stack:
        writer = None
        for part in parts:
            made = _table(part)
            if writer is None:
                writer = stack.enter_context(parquet.ParquetWriter(path, made.schema, write_page_checksum=True))
            waiting.append(made)
            rows += len(part)
            if sum(map(len, waiting)) >= _GROUP:
                writer.write_table(pa.concat_tables(waiting))
                waiting = []
        if waiting:
            writer.write_table(pa.concat_tables(waiting))
    _refuse_none(rows)
    return rows


def _table(part: Features) -> pa.Table:
    names = np.array([as_text(name) for name in part.class_names], object)
    if part.multi_label:
        label = _vectors(part.labels)
        named = [names[np.flatnonzero(row == 1)].tolist() if len(names) else None for row in part.labels]
        kind = pa.list_(pa.string())
    else:
        label, kind = pa.array(part.labels, pa.int32()), pa.string()
        named = [names[label] if label < len(names) else None for label in part.labels]
    columns = {'key': [as_text(key) for key in part.keys], 'label': label, 'label_name': pa.array(named, kind),
               'features': _vectors(part.values)}
    about = {'class_names': json.dumps(part.class_names), 'origin': json.dumps(part.origin)}
    return pa.table(columns).replace_schema_metadata(about)


def _vectors(values: np.ndarray) -> pa.FixedSizeListArray:
    return pa.FixedSizeListArray.from_arrays(pa.array(values.ravel(), pa.float32()), values.shape[1])


def _read_parquet(path: Path) -> Features:
    table = parquet.ParquetFile(path, page_checksum_verification=True).read()
    label, values = table['label'].combine_chunks(), table['features'].combine_chunks()
    about = {name: json.loads(value) for name, value in (table.schema.metadata or {}).items()
             if name in (b'class_names', b'origin')}
    return Features(table['key'].to_pylist(), _array(label), _array(values), tuple(about.get(b'class_names', ())),
                    about.get(b'origin', ''))


def _array(column: pa.Array) -> np.ndarray:
    """(N,), or (N, C) of lists, whose lengths are the same."""
    if column.null_count:
        raise ValueError(f'{column.null_count} labels or features are null')
    if not pa.types.is_nested(column.type):
        return column.to_numpy(zero_copy_only=False)
    flat = column.flatten().to_numpy(zero_copy_only=False)
    if not pa.types.is_fixed_size_list(column.type) and len(set(column.value_lengths().to_pylist())) > 1:
        raise ValueError('its features have different lengths')
    return flat.reshape(len(column), -1)


def _read_npz(path: Path) -> Features:
    with open(path, 'rb') as file:
        if not zipfile.is_zipfile(file):
            raise ValueError('it is no zip file, which .npz is')
    with np.load(path, allow_pickle=False) as arrays:
        return Features(arrays['keys'].tolist(), arrays['labels'], arrays['features'],
                        tuple(arrays['class_names'].tolist()) if 'class_names' in arrays else (),
                        str(arrays['origin']) if 'origin' in arrays else '')
