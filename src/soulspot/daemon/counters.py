"""Counts outcomes since start; cheap enough to run always."""

import time
from bisect import bisect_left
from collections import Counter
from dataclasses import dataclass, field
from typing import Final

from soulspot.ingest.outcome import KINDS, Outcome

LATENCY_BOUNDS: Final = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)
"""Histogram bounds, in seconds, from a file's last change to its commit."""
RATE_SECONDS: Final = 64
"""Seconds for which `RateCounter` keeps counts."""


@dataclass(slots=True)
class OutcomeCounters:
    """Counts files by outcome and by latency; `within[i]` counts the latencies up to `LATENCY_BOUNDS[i]`."""

    kinds: Counter[str] = field(default_factory=lambda: Counter(dict.fromkeys(KINDS, 0)))
    within: list[int] = field(default_factory=lambda: [0] * (len(LATENCY_BOUNDS) + 1))
    seconds: float = 0.0

    def add(self, outcome: Outcome) -> None:
        self.kinds[outcome.kind] += 1
        if outcome.waited is not None and outcome.kind != "unchanged":
            self.within[bisect_left(LATENCY_BOUNDS, outcome.waited)] += 1
            self.seconds += outcome.waited


class RateCounter:
    """Counts events per second over the last minute."""

    def __init__(self) -> None:
        self._counts = [0] * RATE_SECONDS
        self._seconds = [-1] * RATE_SECONDS

    def add(self) -> None:
        second = int(time.monotonic())
        slot = second % RATE_SECONDS
        if self._seconds[slot] != second:
            self._seconds[slot], self._counts[slot] = second, 0
        self._counts[slot] += 1

    def last(self, seconds: int) -> list[int]:
        """Return the counts of the last full seconds, at most 60, oldest first."""
        now = int(time.monotonic())
        return [
            self._counts[each % RATE_SECONDS] if self._seconds[each % RATE_SECONDS] == each else 0
            for each in range(now - seconds, now)
        ]
