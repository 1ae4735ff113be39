"""Queries the running daemon on its control socket, at most once a second."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from soulspot.infrastructure.net import control_socket
from soulspot.infrastructure.persistence.records import KnownFolder, Writer
from soulspot.infrastructure.persistence.repositories import FileRepository, FolderRepository
from soulspot.reports.status import Counts, status_report

STATUS_MAX_AGE: Final = 1.0
"""Seconds for which the daemon's answer is reused."""
COUNTS_MAX_AGE: Final = 15.0
"""Seconds for which the file counts are reused: counting is the slowest query of any page."""
STATUS_TIMEOUT: Final = 2.0
RETRY_TIMEOUT: Final = 20.0
"""Seconds to wait for the daemon's answer."""


@dataclass(frozen=True, slots=True)
class HealthLine:
    """The daemon's health, "away" without a daemon, and a sentence about it: the top of every page."""

    health: str
    text: str


class DaemonClient:
    """Queries the daemon, and adds the catalogue's counts to its answers.

    Args:
        find_socket: returns the control socket, None if no daemon runs.
        holder: returns the process that holds the writer lock.
        writers: returns the sessions on a database server that write these folders.
        database: the catalogue's name for display.

    """

    def __init__(  # noqa: PLR0913 - one argument for each of its sources
        self,
        find_socket: Callable[[], Path | None],
        holder: Callable[[], str | None],
        folders: FolderRepository,
        files: FileRepository,
        *,
        database: str,
        writers: Callable[[Sequence[KnownFolder]], Awaitable[Sequence[Writer]]],
    ) -> None:
        self.find_socket, self._holder, self._database, self._writers = find_socket, holder, database, writers
        self._folders, self._files = folders, files
        self._status: Mapping[str, Any] | None = None
        self._queried_at = -STATUS_MAX_AGE
        self._counts: Counts = {}
        self._counted_at = -COUNTS_MAX_AGE
        self._querying = asyncio.Lock()

    async def status(self) -> Mapping[str, Any] | None:
        """Return the daemon's status, None if no daemon answers."""
        async with self._querying:
            if time.monotonic() - self._queried_at >= STATUS_MAX_AGE:
                self._status = await self._query("status", STATUS_TIMEOUT)
                self._queried_at = time.monotonic()
        return self._status

    async def health_line(self) -> HealthLine:
        if (status := await self.status()) is None:
            holder = self._holder()
            return HealthLine("away", f"{holder} is writing" if holder else "no soulspot is watching")
        queue = status.get("queue") or {}
        waiting = queue.get("in_hand", 0) + queue.get("settling", 0)
        text = f"{waiting} {'file' if waiting == 1 else 'files'} in progress" if waiting else "watching"
        return HealthLine(str(status.get("health")), next(iter(status.get("reasons") or ()), text))

    async def report(self) -> Mapping[str, Any]:
        """Return what `soulspot status --json` prints."""
        status = await self.status()
        if time.monotonic() - self._counted_at >= COUNTS_MAX_AGE:
            self._counts = await self._files.counts()
            self._counted_at = time.monotonic()
        folders = await self._folders.all()
        writers = await self._writers(folders)
        holder = self._holder() or "; ".join(map(str, writers)) or None
        return status_report(status, holder, folders, self._counts, database=self._database, writers=writers)

    async def retry(self, **which: str) -> Mapping[str, Any] | None:
        """Retry the failures at a path or with a code; return the daemon's answer, None if no daemon answers."""
        return await self._query("failures", RETRY_TIMEOUT, verb="retry", which=which)

    async def _query(self, command: str, within: float, **arguments: Any) -> Mapping[str, Any] | None:  # noqa: ANN401
        if (socket := self.find_socket()) is None:
            return None
        try:
            async with (
                asyncio.timeout(within),
                aclosing(control_socket.stream_answers(socket, command, **arguments)) as answers,
            ):
                return await anext(answers, None)
        except (OSError, ValueError, TimeoutError):
            return None
