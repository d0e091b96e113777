"""Which columns of a Parquet file are images and labels, and what they hold."""

import json
import logging
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from imagenet_jax.errors import UserError, first_line
from imagenet_jax.sources.shards import pointer_hint

log = logging.getLogger(__name__)

# What a damaged file raises, beside OSError.
UNREADABLE = pa.ArrowException, UnicodeDecodeError

# The usual first, those of a WebDataset that the hub converted last.
_IMAGES = ('image', 'img', 'jpg', 'jpeg', 'png', 'webp')
_LABELS = ('label', 'labels', 'fine_label', 'fine_labels', 'cls')
# Read at once: Arrow holds no more than 2 GiB of images in one array of structs.
_ROWS = 256


def read_labels(file: Path, option: str) -> tuple[pq.ParquetFile, tuple, pa.ChunkedArray]:
    """Opens a file and reads its labels.

    Args:
      file: to open.
      option: data.labels, '' where it is not set.

    Returns:
      The open file; (image column, label column, class names, whether labels are texts); the labels, without nulls.

    Raises:
      UserError: it cannot be read, or a column is missing or of another kind.
    """
    try:
        parquet = pq.ParquetFile(file, page_checksum_verification=True)
        schema = parquet.schema_arrow
        features = _features(schema)
        image = _column(file, schema, _IMAGES, features, 'Image')
        label = _label_column(file, schema, option, features)
        labels = parquet.read([label])[label]
        if pa.types.is_dictionary(labels.type):
            labels = labels.cast(labels.type.value_type)
    except (*UNREADABLE, OSError) as error:
        raise UserError(f'{file} cannot be read as Parquet: {first_line(error)}{pointer_hint(file)}') from error
    if len(labels) != parquet.metadata.num_rows:
        raise UserError(f'{file} is damaged: {len(labels)} labels for {parquet.metadata.num_rows} rows')
    is_text = _is_text(labels.type)
    if labels.null_count or not (is_text or pa.types.is_integer(labels.type)):
        raise UserError(f'{file}: column {label} must hold an integer, or a text, in every row; it is {labels.type} '
                        f'with {labels.null_count} nulls{_why(labels)}')
    kind = schema.field(image).type
    if not (_is_bytes(kind) or _is_text(kind) or (pa.types.is_struct(kind) and kind.get_field_index('bytes') >= 0)):
        raise UserError(f'{file}: column {image} must be a struct with a field bytes, or bytes; it is {kind}')
    names = features.get(label, {}).get('names', ())
    names = tuple(map(str, names)) if isinstance(names, list) and not is_text else ()
    return parquet, (image, label, names, is_text), labels


def _why(labels: pa.ChunkedArray) -> str:
    if pa.types.is_nested(labels.type):
        return '; several labels an image are not read from Parquet'
    if labels.null_count == len(labels):
        return '; without labels, as where they are kept secret, a split is of no use here'
    return ''


def _column(file: Path, schema: pa.Schema, names: tuple[str, ...], features: dict, kind: str) -> str:
    """The first of the names that there is, else the one column that is of the kind by the hub's metadata."""
    found = [name for name in names if name in schema.names]
    declared = [name for name in schema.names if features.get(name, {}).get('_type') == kind]
    if not found and len(declared) != 1:
        raise UserError(f'{file} has no column {", ".join(names[:-1])} or {names[-1]}; its columns: '
                        f'{", ".join(schema.names)}')
    return (found or declared)[0]


def _label_column(file: Path, schema: pa.Schema, option: str, features: dict) -> str:
    named = [name for name in (option, f'{option}_label', f'{option}_labels') if option and name in schema.names]
    if option and not named:
        raise UserError(f'{file}: data.labels={option!r}, and it has no column {option} or {option}_label; its '
                        f'columns: {", ".join(schema.names)}')
    label = named[0] if named else _column(file, schema, _LABELS, features, 'ClassLabel')
    others = [name for name in schema.names if name != label and features.get(name, {}).get('_type') == 'ClassLabel']
    if others and not option:
        log.info('%s: labels are column %s; data.labels takes another: %s', file, label, ', '.join(others))
    return label


def _features(schema: pa.Schema) -> dict[str, dict]:
    """What the hub's metadata says of each column; {} where another tool wrote the file."""
    try:
        features = json.loads(schema.metadata[b'huggingface'])['info']['features']
        return {name: feature for name, feature in features.items() if isinstance(feature, dict)}
    except (TypeError, KeyError, ValueError, AttributeError, RecursionError):
        return {}


def numbers(file: Path, labels: pa.ChunkedArray) -> np.ndarray:
    """int32 (rows,) of integer labels. Raises UserError where one is larger."""
    try:
        return labels.cast(pa.int32()).to_numpy()
    except pa.ArrowInvalid as error:
        raise UserError(f'{file}: labels: {error}') from error


def _is_text(kind: pa.DataType) -> bool:
    return pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)


def _is_bytes(kind: pa.DataType) -> bool:
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    return pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind)


def encoded(texts: list[pa.ChunkedArray]) -> pa.DictionaryArray:
    """All texts in one array, each a number in its dictionary."""
    return pa.chunked_array([chunk.cast(pa.large_string()) for part in texts for chunk in part.chunks],
                            pa.large_string()).combine_chunks().dictionary_encode()


def read_group(file: Path, group: int, column: str) -> pa.ChunkedArray:
    """A column of one row group. Raises OSError or one of UNREADABLE."""
    batches = pq.ParquetFile(file, page_checksum_verification=True).iter_batches(_ROWS, row_groups=[group],
                                                                                 columns=[column])
    return pa.Table.from_batches(batches)[column]


def bytes_and_paths(column: pa.ChunkedArray) -> tuple[pa.ChunkedArray | None, pa.ChunkedArray | None]:
    """What an image column holds of encoded images and of paths."""
    if not pa.types.is_struct(column.type):
        return (None, column) if _is_text(column.type) else (column, None)
    parts = dict(zip([field.name for field in column.type], column.flatten(), strict=True))
    return parts['bytes'], parts.get('path')


def size(parts: tuple[pa.ChunkedArray | None, ...]) -> int:
    """Bytes in memory of `bytes_and_paths`."""
    return sum(part.nbytes for part in parts if part)
