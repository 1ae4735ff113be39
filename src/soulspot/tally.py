"""What became of files since the start, counted as it happens: two additions a file, whoever may ask."""

from bisect import bisect_left
from collections import Counter
from dataclasses import dataclass, field
from typing import Final

from soulspot.ingest.service import Outcome

KINDS: Final = ("added", "updated", "moved", "missing", "restored", "failed", "unchanged")
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
