"""Waits for a database that does not answer: a full disk or a foreign lock costs time, and no file."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import TypeVar

from sqlalchemy.exc import DBAPIError

from soulspot.infrastructure.persistence.database import is_environment_fault

logger = logging.getLogger(__name__)

FIRST_WAIT = 0.1
LONGEST_WAIT = 10.0

_T = TypeVar("_T")


async def patiently(act: Callable[..., Awaitable[_T]], *arguments: object) -> _T:
    """Call until the database answers; whatever is wrong with the call itself is raised."""
    wait = FIRST_WAIT
    while True:
        try:
            return await act(*arguments)
        except DBAPIError as error:
            if not is_environment_fault(error):
                raise
            logger.warning("the database refuses (%s): trying again in %.1f s", error.orig, wait)
            await asyncio.sleep(wait)
            wait = min(wait * 2, LONGEST_WAIT)
