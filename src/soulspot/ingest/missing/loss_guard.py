"""Holds back a loss that is too large to believe.

If more than 50 files and more than a fifth of a folder are gone, none is marked missing until a person confirms it.
"""

import time
from collections import defaultdict, deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from soulspot.ingest.disk.walker import Root, covers

HELD_SHARE = 0.2
HELD_FILES = 50
COUNTED_TOGETHER = 900.0
"""Seconds for which losses count together, so that a slow deletion of a library is held as well."""


@dataclass(slots=True)
class LossGuard:
    """Decides whether too much of a folder would go missing at once."""

    confirmed: bool = False  # a person confirmed every loss
    confirmed_parts: list[tuple[Root, str]] = field(default_factory=list)  # and losses at and below these paths
    _recent: defaultdict[Root, deque[tuple[float, int]]] = field(default_factory=lambda: defaultdict(deque))

    def allows(self, root: Root, losing: int, present: int) -> bool:
        """Whether `losing` of the `present` files may go missing, together with recent losses."""
        recent = self._recent[root]
        while recent and recent[0][0] < time.monotonic() - COUNTED_TOGETHER:
            recent.popleft()
        before = sum(count for _moment, count in recent)
        return self.confirmed or losing + before <= max(HELD_FILES, HELD_SHARE * (present + before))

    def is_confirmed(self, root: Root, path: str) -> bool:
        """Whether a person confirmed the loss of a path."""
        return self.confirmed or any(root == each and covers(part, path) for each, part in self.confirmed_parts)

    def lost(self, root: Root, count: int) -> None:
        self._recent[root].append((time.monotonic(), count))

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
