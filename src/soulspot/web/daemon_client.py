"""Asks the running daemon on its control socket, at most once a second."""

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
"""Seconds for which an answer of the daemon is used."""
COUNTS_MAX_AGE: Final = 15.0
"""Seconds for which the counts of files are used: counting takes longer than anything else on a page."""
STATUS_TIMEOUT: Final = 2.0
RETRY_TIMEOUT: Final = 20.0
"""Seconds that the daemon has to answer."""


@dataclass(frozen=True, slots=True)
class Word:
    """The daemon's health in a word and a sentence, shown at the top of every page."""

    health: str
    says: str


class DaemonClient:
    """Asks the daemon, and adds the catalogue's numbers to its answers.

    Args:
        find_socket: returns the control socket, None without a daemon.
        holder: returns who holds the lock to write.
        writers: returns who writes on a server, of the folders that they watch.
        database: the catalogue's name, for a person.

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
        self._asked = -STATUS_MAX_AGE
        self._counts: Counts = {}
        self._counted = -COUNTS_MAX_AGE
        self._asking = asyncio.Lock()

    async def status(self) -> Mapping[str, Any] | None:
        """Return the daemon's status, None if none answers."""
        async with self._asking:
            if time.monotonic() - self._asked >= STATUS_MAX_AGE:
                self._status = await self._ask("status", STATUS_TIMEOUT)
                self._asked = time.monotonic()
        return self._status

    async def word(self) -> Word:
        if (status := await self.status()) is None:
            holder = self._holder()
            return Word("away", f"{holder} writes" if holder else "no soulspot is watching")
        reasons: Sequence[str] = status.get("reasons") or ()
        queue = status.get("queue") or {}
        in_hand = queue.get("in_hand", 0) + queue.get("settling", 0)
        says = reasons[0] if reasons else f"{in_hand} files in hand" if in_hand else "watching"
        return Word(str(status.get("health")), says)

    async def report(self) -> Mapping[str, Any]:
        """Return what `soulspot status --json` prints."""
        status = await self.status()
        if time.monotonic() - self._counted >= COUNTS_MAX_AGE:
            self._counts = await self._files.counts()
            self._counted = time.monotonic()
        folders = await self._folders.all()
        writers = await self._writers(folders)
        holder = self._holder() or "; ".join(map(str, writers)) or None
        return status_report(status, holder, folders, self._counts, database=self._database, writers=writers)

    async def retry(self, **which: str) -> Mapping[str, Any] | None:
        """Have the failures at a path or with a code retried; return the daemon's answer."""
        return await self._ask("failures", RETRY_TIMEOUT, verb="retry", which=which)

    async def _ask(self, question: str, within: float, **arguments: Any) -> Mapping[str, Any] | None:  # noqa: ANN401
        if (socket := self.find_socket()) is None:
            return None
        try:
            async with (
                asyncio.timeout(within),
                aclosing(control_socket.stream_answers(socket, question, **arguments)) as answers,
            ):
                return await anext(answers, None)
        except (OSError, ValueError, TimeoutError):
            return None
