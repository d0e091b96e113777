"""The images of a request: its body, read within limits of bytes and time, and its parts."""

import asyncio
import contextlib
import dataclasses
from collections.abc import AsyncIterator

from fastapi import Request
from python_multipart.multipart import parse_options_header
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser

# Bodies of full size that may lie in memory at a time, of all requests together.
_BODIES = 8
_PIECE = 2**18


class Refused(Exception):
    """A request that gets no answer: its status and the reason; with `again` it may be sent once more."""

    def __init__(self, status: int, reason: str, again: bool = False):
        super().__init__(reason)
        self.status, self.again = status, again


@dataclasses.dataclass(frozen=True)
class Upload:
    """An encoded image as it was sent, and by what name."""
    name: str
    data: bytes


class Bodies:
    """Reads bodies, of all requests at a time no more than memory is meant for."""

    def __init__(self, max_bytes: int, seconds: float):
        """Of one body: its bytes, and how long it may take to come."""
        self._max_bytes, self._seconds, self._held = max_bytes, seconds, 0

    @contextlib.asynccontextmanager
    async def read(self, request: Request) -> AsyncIterator[bytes]:
        """While entered, the body is held. Raises Refused: 408, 413 or 503."""
        told = request.headers.get('content-length', '')
        if told.isascii() and told.isdigit() and int(told[:20]) > self._max_bytes:
            raise self._too_large()
        body = bytearray()
        try:
            await self._fill(body, request)
            yield bytes(body)
        finally:
            self._held -= len(body)

    async def _fill(self, body: bytearray, request: Request) -> None:
        try:
            async with asyncio.timeout(self._seconds):
                async for piece in request.stream():
                    body += piece
                    self._held += len(piece)
                    if len(body) > self._max_bytes:
                        raise self._too_large()
                    if self._held > _BODIES * self._max_bytes:
                        raise Refused(503, 'too many images are being sent at this time', again=True)
        except TimeoutError:
            raise Refused(408, f'the body did not come whole within {self._seconds:g} s') from None

    def _too_large(self) -> Refused:
        return Refused(413, f'the body has more than {self._max_bytes} bytes: send smaller images, or fewer at a time')


class _InMemory(MultiPartParser):
    """Starlette's, without files on disk: a body that is in memory whole needs none."""
    spool_max_size = 2**62


async def uploads(request: Request, body: bytes, most: int) -> list[Upload]:
    """The images that a body holds, one or many. Raises Refused: 400, 415 or 422."""
    kind = request.headers.get('content-type', '').partition(';')[0].strip().lower()
    if kind.startswith('image/') or kind == 'application/octet-stream':
        return [Upload('body', body)]
    if kind != 'multipart/form-data':
        raise Refused(415, f'Content-Type is {kind[:80] or "missing"}: send the files of a form (multipart/form-data), '
                           'or one image as it is (image/jpeg and the like)')
    found = [await _upload(name, value) for name, value in await _parts(request, body, most)]
    if not found:
        raise Refused(422, 'the form has no file: send one image or more')
    return found


async def _parts(request: Request, body: bytes, most: int) -> list[tuple[str, str | UploadFile]]:
    async def pieces():
        for start in range(0, len(body), _PIECE):
            yield body[start:start + _PIECE]
            await asyncio.sleep(0)  # others have their turn
    boundary = parse_options_header(request.headers['content-type'])[1].get(b'boundary')
    if boundary and b'--' + boundary + b'--' not in body:  # the parser would leave the last part out
        raise Refused(400, 'the form is cut short: its last boundary is missing')
    try:
        return (await _InMemory(request.headers, pieces(), max_files=most, max_fields=most).parse()).multi_items()
    except MultiPartException as error:
        raise Refused(400, f'the form cannot be read: {error.message}') from error


async def _upload(name: str, value: str | UploadFile) -> Upload:
    if isinstance(value, str):
        raise Refused(422, f'{name[:80]!r} of the form is no file; options stand in the address, as in /predict?top=3')
    try:
        return Upload(value.filename or name, await value.read())
    finally:
        await value.close()
