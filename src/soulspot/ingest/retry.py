"""Retries while the database refuses: a full disk, a foreign lock or a lost server costs time, and no file.

A transaction that lost a race against another (a deadlock, a serialisation failure) is tried again almost at once,
after a random wait, so that the two do not meet again.
"""

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Final, TypeVar

from sqlalchemy.exc import DBAPIError

from soulspot.errors import CatalogueError, UnreachableError
from soulspot.infrastructure.persistence.faults import is_damage, is_environment_fault, is_lost_race, why_not_readable

if TYPE_CHECKING:
    from pathlib import Path

logger = logging.getLogger(__name__)

RACE_WAIT: Final = 0.01
FIRST_WAIT: Final = 0.05
LONGEST_WAIT: Final = 5.0
LOG_AFTER: Final = 1.0
"""Seconds that the database may refuse before it is logged: a short lock is normal."""

_T = TypeVar("_T")


class DatabaseRetry:
    """Repeats calls with growing waits until the database answers; the first answer wakes all that wait."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._refused = 0
        self._since = 0.0
        self._reason = ""
        self._was_logged = False
        self._answered: asyncio.Event | None = None
        self.file: Path | None = None
        """The file of an SQLite database, which is read if it seems to be damaged."""

    @property
    def reason(self) -> str | None:
        """Why the database refuses; None while it answers."""
        return self._reason if self._refused else None

    async def __call__(self, act: Callable[..., Awaitable[_T]], *arguments: object) -> _T:
        """Call until the database answers; raises CatalogueError if it is damaged, and any error that is our own."""
        race_wait = RACE_WAIT
        while True:
            try:
                return await act(*arguments)
            except (DBAPIError, UnreachableError) as error:
                await self._judge(error, is_first=True)
                if not is_lost_race(error):
                    break
            await asyncio.sleep(random.uniform(race_wait / 2, race_wait))  # noqa: S311 - no secret
            race_wait = min(race_wait * 2, LONGEST_WAIT)
        if not self._refused:
            self._since, self._was_logged, self._answered = self._clock(), False, asyncio.Event()
        self._refused += 1
        try:
            return await self._again(act, *arguments)
        finally:
            self._refused -= 1
            if self._answered is not None:
                self._answered.set()

    async def _again(self, act: Callable[..., Awaitable[_T]], *arguments: object) -> _T:
        wait, answered = FIRST_WAIT, self._answered
        assert answered is not None
        while True:
            answered.clear()
            try:
                async with asyncio.timeout(wait * random.uniform(0.7, 1.3)):  # noqa: S311 - so that they do not all come at once
                    await answered.wait()
            except TimeoutError:
                wait = min(wait * 2, LONGEST_WAIT)
            try:
                result = await act(*arguments)
            except (DBAPIError, UnreachableError) as error:
                await self._judge(error)
                self._log_once()
            else:
                if self._was_logged:
                    self._was_logged = False
                    logger.warning("the database answers again, after %.0f s", self._clock() - self._since)
                return result

    async def _judge(self, error: DBAPIError | UnreachableError, *, is_first: bool = False) -> None:
        if isinstance(error, DBAPIError) and is_damage(error):
            if self.file is not None and (fault := await asyncio.to_thread(why_not_readable, self.file)) is not None:
                self._reason = fault
                return
            if is_first:  # may have been a transient disk error: retry once
                self._reason = str(error.orig)
                return
            msg = (
                f"the catalogue is damaged ({error.orig}) and was left as it is: `soulspot doctor` examines it, "
                f"`soulspot db restore` puts a backup in its place"
            )
            raise CatalogueError(msg) from error
        if not is_environment_fault(error):
            raise error
        self._reason = str(error if isinstance(error, UnreachableError) else error.orig)

    def _log_once(self) -> None:
        if not self._was_logged and self._clock() - self._since > LOG_AFTER:
            self._was_logged = True
            logger.error("paused: the database refuses (%s); nothing is lost, it goes on by itself", self._reason)


retry_database = DatabaseRetry()
"""One for the process: all calls go to its one database."""
