"""What happens, sent to each open page as it happens: one reader for all of them, and nobody is waited for.

The daemon says on its control socket that something happened, the audit log says what. Where no daemon answers, the log
is looked at now and then. Each page has a place of its own for what it has not yet taken; one that takes nothing loses
its connection, and its browser asks again with the last number that it has seen.
"""

import asyncio
import logging
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from sqlalchemy.exc import SQLAlchemyError

from soulspot.errors import SoulspotError
from soulspot.infrastructure.net import control_socket
from soulspot.infrastructure.persistence.backend import Wait
from soulspot.infrastructure.persistence.queries.audit_log import AuditLogQueries
from soulspot.infrastructure.persistence.queries.audit_tail import AuditTail
from soulspot.infrastructure.persistence.queries.browse import BrowseQueries, Entry

logger = logging.getLogger(__name__)

PAGES: Final = 32
"""Pages that are kept up to date at once."""
ROWS: Final = 40
"""Entries of one moment that are shown; beyond, how many there were."""
REPLAYED: Final = 200
"""Entries that a page gets that was away; beyond, it is told to be loaded anew."""
PAUSE: Final = 0.2
"""Seconds between two looks at the least; a look that takes longer is followed by twenty times its length, so that the
pages take a twentieth of a core at most, however much happens."""
WITHOUT_DAEMON: Final = 0.5
"""Seconds between two looks where nobody says that something happened."""
WITH_DAEMON: Final = 2.0
"""The same where a daemon does."""
ROOM: Final = 64
"""Messages that are kept for a page that is busy."""
STUCK_AFTER: Final = 20.0
"""Seconds that a page may take for one message."""
HEARTBEAT: Final = 15.0


@dataclass(frozen=True, slots=True)
class Message:
    """One event for the pages: its kind, its text, and the number of the last entry in it."""

    event: str
    data: str
    last: int | None = None

    def encoded(self) -> bytes:
        lines = [f"event: {self.event}", *(f"data: {line}" for line in self.data.splitlines() or [""])]
        if self.last is not None:
            lines.append(f"id: {self.last}")
        return ("\n".join(lines) + "\n\n").encode("utf-8", "replace")


@dataclass(slots=True, eq=False)
class Seat:
    """The place of one page."""

    messages: deque[Message] = field(default_factory=deque)
    told: asyncio.Event = field(default_factory=asyncio.Event)
    is_lost: bool = False

    def tell(self, message: Message) -> None:
        if len(self.messages) >= ROOM:
            self.is_lost = True
        else:
            self.messages.append(message)
        self.told.set()

    async def next(self) -> Message | None:
        """Return the next message, None where there is none for a while."""
        if not self.messages:
            self.told.clear()
            with suppress(TimeoutError):
                await asyncio.wait_for(self.told.wait(), HEARTBEAT)
        return self.messages.popleft() if self.messages else None


Notifications = Callable[[], AbstractAsyncContextManager[Wait] | None]
Render = Callable[[Sequence[Entry], int], str]
"""Makes the rows of some entries, and of how many more there were beside them."""


class Live:
    """Keeps the open pages up to date, for as long as there are any.

    Args:
        browsing: the catalogue.
        audit: the same.
        place: tells where the daemon answers, None where nobody does.
        notifications: the database's own of each commit, none where only the daemon can tell.
        render: makes rows.
        standing: returns the line that says how the daemon is.

    """

    def __init__(  # noqa: PLR0913 - two of them of what it is told by
        self,
        browsing: BrowseQueries,
        audit: AuditLogQueries,
        *,
        place: Callable[[], Path | None],
        notifications: Notifications,
        render: Render,
        standing: Callable[[], Awaitable[str]],
    ) -> None:
        self._browsing, self._audit, self._place, self._notifications = browsing, audit, place, notifications
        self._render, self._standing = render, standing
        self._seats: set[Seat] = set()
        self._tasks: list[asyncio.Task[None]] = []
        self._news = asyncio.Event()
        self._hears = False
        self._said = ""

    @property
    def is_full(self) -> bool:
        return len(self._seats) >= PAGES

    @contextmanager
    def seat(self) -> Iterator[Seat]:
        """Yield a place that is told what happens until the block ends."""
        seat = Seat()
        if self._said:
            seat.tell(Message("standing", self._said))
        self._seats.add(seat)
        if not self._tasks:
            self._tasks = [asyncio.create_task(each()) for each in (self._follow, self._hear, self._look)]
        try:
            yield seat
        finally:
            self._seats.discard(seat)
            if not self._seats:
                self.stop()

    def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        self._tasks = []
        for seat in self._seats:
            seat.is_lost = True
            seat.told.set()

    async def missed(self, after: int) -> AsyncIterator[Message]:
        """Yield what a page has not seen that knows all up to an entry."""
        last = await self._browsing.last_sequence()
        if after < last:
            found = await self._browsing.entries(after=after, limit=REPLAYED)
            more = max(0, last - after - len(found.entries))
            yield Message("entries", self._render(found.entries, more), last)

    async def _follow(self) -> None:
        """Hear from the daemon that something happened."""
        while True:
            with suppress(OSError, ValueError):
                if (place := self._place()) is not None:
                    async for _news in control_socket.listen(place, "follow", room=1):
                        self._hears = True
                        self._news.set()
            self._hears = False
            self._news.set()
            await asyncio.sleep(WITHOUT_DAEMON)

    async def _hear(self) -> None:
        """Hear from a server that somebody wrote, on whichever machine."""
        if (notifications := self._notifications()) is not None:
            async with notifications as wait:
                while True:
                    await wait()
                    self._news.set()

    async def _look(self) -> None:
        """Tell every page what is new in the audit log."""
        following = AuditTail(self._audit, await self._browsing.last_sequence())
        self._said = ""
        while True:
            began = time.monotonic()
            try:
                await self._tell(following)
            except (SQLAlchemyError, SoulspotError) as error:
                logger.warning("the catalogue cannot be read: %s", error)
            await asyncio.sleep(max(PAUSE, 20 * (time.monotonic() - began)))
            with suppress(TimeoutError):
                await asyncio.wait_for(self._news.wait(), WITH_DAEMON if self._hears else WITHOUT_DAEMON)
            self._news.clear()

    async def _tell(self, following: AuditTail) -> None:
        newest: list[int] = []
        count = 0
        while numbers := await following.new():
            newest = sorted([*newest, *numbers])[-ROWS:]
            count += len(numbers)
        if newest:
            entries = await self._browsing.entries_with(newest)
            self._tell_all(Message("entries", self._render(entries, count - len(entries)), following.last))
        if (said := await self._standing()) != self._said:
            self._said = said
            self._tell_all(Message("standing", said))

    def _tell_all(self, message: Message) -> None:
        for seat in self._seats:
            seat.tell(message)
