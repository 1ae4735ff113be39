"""What is new in the audit log, each entry once, also where several write."""

import time
from collections.abc import Sequence
from typing import Final

from soulspot.infrastructure.persistence.queries.audit_log import AuditLogQueries

BATCH: Final = 1000
GIVE_UP_AFTER: Final = 120.0
"""Seconds after which a number that was passed over is one whose transaction was rolled back."""


class AuditTail:
    """Asks for the numbers of new entries.

    Where several write, a number is taken before its entry can be seen, so a later one may be seen first. One that was
    passed over is looked for until its transaction must have ended.
    """

    def __init__(self, entries: AuditLogQueries, last: int) -> None:
        self._entries = entries
        self._passed_over: dict[int, float] = {}
        self.last = last

    async def new(self) -> Sequence[int]:
        """Return the numbers of entries that can be seen since the last time, at most `BATCH`, the oldest first."""
        now = time.monotonic()
        self._passed_over = {number: at for number, at in self._passed_over.items() if now - at < GIVE_UP_AFTER}
        numbers = await self._entries.numbers(self.last, self._passed_over, BATCH)
        if numbers and numbers[-1] > self.last:
            between = range(max(self.last + 1, numbers[-1] - BATCH), numbers[-1])
            self._passed_over |= dict.fromkeys(set(between).difference(numbers), now)
            self.last = numbers[-1]
        for number in numbers:
            self._passed_over.pop(number, None)
        return numbers
