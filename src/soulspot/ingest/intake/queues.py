"""The places where a file waits: until it is complete, until a lane takes it, until a failure is tried again."""

import asyncio
import heapq
import itertools
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from soulspot.ingest.disk.planner import Work

_T = TypeVar("_T")


@dataclass(slots=True, eq=False)
class Pending:
    """One path on its way through the pipeline.

    Attributes:
        work: what there is to do.
        is_fresh: whether a hint said so, and it goes before what a walk found.
        again: whether something was said about the path since it was last looked at.
        due: when it is looked at again, while it is not complete.
        since: when it began to wait.
        appeared: when its folder was said to be new, in seconds since 1970; its own times may be older.
        sound: the fingerprint that the catalogue has of it.
        is_reported: whether it was said that it is still being written.

    """

    work: Work
    is_fresh: bool
    since: float
    appeared: float = 0.0
    again: bool = False
    due: float | None = None
    sound: str | None = None
    is_reported: bool = False


class Settling:
    """Files that are not complete yet, in the order in which they are worth another look."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._heap: list[tuple[float, int, Pending]] = []
        self._number = itertools.count()
        self._changed = asyncio.Event()

    def put(self, pending: Pending, wait: float) -> None:
        """Look at it again in so many seconds, and not at any moment said before."""
        pending.due = self._clock() + wait
        heapq.heappush(self._heap, (pending.due, next(self._number), pending))
        self._changed.set()

    async def take_due(self) -> list[Pending]:
        """Wait until something is due; remove and return all that is."""
        while True:
            self._changed.clear()
            due = []
            while self._heap and self._heap[0][0] <= self._clock():
                moment, _number, pending = heapq.heappop(self._heap)
                if pending.due == moment:
                    pending.due = None
                    due.append(pending)
            if due:
                return due
            wait = self._heap[0][0] - self._clock() if self._heap else None
            try:
                async with asyncio.timeout(wait):
                    await self._changed.wait()
            except TimeoutError:
                continue


class Ready:
    """Files that are complete and wait for a lane: what a hint named first, then what a walk found.

    There is room for few of either kind: whoever has more waits, and decides anew what comes first.
    """

    def __init__(self, *, fresh_room: int, bulk_room: int) -> None:
        self._fresh: deque[Pending] = deque()
        self._bulk: deque[Pending] = deque()
        self._fresh_room = asyncio.Semaphore(fresh_room)
        self._bulk_room = asyncio.Semaphore(bulk_room)
        self._idle: deque[asyncio.Future[None]] = deque()  # lanes that wait
        self._is_closed = False

    async def put(self, pending: Pending) -> None:
        """Add a file, when there is room for it."""
        await (self._fresh_room if pending.is_fresh else self._bulk_room).acquire()
        (self._fresh if pending.is_fresh else self._bulk).append(pending)
        self._wake_one()

    async def take(self) -> Pending | None:
        """Return the next file, None when there is to be no next."""
        while not (self._fresh or self._bulk or self._is_closed):
            waiting = asyncio.get_running_loop().create_future()
            self._idle.append(waiting)
            await waiting
        if self._is_closed:
            return None
        if self._fresh:
            self._fresh_room.release()
            return self._fresh.popleft()
        self._bulk_room.release()
        return self._bulk.popleft()

    def close(self) -> None:
        """Give out no more."""
        self._is_closed = True
        while self._idle:
            self._wake_one()

    def _wake_one(self) -> None:
        while self._idle:
            waiting = self._idle.popleft()
            if not waiting.done():  # as it is where its lane was cancelled
                waiting.set_result(None)
                return


class Later(Generic[_T]):
    """Things to do at a moment, in the order of the moments."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._heap: list[tuple[float, int, _T]] = []
        self._number = itertools.count()
        self._changed = asyncio.Event()

    def put(self, thing: _T, wait: float) -> None:
        heapq.heappush(self._heap, (self._clock() + wait, next(self._number), thing))
        self._changed.set()

    async def take(self) -> _T:
        """Wait until something is due; remove and return it."""
        while True:
            self._changed.clear()
            wait = self._heap[0][0] - self._clock() if self._heap else None
            if wait is not None and wait <= 0:
                return heapq.heappop(self._heap)[2]
            try:
                async with asyncio.timeout(wait):
                    await self._changed.wait()
            except TimeoutError:
                continue
