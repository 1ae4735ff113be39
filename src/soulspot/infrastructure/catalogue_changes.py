"""Waits until a catalogue may have changed.

PostgreSQL notifies of every commit, from any process on any machine. With SQLite, the daemon publishes its events on
its control socket. While neither is available, `wait` returns often, so that its caller polls.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing, suppress
from functools import partial
from pathlib import Path
from typing import Final, Self

from sqlalchemy.exc import DBAPIError

from soulspot.errors import UnreachableError
from soulspot.infrastructure.backoff import Backoff
from soulspot.infrastructure.net import control_socket
from soulspot.infrastructure.persistence.database import Database

POLL_INTERVAL: Final = 0.25
"""Seconds until `wait` returns while nothing reports changes."""
CHECK_INTERVAL: Final = 5.0
"""The same while PostgreSQL notifies: a notification may be lost."""
DAEMON_CHECK_INTERVAL: Final = 1.0
"""The same while a daemon publishes: it has no events for changes of a whole folder."""
FIRST_RETRY: Final = 0.25
LAST_RETRY: Final = 1.0
"""Seconds until a retry of a source that has ended: doubling from the first to the last."""

FindSocket = Callable[[], Path | None]
"""Returns the control socket of the daemon, None if there is none."""
Source = Callable[[], AsyncGenerator[None, None]]
"""Yields after each change; ends, or raises OSError or an error of the database, if it cannot continue."""


class CatalogueChanges:
    """Follows one source of changes inside an `async with` block.

    Args:
        source: reports changes.
        check_interval: seconds after which `wait` returns even without a report from the source.

    """

    def __init__(self, source: Source, *, check_interval: float) -> None:
        self._source, self._check_interval = source, check_interval
        self._changed = asyncio.Event()
        self._is_reporting = False

    @classmethod
    def of(cls, database: Database, find_socket: FindSocket, *, check_interval: float | None = None) -> Self:
        """Return the changes of a catalogue, from its best source."""
        if (notifications := database.backend.change_notifications) is not None:
            return cls(notifications, check_interval=check_interval or CHECK_INTERVAL)
        return cls(partial(daemon_events, find_socket), check_interval=check_interval or DAEMON_CHECK_INTERVAL)

    async def __aenter__(self) -> Self:
        self._following = asyncio.create_task(self._follow(), name="follow the changes of the catalogue")
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        self._following.cancel()
        await asyncio.wait([self._following])

    async def wait(self) -> None:
        """Return when the catalogue may have changed since the last call."""
        with suppress(TimeoutError):
            async with asyncio.timeout(self._check_interval if self._is_reporting else POLL_INTERVAL):
                await self._changed.wait()
        self._changed.clear()

    async def _follow(self) -> None:
        backoff = Backoff(FIRST_RETRY, LAST_RETRY)
        while True:
            # The caller polls while the source is unreachable. ValueError: an answer that is not JSON.
            with suppress(OSError, ValueError, DBAPIError, UnreachableError):
                async with aclosing(self._source()) as changes:
                    async for _change in changes:
                        backoff.reset()
                        self._is_reporting = True
                        self._changed.set()
            self._is_reporting = False
            self._changed.set()
            await asyncio.sleep(next(backoff))


async def daemon_events(find_socket: FindSocket) -> AsyncGenerator[None, None]:
    """Yield when the running daemon answers, and after each of its events; end with the daemon."""
    if (socket := find_socket()) is not None:
        async with aclosing(control_socket.stream_answers(socket, "follow", room=1)) as answers:
            async for answer in answers:
                if "error" in answer:
                    return
                yield
