"""The running daemon, as the page sees it: asked on its control socket, and not more than once a second."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from soulspot.infrastructure.net import control_socket
from soulspot.infrastructure.persistence.postgresql.advisory_locks import Writer
from soulspot.infrastructure.persistence.records import KnownFolder
from soulspot.infrastructure.persistence.repositories import FileRepository, FolderRepository
from soulspot.reports.status import Counts, status_report

FRESH: Final = 1.0
"""Seconds for which an answer of the daemon is good."""
COUNTED: Final = 15.0
"""Seconds for which the numbers of files are good: counting them takes longer than all else on a page."""
WITHIN: Final = 2.0
"""Seconds that the daemon has to answer."""
RETRY_WITHIN: Final = 20.0


@dataclass(frozen=True, slots=True)
class Word:
    """How things are in a word, with a sentence: what stands at the top of every page."""

    health: str
    says: str


class Daemon:
    """Asks the daemon, and puts the catalogue's numbers beside what it says.

    Args:
        place: tells where it answers, None where nobody does.
        holder: tells who holds the lock to write.
        writers: tells who writes on a server, of the folders that they watch.
        database: the catalogue's name, for a person.

    """

    def __init__(  # noqa: PLR0913 - one argument for each of its sources
        self,
        place: Callable[[], Path | None],
        holder: Callable[[], str | None],
        folders: FolderRepository,
        files: FileRepository,
        *,
        database: str,
        writers: Callable[[Sequence[KnownFolder]], Awaitable[Sequence[Writer]]],
    ) -> None:
        self.place, self._holder, self._database, self._writers = place, holder, database, writers
        self._folders, self._files = folders, files
        self._status: Mapping[str, Any] | None = None
        self._asked = -FRESH
        self._counts: Counts = {}
        self._counted = -COUNTED
        self._turn = asyncio.Lock()

    async def status(self) -> Mapping[str, Any] | None:
        """Return what the daemon says of itself, None where none answers."""
        async with self._turn:
            if time.monotonic() - self._asked >= FRESH:
                self._status = await self._ask("status", WITHIN)
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
        if time.monotonic() - self._counted >= COUNTED:
            self._counts = await self._files.counts()
            self._counted = time.monotonic()
        folders = await self._folders.all()
        writers = await self._writers(folders)
        holder = self._holder() or "; ".join(map(str, writers)) or None
        return status_report(status, holder, folders, self._counts, database=self._database, writers=writers)

    async def retry(self, **which: str) -> Mapping[str, Any] | None:
        """Have the failures at a path or of a code read again; return what the daemon answers."""
        return await self._ask("failures", RETRY_WITHIN, verb="retry", which=which)

    async def _ask(self, question: str, within: float, **arguments: Any) -> Mapping[str, Any] | None:  # noqa: ANN401
        if (place := self.place()) is None:
            return None
        try:
            async with (
                asyncio.timeout(within),
                aclosing(control_socket.listen(place, question, **arguments)) as answers,
            ):
                return await anext(answers, None)
        except (OSError, ValueError, TimeoutError):
            return None
