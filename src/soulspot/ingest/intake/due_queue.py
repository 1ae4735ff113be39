"""A queue whose items become due at a given time."""

import asyncio
import heapq
import itertools
from collections.abc import Callable, Hashable
from contextlib import suppress
from typing import Generic, TypeVar

_T = TypeVar("_T", bound=Hashable)


class DueQueue(Generic[_T]):
    """Holds each item until it is due; putting an item again replaces its time."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._heap: list[tuple[float, int, _T]] = []
        self._current: dict[_T, int] = {}  # each item's current entry; other entries are superseded
        self._number = itertools.count()
        self._changed = asyncio.Event()

    def put(self, item: _T, wait: float) -> float:
        """Make an item due in `wait` seconds, and no sooner; return the time on the clock."""
        due, number = self._clock() + wait, next(self._number)
        self._current[item] = number
        heapq.heappush(self._heap, (due, number, item))
        self._changed.set()
        return due

    async def take_due(self) -> list[_T]:
        """Wait until an item is due; remove and return all that are."""
        while not (due := self._pop_due()):
            self._changed.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(self._heap[0][0] - self._clock() if self._heap else None):
                    await self._changed.wait()
        return due

    def _pop_due(self) -> list[_T]:
        due = []
        while self._heap and self._heap[0][0] <= self._clock():
            _due, number, item = heapq.heappop(self._heap)
            if self._current.get(item) == number:
                del self._current[item]
                due.append(item)
        return due
