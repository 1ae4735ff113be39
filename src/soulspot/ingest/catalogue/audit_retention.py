"""Removes expired audit entries: those older than the setting allows.

The first and the latest entry of everything that the catalogue still has stay, at any age: they record how it was
created, and its last change. The others are removed in small batches, each in its own transaction. One audit entry
records a pass; each batch replaces it with the new total, so that it is correct even if the pass is interrupted.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Sequence
from datetime import datetime, timedelta
from typing import Final

from soulspot.infrastructure.persistence.database import Database
from soulspot.infrastructure.persistence.queries.audit_log import AuditLogQueries
from soulspot.infrastructure.persistence.repositories import AuditRepository
from soulspot.infrastructure.persistence.statements import now
from soulspot.ingest.database_retry import retry_database

logger = logging.getLogger(__name__)

INTERVAL: Final = 86_400.0
"""Seconds between two passes of the daemon."""
BATCH: Final = 100
"""Entries that one transaction removes: they occupy the writer for a few milliseconds."""
PAGE: Final = 2_000
"""Entries that one query examines."""
PAUSE: Final = 0.01
BUSY_PAUSE: Final = 0.1
"""Seconds between two transactions; the longer one while files are being ingested."""
AUDIT_LOG: Final = "audit_log"
"""The entity id of the audit entry that records a pass."""


class Retention:
    """Removes expired audit entries.

    Args:
        keep: the age at which entries expire.
        run: the id of this run of soulspot.
        is_quiet: whether nothing else wants to write.

    """

    def __init__(
        self, database: Database, *, keep: timedelta, run: str, is_quiet: Callable[[], bool] = lambda: True
    ) -> None:
        self._database = database
        self._audit = AuditRepository(database.session, run=run)
        self._entries = AuditLogQueries(database.session, run=run)
        self._keep = keep
        self._is_quiet = is_quiet

    async def run(self) -> None:
        """Do a pass now, and then one each day."""
        while True:
            await self.trim()
            await asyncio.sleep(INTERVAL)

    async def count(self) -> int:
        """Return how many entries a pass would remove."""
        return sum([len(numbers) async for numbers in self._expired(now() - self._keep)])

    async def trim(self) -> int:
        """Do one pass; return how many entries it removed."""
        before, removed = now() - self._keep, 0
        last = await retry_database(self._entries.last_sequence)
        async for numbers in self._expired(before):
            for start in range(0, len(numbers), BATCH):
                removed = await retry_database(self._remove, numbers[start : start + BATCH], removed, before, last)
                await asyncio.sleep(PAUSE if self._is_quiet() else BUSY_PAUSE)
        if removed:
            logger.info("removed %d audit entries older than %s", removed, before.date())
        return removed

    async def _expired(self, before: datetime) -> AsyncIterator[list[int]]:
        """Yield the sequence numbers of the entries to remove, a page at a time."""
        upto = await retry_database(self._entries.last_before, before)
        after = 0
        while page := await retry_database(self._entries.aged, after, upto, before, PAGE):
            after = page[-1][0]
            yield [number for number, is_expired in page if is_expired]

    async def _remove(self, numbers: Sequence[int], removed: int, before: datetime, last: int) -> int:
        """Remove entries and record the new total of the pass, given the total so far; return the new total."""
        async with self._database.transaction():
            total = removed + await self._entries.remove(numbers)
            if total > removed:
                await self._entries.remove_own("audit_trimmed", AUDIT_LOG, after=last)
                changes = {"entries": total, "before": before.isoformat(timespec="seconds")}
                await self._audit.log_action("audit_trimmed", AUDIT_LOG, changes=changes)
        return total
