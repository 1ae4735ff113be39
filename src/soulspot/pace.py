"""How many files came to their end in each of the last seconds: counted as it happens, read when somebody looks."""

import time
from collections.abc import Callable
from typing import Final

_KEPT: Final = 64


class Pace:
    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._counts = [0] * _KEPT
        self._seconds = [-1] * _KEPT

    def add(self) -> None:
        second = int(self._clock())
        place = second % _KEPT
        if self._seconds[place] != second:
            self._seconds[place], self._counts[place] = second, 0
        self._counts[place] += 1

    def last(self, seconds: int) -> list[int]:
        """Return the numbers of the last whole seconds, 60 at most, the oldest first."""
        now = int(self._clock())
        return [
            self._counts[each % _KEPT] if self._seconds[each % _KEPT] == each else 0
            for each in range(now - seconds, now)
        ]
