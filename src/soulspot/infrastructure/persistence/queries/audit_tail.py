"""Follows the audit log: each new entry once, even with several writers."""

import time
from collections.abc import Sequence
from typing import Final

from soulspot.infrastructure.persistence.queries.audit_log import AuditLogQueries

BATCH: Final = 1000
GIVE_UP_AFTER: Final = 120.0
"""Seconds after which a skipped number counts as that of a transaction that was rolled back."""


class AuditTail:
    """Reads the numbers of new entries.

    A writer takes a number before its entry becomes visible, so with several writers a later one may be visible first.
    Each skipped number is queried again until its transaction must have ended.
    """

    def __init__(self, entries: AuditLogQueries, last: int) -> None:
        self._entries = entries
        self._skipped: dict[int, float] = {}
        self.last = last

    async def new(self) -> Sequence[int]:
        """Return the numbers of the entries that became visible since the last call, at most `BATCH`, oldest first."""
        now = time.monotonic()
        self._skipped = {number: at for number, at in self._skipped.items() if now - at < GIVE_UP_AFTER}
        numbers = await self._entries.numbers(self.last, self._skipped, BATCH)
        if numbers and numbers[-1] > self.last:
            between = range(max(self.last + 1, numbers[-1] - BATCH), numbers[-1])
            self._skipped |= dict.fromkeys(set(between).difference(numbers), now)
            self.last = numbers[-1]
        for number in numbers:
            self._skipped.pop(number, None)
        return numbers
