"""Notifications of commits, by any process on any machine: PostgreSQL's LISTEN and NOTIFY.

A notification only wakes; the listener reads the catalogue. Another connection sends it after the commit, because a
NOTIFY within a transaction makes every commit of the server wait for one lock; and with a pause between two, because
one wakes a listener as well as a hundred do. A lost one (its sender died, the connection broke) delays a listener until
its next poll. `docs/scaling.md` describes how other programs listen.
"""

import asyncio
from collections.abc import AsyncGenerator
from typing import Final

from sqlalchemy.ext.asyncio import AsyncEngine

CHANNEL: Final = "CAST(CAST('soulspot_' || current_schema() AS name) AS text)"
"""The channel of a connection's catalogue, in SQL: one per schema, truncated as any name is."""
NOTIFY_INTERVAL: Final = 0.1
"""Seconds between two notifications of one process; it sends the first at once."""


async def change_notifications(engine: AsyncEngine) -> AsyncGenerator[None, None]:
    """Yield once listening, and after each notification; end when the connection is lost.

    Raises DBAPIError, OSError or UnreachableError if the server cannot be reached.
    """
    woken, is_lost = asyncio.Event(), asyncio.Event()

    def connection_lost(_connection: object) -> None:
        is_lost.set()
        woken.set()

    connection = await engine.connect()
    try:
        driver = (await connection.get_raw_connection()).driver_connection
        assert driver is not None
        driver.add_termination_listener(connection_lost)
        channel = (await connection.exec_driver_sql(f"SELECT {CHANNEL}")).scalar_one()
        await driver.add_listener(channel, lambda *_notification: woken.set())
        while not is_lost.is_set():
            yield  # first for commits from before it listened
            await woken.wait()
            woken.clear()
    finally:
        await connection.invalidate()
        await connection.close()
