"""What lies where in a tar, read from its headers alone."""

import io
import shlex
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from imagenet_jax.errors import UserError

_BLOCK = 512
_LONGEST_HEADER = 1 << 20
_CHUNK = 1 << 20
# First bytes of what a tar may be compressed with -> the tool that undoes it.
_COMPRESSED = {b'\x1f\x8b': 'gzip', b'BZh': 'bzip2', b'\xfd7zXZ': 'xz', b'\x28\xb5\x2f\xfd': 'zstd'}


class _Bounded:
    """A file that hands out no more than a header: tarfile would read a name of the gigabytes that one claims."""

    def __init__(self, file: BinaryIO):
        self.seek, self.tell, self._read = file.seek, file.tell, file.read

    def read(self, size: int) -> bytes:
        if not 0 <= size <= _LONGEST_HEADER:
            raise tarfile.ReadError(f'a header claims {size} bytes')
        return self._read(size)


def members(file: BinaryIO, where: str, start: int, end: int) -> Iterator[tarfile.TarInfo]:
    """What the tar has that lies at start..end of `file`, in its order.

    tarfile takes a damaged header, and a missing end, for the end of an archive: what follows the last member must be
    zeros, to the last byte, or a second archive behind the first would be lost.

    Raises:
      UserError: `where`, its name, is damaged or cut off.
    """
    file.seek(start)
    try:
        with tarfile.TarFile(fileobj=_Bounded(file)) as archive:
            while member := archive.next():
                if not 0 <= member.size <= end - member.offset_data:
                    raise tarfile.ReadError(f'{member.name} ends after the archive')
                if member.sparse is not None:
                    raise tarfile.ReadError(f'{member.name} is sparse, stored in pieces')
                yield member
                archive.members.clear()  # it would keep a million of them
            after = archive.offset
    except (tarfile.TarError, ValueError, OverflowError, RecursionError) as error:
        raise UserError(f'{where} is damaged or not whole: {error}; copy it anew') from error
    file.seek(after)
    whole = after + _BLOCK <= end
    while whole and (rest := file.read(min(_CHUNK, end - file.tell()))):
        whole = not rest.strip(b'\0')
    if not whole:
        raise UserError(f'{where} is damaged or not whole: no more than its first {after} bytes can be read; copy it '
                        'anew')


def refuse_compressed(file: io.BufferedReader) -> None:
    """Raises UserError where `file`, at its start, is no tar but a compressed one."""
    if tool := next((tool for magic, tool in _COMPRESSED.items() if file.peek(8).startswith(magic)), ''):
        path, new = Path(file.name), shlex.quote(f'{file.name}.new')
        command = (f'{tool} -dc {shlex.quote(str(path))} > {new} && mv {new} {shlex.quote(str(path))}'
                   if path.suffix == '.tar' else f'{tool} -d {shlex.quote(str(path.parent))}/*{path.suffix}')
        raise UserError(f'{path} is compressed, so that nothing in it can be found without reading all before: '
                        f'{command}')
