"""How long a run takes to its first step, and what of it for what."""

import contextlib
import os
import time
from pathlib import Path


class Beginning:
    """The clock of a start, which runs from here.

    Attributes:
      seconds: part -> seconds, in the order they came.
    """

    def __init__(self):
        self.seconds: dict[str, float] = {}
        self._at = time.monotonic()

    @classmethod
    def of_process(cls) -> 'Beginning':
        """One that has run since this process began or, where the system does not say when, from here."""
        clock = cls()
        clock._at -= _age()
        return clock

    def done(self, part: str) -> None:
        """The time since the part before was this one's; one that comes again is added up."""
        now = time.monotonic()
        self.seconds[part] = self.seconds.get(part, 0.0) + now - self._at
        self._at = now

    def __str__(self) -> str:
        parts = ', '.join(f'{part} {seconds:.1f}' for part, seconds in self.seconds.items())
        return f'first step after {sum(self.seconds.values()):.1f} s: {parts}'


def _age() -> float:
    """Seconds since the system started this process; 0 where that is not told."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        # Of the fields behind the name the 20th is the start, in ticks since the machine's.
        start = int(Path('/proc/self/stat').read_text().rpartition(')')[2].split()[19])
        if start:
            return max(0.0, time.clock_gettime(time.CLOCK_BOOTTIME) - start / os.sysconf('SC_CLK_TCK'))
    return 0.0
