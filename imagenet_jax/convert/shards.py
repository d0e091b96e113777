"""Makes one shard, the same bytes whoever makes it: whole on the disk under its name, or not there."""

import json
import os
import socket
import zlib
from collections.abc import Callable
from pathlib import Path

from array_record.python.array_record_module import ArrayRecordReader, ArrayRecordWriter

from imagenet_jax.convert.plan import Plan
from imagenet_jax.errors import UserError
from imagenet_jax.images.decode import DecodeError
from imagenet_jax.sources import array_record

# One record a group, so that each can be read alone; JPEGs do not compress.
_WRITER = 'group_size:1,uncompressed'


def make_shard(plan: Plan, conversion: int, advance: Callable[[], None], number: int) -> list[list[str]]:
    """Writes a shard and its report.

    Args:
      plan: what is made.
      conversion: its number, kept in each record.
      advance: called at each image.
      number: of the shard.

    Returns:
      What was left out: keys and reasons.

    Raises:
      OSError: it cannot be written.
      UserError: an image cannot be read, and plan.on_error is 'raise'.
    """
    partial = plan.partial(f'{number:05d}')
    try:
        report = _write_records(plan, conversion, advance, number, partial)
        report |= {'bytes': partial.stat().st_size, 'sha256': array_record.sha256(partial)}
        move(partial, plan.shard(number))
    except RuntimeError as error:  # ArrayRecord's way to say that the disk is full, and whatever else
        raise OSError(str(error)) from error
    finally:
        partial.unlink(missing_ok=True)
    write(plan, plan.report(number), json.dumps(report))
    return report['skipped']


def _write_records(plan: Plan, conversion: int, advance: Callable[[], None], number: int, path: Path) -> dict:
    """The report's keys, labels, and what was left out."""
    keys, labels, skipped, checksums = [], [], [], []
    writer = ArrayRecordWriter(str(path), _WRITER)
    for index in plan.indices(number):
        advance()
        key, label = plan.source.key(index), plan.source.labels[index].tolist()
        try:
            image = plan.encoding(plan.source.image(index))
        except (DecodeError, OSError) as error:
            if plan.on_error == 'raise':
                raise UserError(f'{key} cannot be read: {error} (--on-error raise)') from error
            skipped.append([key, str(error)])
            continue
        # Its place in the split is known only when all shards are: it counts from the shard's own start here.
        record = array_record.pack(conversion, len(keys), key, label, image)
        writer.write(record)
        checksums.append(zlib.crc32(record))
        keys.append(key)
        labels.append(label)
    writer.close()
    reader = ArrayRecordReader(str(path), 'readahead_buffer_size:0')
    if checksums != [zlib.crc32(reader.read([place])[0]) for place in range(reader.num_records())]:
        raise OSError(f'what is read back from {path} is not what was written')
    return {'keys': keys, 'labels': labels, 'skipped': skipped}


def write(plan: Plan, path: Path, text: str) -> None:
    """A file, whole or not at all."""
    partial = plan.partial(path.name)
    partial.write_text(text)
    move(partial, path)


def move(partial: Path, path: Path) -> None:
    """Gives a whole file its name, for good: not even a power cut takes it back."""
    to_disk(partial)
    os.replace(partial, path)
    to_disk(path.parent)


def to_disk(path: Path) -> None:
    """Of a folder: the names in it."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove_abandoned(plan: Plan) -> None:
    """Removes what processes of this host left half-written when they were killed."""
    host = socket.gethostname()
    for path in plan.folder.iterdir():
        if path.stem.endswith(f'.{host}') and not _is_alive(int(path.suffix[1:])):
            path.unlink(missing_ok=True)


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # somebody else's
        pass
    return True
