"""Holds back a loss that is too large to be believed.

More than a fifth of a folder, and more than 50 files, are not marked missing until a person confirms it.
"""

import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from soulspot.ingest.disk.walker import Root, covers

HELD_SHARE = 0.2
HELD_FILES = 50
REMEMBERED_FOR = 900.0
"""Seconds for which losses count together: a library that is deleted slowly is deleted all the same."""


@dataclass(slots=True)
class LossGuard:
    """Decides whether too much of a folder would go missing at once."""

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

    @contextmanager
    def confirming(self, parts: Mapping[Root, Sequence[str]]) -> Iterator[None]:
        """Treat missing files at and below these paths as confirmed while the block runs."""
        confirmed = [(root, path) for root, paths in parts.items() for path in paths]
        self.confirmed_parts += confirmed
        try:
            yield
        finally:
            for each in confirmed:
                self.confirmed_parts.remove(each)
