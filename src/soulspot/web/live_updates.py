"""Sends new audit entries to each open page; one reader serves all pages, and a slow page delays no other.

`CatalogueChanges` wakes the reader, which reads the audit log. Each page has a bounded buffer. When it is full, the
page loses its connection, and the browser reconnects with the last sequence it has received.
"""

import asyncio
import logging
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Final

from sqlalchemy.exc import SQLAlchemyError

from soulspot.errors import SoulspotError
from soulspot.infrastructure.catalogue_changes import CatalogueChanges
from soulspot.infrastructure.persistence.queries.audit_log import AuditLogQueries
from soulspot.infrastructure.persistence.queries.audit_tail import AuditTail
from soulspot.infrastructure.persistence.queries.browse import BrowseQueries, Entry

logger = logging.getLogger(__name__)

MAX_PAGES: Final = 32
"""Pages updated at the same time."""
SHOWN_ENTRIES: Final = 40
"""The most entries in one message: the newest. The message counts the others."""
REPLAYED_ENTRIES: Final = 200
"""The most entries that a page gets when it reconnects; beyond that it asks the user to reload."""
MIN_PAUSE: Final = 0.2
PAUSE_FACTOR: Final = 20
"""The pause between two queries: this many seconds, or this many times the duration of the last query, whichever is
longer. The pages use at most a twentieth of a core under any load."""
CHECK_INTERVAL: Final = 2.0
"""Seconds between two checks of the daemon's health while the catalogue does not change."""
PAGE_BUFFER: Final = 64
"""Messages kept for a busy page."""
SEND_TIMEOUT: Final = 20.0
"""Seconds that a page may take to receive one message."""
HEARTBEAT_INTERVAL: Final = 15.0


@dataclass(frozen=True, slots=True)
class Message:
    """A server-sent event: its kind, its text, and the sequence of the last entry in it."""

    event: str
    data: str
    last: int | None = None

    def encoded(self) -> bytes:
        lines = [f"event: {self.event}", *(f"data: {line}" for line in self.data.splitlines() or [""])]
        end = "\n\n" if self.last is None else f"\nid: {self.last}\n\n"
        return ("\n".join(lines) + end).encode("utf-8", "replace")


@dataclass(slots=True, eq=False)
class OpenPage:
    """The bounded buffer of one page. `is_lost`: it overflowed, or the server stops, so the connection must end."""

    messages: deque[Message] = field(default_factory=deque)
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    is_lost: bool = False

    def put(self, message: Message) -> None:
        if len(self.messages) >= PAGE_BUFFER:
            self.is_lost = True
        else:
            self.messages.append(message)
        self.changed.set()

    async def next(self) -> Message | None:
        """Return the next message, None if a heartbeat is due first."""
        if not self.messages:
            self.changed.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(HEARTBEAT_INTERVAL):
                    await self.changed.wait()
        return self.messages.popleft() if self.messages else None


Render = Callable[[Sequence[Entry], int], str]
"""Renders entries as rows, with a line for the number of entries left out."""


class LiveUpdates:
    """Keeps the open pages up to date; does nothing while no page is open.

    Args:
        browsing: reads the catalogue.
        audit: reads the audit log.
        changes: creates the object that waits for changes of the catalogue.
        render: renders entries.
        health_line: renders the daemon's health.

    """

    def __init__(
        self,
        browsing: BrowseQueries,
        audit: AuditLogQueries,
        *,
        changes: Callable[[], CatalogueChanges],
        render: Render,
        health_line: Callable[[], Awaitable[str]],
    ) -> None:
        self._browsing, self._audit, self._changes = browsing, audit, changes
        self._render, self._health_line = render, health_line
        self._pages: set[OpenPage] = set()
        self._updating: asyncio.Task[None] | None = None
        self._last_health = ""

    @property
    def is_full(self) -> bool:
        return len(self._pages) >= MAX_PAGES

    @contextmanager
    def page(self) -> Iterator[OpenPage]:
        """Yield a page that receives updates until the block ends."""
        page = OpenPage()
        if self._last_health:
            page.put(Message("health", self._last_health))
        self._pages.add(page)
        if self._updating is None:
            self._updating = asyncio.create_task(self._update(), name="update the open pages")
        try:
            yield page
        finally:
            self._pages.discard(page)
            if not self._pages:
                self.stop()

    def stop(self) -> None:
        if self._updating is not None:
            self._updating.cancel()
            self._updating = None
        for page in self._pages:
            page.is_lost = True
            page.changed.set()

    async def missed(self, after: int) -> AsyncIterator[Message]:
        """Yield the entries after the last one that a page has received."""
        last = await self._browsing.last_sequence()
        if after < last:
            found = await self._browsing.entries(after=after, limit=REPLAYED_ENTRIES)
            more = max(0, last - after - len(found.entries))
            yield Message("entries", self._render(found.entries, more), last)

    async def _update(self) -> None:
        """Send the new audit entries to each page, and the daemon's health when it changes."""
        tail = AuditTail(self._audit, await self._browsing.last_sequence())
        self._last_health = ""
        async with self._changes() as changes:
            while True:
                began = time.monotonic()
                try:
                    await self._send_new(tail)
                except (SQLAlchemyError, SoulspotError) as error:
                    logger.warning("the catalogue cannot be read: %s", error)
                await asyncio.sleep(max(MIN_PAUSE, PAUSE_FACTOR * (time.monotonic() - began)))
                await changes.wait()

    async def _send_new(self, tail: AuditTail) -> None:
        newest, count = list[int](), 0
        while numbers := await tail.new():
            newest = sorted([*newest, *numbers])[-SHOWN_ENTRIES:]
            count += len(numbers)
        if newest:
            entries = await self._browsing.entries_with(newest)
            self._send(Message("entries", self._render(entries, count - len(entries)), tail.last))
        if (line := await self._health_line()) != self._last_health:
            self._last_health = line
            self._send(Message("health", line))

    def _send(self, message: Message) -> None:
        for page in self._pages:
            page.put(message)
