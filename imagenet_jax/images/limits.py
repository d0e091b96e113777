"""What an image may claim: memory and time go by its header, and are taken before the first pixel is read."""

import contextlib
import threading
from collections.abc import Iterator

# Of a JPEG that is decoded row by row, which takes no memory but its pixels'. This is Pillow's own limit.
MAX_PIXELS = 89_478_485
# Of any other image, which takes up to 24 bytes a pixel at once; and of all those together that threads of a process
# decode at a time.
MAX_WHOLE = 2**25
# Pixels times scans of a JPEG: each scan goes over all of them, however few bytes it has.
MAX_SCANNED = 2**30
# Smaller images do not wait for their turn.
_SMALL = 2**20


class DecodeError(Exception):
    """The image cannot be read; the message says why."""


def refuse_bomb(height: int, width: int, limit: int = MAX_WHOLE) -> None:
    """Raises DecodeError of an image of more pixels than the limit, or of none."""
    if height * width > limit:
        whom = ' for all but sequential JPEGs' if limit == MAX_WHOLE else ''
        raise DecodeError(f'claims {width} x {height} pixels, more than the limit of {limit}{whom}: make it smaller')
    if height * width < 1:
        raise DecodeError(f'claims {width} x {height} pixels')


class _Turns:
    """Lets threads decode so many pixels at once, and the others wait."""

    def __init__(self, limit: int):
        self._free, self._changed = limit, threading.Condition()

    @contextlib.contextmanager
    def take(self, pixels: int) -> Iterator[None]:
        """Waits until so many pixels may be decoded too; they are while it is entered."""
        if pixels <= _SMALL:
            yield
            return
        with self._changed:
            self._changed.wait_for(lambda: self._free >= pixels)
            self._free -= pixels
        try:
            yield
        finally:
            with self._changed:
                self._free += pixels
                self._changed.notify_all()


turns = _Turns(MAX_WHOLE)
