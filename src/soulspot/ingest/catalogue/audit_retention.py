"""Lets old entries of the history go, where a person set a limit to how long they are kept.

Of everything that the catalogue still has, the first entry and the latest stay, however old they are: how it came to
be, and why it is as it is. The rest goes a few at a time, each few in a transaction of their own. One entry tells of a
pass, written anew with the sum in each of these transactions, so that it is right wherever the pass is cut short.
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
from soulspot.ingest.retry import retry_database

logger = logging.getLogger(__name__)

EVERY: Final = 86_400.0
"""Seconds between two passes of the daemon."""
AT_ONCE: Final = 100
"""Entries that one transaction removes: a few milliseconds of the one writer."""
LOOKED_AT: Final = 2_000
"""Entries that one query looks at."""
PAUSE: Final = 0.01
BUSY_PAUSE: Final = 0.1
"""Seconds between two transactions, and those for as long as files are being taken in."""
THE_LOG: Final = "audit_log"
"""What an entry of a pass is of."""


class Retention:
    """Keeps the history as long as it is to be kept.

    Args:
        keep: how long.
        run: the id of this start of soulspot.
        is_quiet: whether nobody else wants to write.

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
        """Do a pass now, and one each day."""
        while True:
            await self.trim()
            await asyncio.sleep(EVERY)

    async def count(self) -> int:
        """Return how many entries a pass would remove."""
        return sum([len(numbers) async for numbers in self._spent(now() - self._keep)])

    async def trim(self) -> int:
        """Do one pass; return how many entries it removed."""
        before, removed = now() - self._keep, 0
        last = await retry_database(self._entries.last_sequence)
        async for numbers in self._spent(before):
            for start in range(0, len(numbers), AT_ONCE):
                removed = await retry_database(self._remove, numbers[start : start + AT_ONCE], removed, before, last)
                await asyncio.sleep(PAUSE if self._is_quiet() else BUSY_PAUSE)
        if removed:
            logger.info("%d entries of the history were let go: they were older than %s", removed, before.date())
        return removed

    async def _spent(self, before: datetime) -> AsyncIterator[list[int]]:
        """Yield the numbers of what is old and need not stay, a page at a time."""
        upto = await retry_database(self._entries.last_before, before)
        after = 0
        while page := await retry_database(self._entries.aged, after, upto, before, LOOKED_AT):
            after = page[-1][0]
            yield [number for number, is_spent in page if is_spent]

    async def _remove(self, numbers: Sequence[int], already: int, before: datetime, last: int) -> int:
        """Remove some entries, and tell of all that this pass has removed, with `already` of them; return that sum."""
        async with self._database.transaction():
            removed = already + await self._entries.remove(numbers)
            if removed > already:
                await self._entries.remove_own("audit_trimmed", THE_LOG, after=last)
                changes = {"entries": removed, "before": before.isoformat(timespec="seconds")}
                await self._audit.log_action("audit_trimmed", THE_LOG, changes=changes)
        return removed
