"""Waits for a database that does not answer: a full disk, a foreign lock or a lost server costs time, and no file.

A transaction that lost a race against another (a deadlock, a serialisation failure) is tried again almost at once, and
after a wait that is never the same for two, or they would meet again.
"""

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

from sqlalchemy.exc import DBAPIError

from soulspot.errors import UnreachableError
from soulspot.infrastructure.persistence.database import is_environment_fault, is_lost_race

logger = logging.getLogger(__name__)

RACE_WAIT: Final = 0.01
FIRST_WAIT: Final = 0.1
LONGEST_WAIT: Final = 10.0
_SAY_AGAIN: Final = 60.0

_T = TypeVar("_T")


async def patiently(act: Callable[..., Awaitable[_T]], *arguments: object) -> _T:
    """Call until the database answers; whatever is wrong with the call itself is raised."""
    tries = 0
    while True:
        try:
            result = await act(*arguments)
        except (DBAPIError, UnreachableError) as error:
            if not is_environment_fault(error):
                raise
            lost_race = is_lost_race(error)
            if not lost_race:
                _outage.note(error)
            longest = min((RACE_WAIT if lost_race else FIRST_WAIT) * 2**tries, LONGEST_WAIT)
            tries = min(tries + 1, 16)
            await asyncio.sleep(random.uniform(longest / 2, longest))  # noqa: S311 - no secret
        else:
            if tries:
                _outage.end()
            return result


class _Outage:
    """The time in which the database refuses: said when it begins, now and then, and when it is over."""

    def __init__(self) -> None:
        self._began: float | None = None
        self._said = 0.0

    def note(self, error: DBAPIError | UnreachableError) -> None:
        now = time.monotonic()
        if self._began is None:
            self._began, self._said = now, 0.0
        if now - self._said >= _SAY_AGAIN:
            reason = error if isinstance(error, UnreachableError) else error.orig
            logger.warning("the database refuses (%s): trying again until it does not", reason)
            self._said = now

    def end(self) -> None:
        if self._began is not None:
            logger.warning("the database is back after %.1f s", time.monotonic() - self._began)
            self._began = None


_outage = _Outage()
