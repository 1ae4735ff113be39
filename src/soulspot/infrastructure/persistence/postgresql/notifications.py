"""Hears that something was committed, by whichever process on whichever machine: PostgreSQL's LISTEN and NOTIFY.

A notification only wakes: what happened, the catalogue tells. It is sent after the commit and by another connection,
because a NOTIFY within a transaction makes every commit of the server wait for one lock; and at most so often, because
a hundred commits wake nobody more than one does. One that is lost (its sender died, the connection broke) costs the
time until the next look, which is taken anyway. `docs/scaling.md` says how other programs listen.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from typing import Any, Final

from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine

from soulspot.errors import UnreachableError
from soulspot.infrastructure.persistence.backend import Wait

CHANNEL: Final = "CAST(CAST('soulspot_' || current_schema() AS name) AS text)"
"""The channel of the catalogue that a connection works with, in SQL: one of each schema, cut as any name is."""
TELL_EVERY: Final = 0.1
"""Seconds that a process lets pass between two notifications; the first goes out at once."""
LOOK_ANYWAY: Final = 5.0
"""Seconds after which somebody who hears nothing looks all the same."""
LOOK_DEAF: Final = 0.25
"""Seconds between two looks of somebody who cannot hear."""
_LISTEN_AGAIN: Final = 1.0


def change_notifications(engine: AsyncEngine) -> AbstractAsyncContextManager[Wait]:
    """Listen for as long as the server is there, and look often while it is not."""
    return woken(partial(_listen, engine), LOOK_ANYWAY)


@asynccontextmanager
async def woken(
    listen: Callable[[asyncio.Event, asyncio.Event], Coroutine[Any, Any, None]], look_anyway: float
) -> AsyncIterator[Wait]:
    """Yield what waits until `listen` sets its first event; it looks often while the second, that it hears, is not."""
    rung, is_hearing = asyncio.Event(), asyncio.Event()

    async def wait() -> None:
        try:
            async with asyncio.timeout(look_anyway if is_hearing.is_set() else LOOK_DEAF):
                await rung.wait()
        except TimeoutError:
            return
        rung.clear()

    listening = asyncio.create_task(listen(rung, is_hearing))
    try:
        yield wait
    finally:
        listening.cancel()
        await asyncio.wait([listening])


async def _listen(engine: AsyncEngine, rung: asyncio.Event, is_hearing: asyncio.Event) -> None:
    while True:
        try:
            await _listen_once(engine, rung, is_hearing)
        except (DBAPIError, OSError, UnreachableError):
            pass  # whoever waits looks meanwhile
        finally:
            is_hearing.clear()
            rung.set()
        await asyncio.sleep(_LISTEN_AGAIN)


async def _listen_once(engine: AsyncEngine, rung: asyncio.Event, is_hearing: asyncio.Event) -> None:
    """Listen until the connection is lost."""
    lost = asyncio.Event()
    connection = await engine.connect()
    try:
        driver = (await connection.get_raw_connection()).driver_connection
        assert driver is not None
        driver.add_termination_listener(lambda _connection: lost.set())
        channel = (await connection.exec_driver_sql(f"SELECT {CHANNEL}")).scalar_one()
        await driver.add_listener(channel, lambda *_notification: rung.set())
        is_hearing.set()
        rung.set()  # for what was committed before it heard
        await lost.wait()
    finally:
        await connection.invalidate()
        await connection.close()
