"""Retries while the database refuses: a full disk, a foreign lock or a lost server costs time, but no file.

A transaction that lost a race against another (a deadlock, a serialisation failure) is retried almost at once, after a
random wait, so that the two do not collide again.
"""

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final, TypeVar

from sqlalchemy.exc import DBAPIError

from soulspot.errors import CatalogueError, UnreachableError
from soulspot.infrastructure.backoff import Backoff
from soulspot.infrastructure.persistence.faults import is_damage, is_environment_fault, is_lost_race, why_not_readable

logger = logging.getLogger(__name__)

RACE_WAIT: Final = 0.01
FIRST_WAIT: Final = 0.05
LONGEST_WAIT: Final = 5.0
LOG_AFTER: Final = 1.0
"""Seconds for which the database may refuse before a log message: a short lock is normal."""

_T = TypeVar("_T")


class DatabaseRetry:
    """Repeats calls with growing waits until the database answers; the first answer wakes all waiting calls.

    Attributes:
        file: the file of an SQLite database, which is examined if it seems to be damaged.

    """

    file: Path | None = None

    def __init__(self) -> None:
        self._refused = 0
        self._since = 0.0
        self._reason = ""
        self._was_logged = False
        self._answered = asyncio.Event()

    @property
    def reason(self) -> str | None:
        """Why the database refuses; None while it answers."""
        return self._reason if self._refused else None

    async def __call__(self, act: Callable[..., Awaitable[_T]], *arguments: object) -> _T:
        """Call until the database answers; raises CatalogueError if it is damaged, and any error of soulspot's own."""
        for wait in Backoff(RACE_WAIT, LONGEST_WAIT):
            try:
                return await act(*arguments)
            except (DBAPIError, UnreachableError) as error:
                await self._judge(error, is_first=True)
                if not is_lost_race(error):
                    break
            await asyncio.sleep(random.uniform(wait / 2, wait))  # noqa: S311 - no secret
        if not self._refused:
            self._since, self._was_logged, self._answered = time.monotonic(), False, asyncio.Event()
        self._refused += 1
        try:
            return await self._again(act, *arguments)
        finally:
            self._refused -= 1
            self._answered.set()

    async def _again(self, act: Callable[..., Awaitable[_T]], *arguments: object) -> _T:
        waits = Backoff(FIRST_WAIT, LONGEST_WAIT)
        wait = next(waits)
        while True:
            self._answered.clear()
            try:
                async with asyncio.timeout(wait * random.uniform(0.7, 1.3)):  # noqa: S311 - so that calls spread out
                    await self._answered.wait()
            except TimeoutError:
                wait = next(waits)
            try:
                result = await act(*arguments)
            except (DBAPIError, UnreachableError) as error:
                await self._judge(error)
                self._log_once()
            else:
                if self._was_logged:
                    logger.warning("the database answers again, after %.0f s", time.monotonic() - self._since)
                # A server that has just started may still refuse some calls: they are a new refusal, not the old one.
                self._since, self._was_logged = time.monotonic(), False
                return result

    async def _judge(self, error: DBAPIError | UnreachableError, *, is_first: bool = False) -> None:
        if isinstance(error, DBAPIError) and is_damage(error):
            fault = None if self.file is None else await asyncio.to_thread(why_not_readable, self.file)
            if fault is None and not is_first:  # the first error may have been a transient one of the disk
                raise CatalogueError(
                    f"the catalogue is damaged ({error.orig}) and was left as it is: `soulspot doctor` examines it, "
                    f"`soulspot db restore` puts a backup in its place"
                ) from error
            self._reason = fault or str(error.orig)
        elif is_environment_fault(error):
            self._reason = str(error if isinstance(error, UnreachableError) else error.orig)
        else:
            raise error

    def _log_once(self) -> None:
        if not self._was_logged and time.monotonic() - self._since > LOG_AFTER:
            self._was_logged = True
            logger.error(
                "paused: the database refuses (%s); nothing is lost, and ingest resumes automatically", self._reason
            )


retry_database = DatabaseRetry()
"""One per process, as all its calls go to one database."""
