"""Holds back a loss that is too large to be believed."""

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from soulspot.ingest.disk.walker import Root, covers

HELD_SHARE = 0.2
HELD_FILES = 50
REMEMBERED_FOR = 900.0
"""Seconds for which losses count together: a library that is deleted slowly is deleted all the same."""


@dataclass(slots=True)
class LossGuard:
    """Says when too much of a folder would go missing at once."""

    clock: Callable[[], float] = time.monotonic
    confirmed: bool = False  # a person said that the files are really gone
    confirmed_parts: list[tuple[Root, str]] = field(default_factory=list)  # that those at and below these are
    _recent: dict[Root, deque[tuple[float, int]]] = field(default_factory=dict)

    def allows(self, root: Root, losing: int, present: int) -> bool:
        """Whether `losing` of the `present` files may go missing, with those that went a short while ago."""
        recent = self._recent.setdefault(root, deque())
        while recent and recent[0][0] < self.clock() - REMEMBERED_FOR:
            recent.popleft()
        before = sum(count for _moment, count in recent)
        total = losing + before
        return self.confirmed or total <= HELD_FILES or total <= HELD_SHARE * (present + before)

    def is_confirmed(self, root: Root, path: str) -> bool:
        """Whether a person said that what is at a path is really gone."""
        return self.confirmed or any(root == each and covers(part, path) for each, part in self.confirmed_parts)

    def lost(self, root: Root, count: int) -> None:
        self._recent.setdefault(root, deque()).append((self.clock(), count))
