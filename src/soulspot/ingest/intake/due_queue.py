"""Things to do at a moment, in the order of the moments."""

import asyncio
import heapq
import itertools
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

_T = TypeVar("_T", bound=Hashable)


class DueQueue(Generic[_T]):
    """Holds each thing until it is due; one that is put again is due at its new moment alone."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._heap: list[tuple[float, int, _T]] = []
        self._current: dict[_T, int] = {}  # the entry of each thing that counts; the others were superseded
        self._number = itertools.count()
        self._changed = asyncio.Event()

    def put(self, thing: _T, wait: float) -> float:
        """Make a thing due in so many seconds, and not at any moment before; return the moment."""
        due, number = self._clock() + wait, next(self._number)
        self._current[thing] = number
        heapq.heappush(self._heap, (due, number, thing))
        self._changed.set()
        return due

    async def take_due(self) -> list[_T]:
        """Wait until something is due; remove and return all that is."""
        while True:
            self._changed.clear()
            if due := self._pop_due():
                return due
            wait = self._heap[0][0] - self._clock() if self._heap else None
            try:
                async with asyncio.timeout(wait):
                    await self._changed.wait()
            except TimeoutError:
                continue

    def _pop_due(self) -> list[_T]:
        due = []
        while self._heap and self._heap[0][0] <= self._clock():
            _moment, number, thing = heapq.heappop(self._heap)
            if self._current.get(thing) == number:
                del self._current[thing]
                due.append(thing)
        return due
