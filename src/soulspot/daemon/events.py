"""What became of each file, told as it happens to all who listen: nobody is waited for.

The ingest tells it once; each listener has a room of its own. Who does not come for what is in it loses the oldest, and
is told how many those were. What a listener lost stands in the catalogue all the same: the feed says that something
happened, the audit log what.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final

from soulspot.ingest.outcome import Outcome

ROOM: Final = 2000
"""Outcomes that are kept for a listener that is busy."""
RECENT: Final = 40
"""Outcomes that are kept for one who begins to listen."""
PAUSE: Final = 0.1
"""Seconds between two times that a listener is told: a listener costs the same however much happens."""


@dataclass(frozen=True, slots=True)
class Happened:
    """An outcome, and when its transaction was committed."""

    at: datetime
    outcome: Outcome


@dataclass(frozen=True, slots=True)
class News:
    """What happened since the last time, in its order, after `lost` outcomes that there was no room for."""

    happened: Sequence[Happened]
    lost: int = 0


class Listener:
    """The room of one that listens."""

    def __init__(self, room: int) -> None:
        self._room: deque[Happened] = deque(maxlen=room)
        self._lost = 0
        self._told = asyncio.Event()

    def tell(self, happened: Happened) -> None:
        """Put an outcome into the room; never waits."""
        self._lost += len(self._room) == self._room.maxlen
        self._room.append(happened)
        self._told.set()

    async def news(self, pause: float = PAUSE) -> AsyncIterator[News]:
        """Yield what happened: the first at once, what follows together every `pause` seconds."""
        while True:
            await self._told.wait()
            if (news := self.take()) is not None:
                yield news
                await asyncio.sleep(pause)

    async def within(self, seconds: float) -> News | None:
        """Return what happened as soon as anything has, None where nothing does for so long."""
        try:
            async with asyncio.timeout(seconds):
                await self._told.wait()
        except TimeoutError:
            return None
        return self.take()

    def take(self) -> News | None:
        """Remove and return what is in the room, None where nothing is."""
        self._told.clear()
        if not self._room:
            return None
        news = News(tuple(self._room), self._lost)
        self._room.clear()
        self._lost = 0
        return news


@dataclass(slots=True)
class Feed:
    """Tells outcomes to whoever listens at the time; `recent` are the last, for one who comes later."""

    recent: deque[Happened] = field(default_factory=lambda: deque(maxlen=RECENT))
    _listeners: set[Listener] = field(default_factory=set)

    def tell(self, outcome: Outcome) -> None:
        """Tell all listeners of an outcome that is committed; costs next to nothing where there is none."""
        happened = Happened(datetime.now(UTC), outcome)
        self.recent.append(happened)
        for listener in self._listeners:
            listener.tell(happened)

    @contextmanager
    def listening(self, room: int = ROOM) -> Iterator[Listener]:
        """Yield a listener that is told what happens until the block ends."""
        listener = Listener(room)
        self._listeners.add(listener)
        try:
            yield listener
        finally:
            self._listeners.discard(listener)
