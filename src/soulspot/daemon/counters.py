"""What became of files since the start, counted as it happens: two additions a file, whoever may ask."""

import time
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from soulspot.ingest.outcome import KINDS, Outcome

BOUNDS: Final = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)
"""Seconds between which it is told how long files took from their last change to their commit."""


@dataclass(slots=True)
class Tally:
    """Numbers of files by outcome, and by how long each took: `within[i]` are those up to `BOUNDS[i]`, and no less."""

    kinds: Counter[str] = field(default_factory=lambda: Counter(dict.fromkeys(KINDS, 0)))
    within: list[int] = field(default_factory=lambda: [0] * (len(BOUNDS) + 1))
    seconds: float = 0.0

    def add(self, outcome: Outcome) -> None:
        self.kinds[outcome.kind] += 1
        if outcome.waited is not None and outcome.kind != "unchanged":
            self.within[bisect_left(BOUNDS, outcome.waited)] += 1
            self.seconds += outcome.waited


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
