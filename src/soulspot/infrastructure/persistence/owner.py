"""One watcher a folder, where several share a PostgreSQL: a lock in the server, held for the life of the process.

A folder belongs to the machine that sees it, so the lock is of both. It is held by a connection of its own and not by a
row, so that it goes with the process, however that ends. A connection that is lost takes the lock along; it is taken
again as soon as the server is back, and when somebody else was faster, this process ends.
"""

import asyncio
import hashlib
import logging
import os
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import Final

from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from soulspot.errors import LockHeldError, UnreachableError

logger = logging.getLogger(__name__)

LOOK_EVERY: Final = 5.0
"""Seconds between two looks at whether the lock is still held."""

_TAKE: Final = text("SELECT pg_try_advisory_lock(CAST(:key AS bigint))")
_NAME: Final = text("SELECT set_config('application_name', :name, false)")
_HOLDER: Final = text("""
    SELECT a.application_name, coalesce(host(a.client_addr), 'this machine') FROM pg_locks l
    JOIN pg_stat_activity a USING (pid)
    WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 1
    AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
    AND l.classid::bigint = (CAST(:key AS bigint) >> 32) & 4294967295
    AND l.objid::bigint = CAST(:key AS bigint) & 4294967295
""")


@asynccontextmanager
async def folders_owned(engine: AsyncEngine, node: str, folders: Iterable[str], command: str) -> AsyncIterator[None]:
    """Be the only process that writes what this machine has in these folders.

    Raises LockHeldError that names the holder, at once or, in the task that entered, when the lock was lost to another.
    """
    wanted = sorted(folders)
    name = f"soulspot {command} (pid {os.getpid()}) on {node}"  # what is too long is cut at its end
    connection = await _take_all(engine, node, wanted, name)
    keeping = asyncio.create_task(_keep(engine, connection, node, wanted, name))
    owner = asyncio.current_task()
    assert owner is not None
    keeping.add_done_callback(lambda task: None if task.cancelled() else owner.cancel())
    try:
        yield
    except asyncio.CancelledError:
        if keeping.done() and not keeping.cancelled() and (error := keeping.exception()) is not None:
            owner.uncancel()
            raise error from None
        raise
    finally:
        keeping.cancel()
        await asyncio.wait([keeping])


async def _keep(engine: AsyncEngine, connection: AsyncConnection, node: str, folders: list[str], name: str) -> None:
    """Hold the lock until cancelled; raises LockHeldError when it went to another."""
    try:
        while True:
            await asyncio.sleep(LOOK_EVERY)
            try:
                await connection.execute(text("SELECT 1"))
            except (DBAPIError, OSError):
                await connection.invalidate()
                await connection.close()
                connection = await _take_again(engine, node, folders, name)
    finally:
        await connection.close()


async def _take_again(engine: AsyncEngine, node: str, folders: list[str], name: str) -> AsyncConnection:
    while True:
        try:
            return await _take_all(engine, node, folders, name)
        except (DBAPIError, OSError, UnreachableError):
            await asyncio.sleep(1)


async def _take_all(engine: AsyncEngine, node: str, folders: list[str], name: str) -> AsyncConnection:
    connection = await engine.connect()
    try:
        await connection.execute(_NAME, {"name": name.encode("ascii", "replace").decode()[:63]})
        for folder in folders:
            await _take(connection, _key(node, folder), folder)
    except BaseException:
        await connection.close()
        raise
    return connection


async def _take(connection: AsyncConnection, key: int, folder: str) -> None:
    if await connection.scalar(_TAKE, {"key": key}):
        return
    holder = (await connection.execute(_HOLDER, {"key": key})).first()
    who = f"`{holder[0]}`, connected from {holder[1]}" if holder else "another soulspot"
    msg = f"{folder} is being watched by {who}: stop it first, or let it do the work"
    raise LockHeldError(msg)


def _key(node: str, folder: str) -> int:
    digest = hashlib.blake2b(f"soulspot\0{node}\0{folder}".encode(errors="surrogateescape"), digest_size=8).digest()
    return int.from_bytes(digest, signed=True)
