"""The header of a JPEG, by the one reader that all paths ask: what it claims, and who decodes it."""

import dataclasses
import re
from collections.abc import Iterator
from typing import NamedTuple

from imagenet_jax.images.limits import MAX_PIXELS, MAX_SCANNED, MAX_WHOLE, DecodeError, refuse_bomb

# Markers (ITU-T T.81, table B.1).
_SEQUENTIAL, _PROGRESSIVE, _ARITHMETIC = {0xc0, 0xc1}, {0xc2}, {*range(0xc9, 0xd0)}
_FRAMES = {*range(0xc0, 0xd0)} - {0xc4, 0xc8, 0xcc}
_SCAN, _END, _INTERVAL, _RESTARTS = 0xda, 0xd9, 0xdd, {*range(0xd0, 0xd8)}
# No segment follows these; and what stands in those changes no pixel: APP1..APP15 without Adobe's 14, and comments.
_BARE = {0x01, *_RESTARTS}
_NOTES = {*range(0xe1, 0xf0), 0xfe} - {0xee}
# Luma's sampling factors, chroma's being 1 x 1, that TurboJPEG knows in all its versions.
_USUAL = {(1, 1), (2, 1), (1, 2), (2, 2), (4, 1)}
# Compressed data has a zero after each 0xff, and filling before a marker is of 0xff.
_MARKER = re.compile(rb'\xff[^\x00\xff]')
# What may be read in place of an end of data. It has no 0xff, which would have to be followed by zero.
_STRAY = bytes(range(23, 215, 3))


class Segment(NamedTuple):
    """image[start:end], its marker within; what it says is image[at:end]."""
    marker: int
    start: int
    at: int
    end: int


@dataclasses.dataclass(frozen=True)
class Header:
    """What stands before the first scan.

    Attributes:
      height, width: in pixels.
      plain: whether TurboJPEG decodes it, and so the compiled reader: 8 bits, Huffman's code, grey or three colours of
        usual sampling. What is not plain is left to Pillow, always.
      streamed: decoded row by row: sequential, and the first scan holds all colours.
      segments: in order, the first scan's header last.
    """
    height: int
    width: int
    plain: bool
    streamed: bool
    segments: tuple[Segment, ...]

    @property
    def held(self) -> int:
        """Pixels that decoding keeps in memory beside those it answers."""
        return 0 if self.plain and self.streamed else self.height * self.width

    def with_rows(self, image: bytes, rows: int) -> bytearray | None:
        """The same JPEG, one of so many rows by its header; None where not the first bytes of its data have those."""
        if not self.streamed or any(segment.marker == _INTERVAL for segment in self.segments):
            return None
        cut, at = bytearray(image), next(segment.at for segment in self.segments if segment.marker in _FRAMES)
        cut[at + 1:at + 3] = rows.to_bytes(2)
        return cut

    def without_notes(self, image: bytes) -> bytes:
        """The header without what changes no pixel, such as EXIF."""
        kept = [image[one.start:one.end] for one in self.segments if one.marker not in _NOTES]
        return b''.join([image[:2], *kept])

    def data(self, image: bytes) -> tuple[bytes, bytes]:
        """What follows the header, to the image's end; and the same with stray bytes after each piece of data.

        They are read by a decoder that finds too little there, and no other: the two have the same pixels, unless data
        is missing. Raises DecodeError where the end is.
        """
        strayed, at, following = [], self.segments[-1].end, self.segments
        while following[-1].marker != _END:
            if not (marker := _MARKER.search(image, at)):
                raise DecodeError('Premature end of JPEG file')
            strayed += [image[at:marker.start()], _STRAY]
            at = marker.end()
            if image[at - 1] not in _RESTARTS:  # tables, and the next scan's header
                following = tuple(_segments(image, marker.start()))
                at = following[-1].end
            strayed.append(image[marker.start():at])
        return image[self.segments[-1].end:at], b''.join(strayed)


def read(image: bytes) -> Header:
    """Reads it as libjpeg does, which passes over stray bytes and filling before a marker.

    Raises:
      DecodeError: it is cut short or damaged, arithmetically coded, or claims more pixels, or scans of them, than are
        decoded.
    """
    segments = tuple(_segments(image, 2))
    frames = [segment for segment in segments if segment.marker in _FRAMES]
    scan = segments[-1]
    if len(frames) != 1 or scan.marker != _SCAN or scan.at == scan.end:
        raise _damaged(image)
    (marker, _, at, end), = frames
    if marker in _ARITHMETIC:  # which leaves out zeros at its end, any number below a flat part of the image
        raise DecodeError('it is a JPEG in the arithmetic code, of which nobody can tell whether it is whole: make it '
                          'one in the usual code, as by jpegtran')
    count = image[at + 5] if end - at > 5 else 0
    if not count or end - at != 6 + 3 * count:
        raise _damaged(image)
    height, width = int.from_bytes(image[at + 1:at + 3]), int.from_bytes(image[at + 3:at + 5])
    factors = [(image[i] >> 4, image[i] & 15) for i in range(at + 7, end, 3)]
    usual = count == 1 or (count == 3 and factors[0] in _USUAL and factors[1:] == [(1, 1)] * 2)
    plain = marker in _SEQUENTIAL | _PROGRESSIVE and image[at] == 8 and usual
    streamed = marker in _SEQUENTIAL and image[scan.at] == count
    refuse_bomb(height, width, MAX_PIXELS if plain and streamed else MAX_WHOLE)
    if not streamed and (scans := image.count(b'\xff\xda', scan.start)) * height * width > MAX_SCANNED:
        raise DecodeError(f'has {scans} scans of {width} x {height} pixels, more than the limit of {MAX_SCANNED} in '
                          'all: save it as a sequential JPEG')
    return Header(height, width, plain, streamed, segments)


def _segments(image: bytes, at: int) -> Iterator[Segment]:
    """From `at` to the next scan's header or the image's end."""
    marker = None
    while marker not in (_SCAN, _END):
        if not (found := _MARKER.search(image, at)):
            raise _damaged(image)
        start, at = found.span()
        marker = image[at - 1]
        if marker in _BARE:
            continue
        end = at + int.from_bytes(image[at:at + 2]) if marker != _END else at
        if marker == 0xd8 or end > len(image) or (end < at + 2 and marker != _END):
            raise _damaged(image)
        yield Segment(marker, start, min(at + 2, end), end)
        at = end


def _damaged(image: bytes) -> DecodeError:
    return DecodeError(f'{len(image)} bytes whose header is cut short or damaged')
