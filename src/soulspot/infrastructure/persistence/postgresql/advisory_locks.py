"""Keeps a second writer out of a catalogue on PostgreSQL: advisory locks, held for the life of the process.

Every writer holds the catalogue's lock shared, and the lock of each of its folders exclusively. It holds the locks of
the folders above them shared, so that no two processes watch one folder, or a folder inside another. A folder belongs
to one machine, so its key contains the machine. A process that changes the schema holds the catalogue's lock
exclusively: a writer that starts later waits for it, and one that runs already is named in the error. The keys contain
the schema, because one database may hold several catalogues.

A separate connection holds the locks, so the server releases them when the process ends for any reason. If the
connection is lost, so are the locks; the process takes them again as soon as the server is back, and exits if another
process was faster. If the server has not noticed the loss, the old connection still holds the locks; the process then
asks the server to terminate it.

The same connection, otherwise idle, notifies of commits (`notifications.py`).
"""

import asyncio
import hashlib
import json
import logging
import os
from collections import defaultdict
from collections.abc import AsyncIterator, Collection, Iterable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from datetime import datetime
from typing import Any, Final, NamedTuple

from sqlalchemy import Row, TextClause, text
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, AsyncSession

from soulspot.errors import LockHeldError, UnreachableError
from soulspot.infrastructure.backoff import Backoff
from soulspot.infrastructure.persistence.faults import is_environment_fault
from soulspot.infrastructure.persistence.postgresql.notifications import CHANNEL, NOTIFY_INTERVAL
from soulspot.infrastructure.persistence.records import FolderKey, Writer

logger = logging.getLogger(__name__)

CHECK_INTERVAL: Final = 5.0
"""Seconds between two checks that the locks are still held."""
LOCK_RETRY: Final = 0.2
"""Seconds between two attempts to take a lock that will be free soon."""
FIRST_RETRY: Final = 0.25
LAST_RETRY: Final = 1.0
"""Seconds between two attempts to take the locks again: doubling from the first to the last."""
_LAST_NOTIFY_LIMIT: Final = 1.0
"""Timeout for the last notification, in seconds."""

_NAME_LENGTH: Final = 63
_EXCLUSIVE: Final = "ExclusiveLock"

_IDENTIFY: Final = text("""
    SELECT set_config('application_name', :name, false), current_schema(), pid, backend_start
    FROM pg_stat_activity WHERE pid = pg_backend_pid()
""")
_LOCK: Final = text("SELECT pg_try_advisory_lock(CAST(:key AS bigint))")
_LOCK_SHARED: Final = text("SELECT pg_try_advisory_lock_shared(CAST(:key AS bigint))")
_LOCK_ALL: Final = text("""
    SELECT (SELECT bool_and(pg_try_advisory_lock_shared(key::bigint)) FROM unnest(string_to_array(:shared, ',')) AS key)
        AND (SELECT bool_and(pg_try_advisory_lock(key::bigint)) FROM unnest(string_to_array(:exclusive, ',')) AS key)
""")
_HELD_LOCKS: Final = text("""
    SELECT (l.classid::bigint << 32) | l.objid::bigint AS key, l.mode, current_schema() AS schema,
        a.pid, a.backend_start, a.application_name AS name, host(a.client_addr) AS address
    FROM pg_locks l JOIN pg_stat_activity a USING (pid)
    WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 1
    AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
    ORDER BY a.backend_start, a.pid
""")
_TERMINATE: Final = text("SELECT pg_terminate_backend(:pid)")
_NOTIFY: Final = text(f"SELECT pg_notify({CHANNEL}, :payload)")


class _Holder(NamedTuple):
    """A connection that holds the locks of one schema, with its process in the server."""

    connection: AsyncConnection
    schema: str
    pid: int
    start: datetime


@asynccontextmanager
async def lock_folders(
    engine: AsyncEngine, folders: Iterable[FolderKey], name: str, payload: Mapping[str, str], committed: asyncio.Event
) -> AsyncIterator[None]:
    """Keep other processes from writing the files of these folders, and notify them of this one's commits.

    Raises LockHeldError, naming the holder: at once, or later, in the task that entered, if the lock was lost.
    """
    wanted = sorted(folders)
    try:
        holder = await _lock_all(engine, wanted, name, None)
    except DBAPIError as error:
        if not is_environment_fault(error):
            raise
        raise UnreachableError(str(error.orig)) from error
    owner, between_statements = asyncio.current_task(), asyncio.Lock()
    assert owner is not None

    def end(task: asyncio.Task[None]) -> None:
        if not task.cancelled():
            owner.cancel()

    keeping = asyncio.create_task(
        _keep(engine, holder, wanted, name, json.dumps(payload), committed, between_statements),
        name="keep the locks of the folders",
    )
    keeping.add_done_callback(end)
    await asyncio.sleep(0)  # once it has started, it closes its connection however it ends
    try:
        yield
    except asyncio.CancelledError:
        if keeping.done() and not keeping.cancelled() and (lost := keeping.exception()) is not None:
            owner.uncancel()
            raise lost from None
        raise
    finally:
        keeping.remove_done_callback(end)
        with suppress(TimeoutError):  # cancelling a statement breaks the connection, and costs the last notification
            async with asyncio.timeout(_LAST_NOTIFY_LIMIT), between_statements:
                keeping.cancel()
        keeping.cancel()
        await asyncio.wait([keeping])


@asynccontextmanager
async def lock_catalogue(engine: AsyncEngine, name: str) -> AsyncIterator[None]:
    """Keep other processes from writing the catalogue.

    Waits for another process that holds this lock, and raises LockHeldError, naming them, if there are writers.
    """
    connection = await engine.connect()
    try:
        await _lock_catalogue(await _identify(connection, name), exclusive=True)
        yield
    finally:
        await _close(connection)


async def writers(session: AsyncSession, folders: Collection[FolderKey]) -> list[Writer]:
    """Return the writers of the catalogue, oldest first, each with those of these folders that it has locked."""
    rows = (await session.execute(_HELD_LOCKS)).all()
    schema = rows[0].schema if rows else ""
    catalogue, by_key = _key(schema), {_key(schema, *folder): folder for folder in folders}
    found = {row.pid: _writer(row) for row in rows if row.key == catalogue}
    locked: dict[int, list[FolderKey]] = defaultdict(list)
    for row in rows:
        if row.key in by_key and row.mode == _EXCLUSIVE:
            locked[row.pid].append(by_key[row.key])
    return [replace(writer, folders=tuple(sorted(locked[pid]))) for pid, writer in found.items()]


def name_of(command: str, node: str) -> str:
    """Return the name of this process in the server; truncates the name of the machine, never the pid."""
    return f"soulspot {command} (pid {os.getpid()}) on {node}".encode("ascii", "replace").decode()[:_NAME_LENGTH]


async def _keep(  # noqa: PLR0913, PLR0917 - the arguments of `lock_folders`
    engine: AsyncEngine,
    holder: _Holder,
    folders: list[FolderKey],
    name: str,
    payload: str,
    committed: asyncio.Event,
    between_statements: asyncio.Lock,
) -> None:
    """Hold the locks, and notify of commits, until cancelled; raises LockHeldError if another process took a lock."""
    try:
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(CHECK_INTERVAL):
                    await committed.wait()
            try:
                async with between_statements:
                    if committed.is_set():
                        committed.clear()
                        await holder.connection.execute(_NOTIFY, {"payload": payload})
                    else:
                        await holder.connection.execute(text("SELECT 1"))
            except (DBAPIError, OSError):
                await _close(holder.connection)
                holder = await _lock_again(engine, folders, name, holder)
                committed.set()  # the notification may have been lost
            await asyncio.sleep(NOTIFY_INTERVAL)
    finally:
        if committed.is_set():
            with suppress(SQLAlchemyError, OSError):
                async with asyncio.timeout(_LAST_NOTIFY_LIMIT):
                    await holder.connection.execute(_NOTIFY, {"payload": payload})
        await _close(holder.connection)


async def _lock_again(engine: AsyncEngine, folders: list[FolderKey], name: str, before: _Holder) -> _Holder:
    backoff = Backoff(FIRST_RETRY, LAST_RETRY)
    while True:
        try:
            return await _lock_all(engine, folders, name, before)
        except (DBAPIError, OSError, UnreachableError):
            await asyncio.sleep(next(backoff))


async def _lock_all(engine: AsyncEngine, folders: list[FolderKey], name: str, before: _Holder | None) -> _Holder:
    """Take every lock; the server may not know yet that `before`, the previous holder, has lost its connection."""
    connection = await engine.connect()
    try:
        holder = await _identify(connection, name)
        if not await _lock_at_once(holder, folders):
            await _lock_catalogue(holder, exclusive=False)
            for folder in folders:
                for above in _above(folder):
                    await _lock(holder, _LOCK_SHARED, above, before)
                await _lock(holder, _LOCK, folder, before)
    except BaseException:
        await _close(connection)
        raise
    return holder


async def _identify(connection: AsyncConnection, name: str) -> _Holder:
    """Give a connection its name in the server."""
    _name, schema, pid, start = (await connection.execute(_IDENTIFY, {"name": name})).one()
    return _Holder(connection, schema or "", pid, start)


async def _lock_catalogue(holder: _Holder, *, exclusive: bool) -> None:
    key, is_logged = _key(holder.schema), False
    while not await holder.connection.scalar(_LOCK if exclusive else _LOCK_SHARED, {"key": key}):
        others = await _others(holder, key)
        if exclusive and (writing := [str(_writer(row)) for row in others if row.mode != _EXCLUSIVE]):
            raise LockHeldError(f"the catalogue is being written by {'; '.join(writing)}: stop that first")
        if others and not is_logged:
            logger.warning("waiting for %s", _writer(others[0]))
            is_logged = True
        await asyncio.sleep(LOCK_RETRY)


async def _lock_at_once(holder: _Holder, folders: Iterable[FolderKey]) -> bool:
    """Take every free lock in one round trip; return whether all were free. Taking a lock again does no harm."""
    above = {above for folder in folders for above in _above(folder)}
    shared = [_key(holder.schema), *(_key(holder.schema, *folder) for folder in above)]
    exclusive = [_key(holder.schema, *folder) for folder in folders]
    keys = {"shared": ",".join(map(str, shared)), "exclusive": ",".join(map(str, exclusive))}
    return bool(await holder.connection.scalar(_LOCK_ALL, keys))


async def _lock(holder: _Holder, lock: TextClause, folder: FolderKey, before: _Holder | None) -> None:
    key = _key(holder.schema, *folder)
    while not await holder.connection.scalar(lock, {"key": key}):
        other = next(iter(await _others(holder, key)), None)
        if other is None:
            continue  # it has just been released
        if before is None or (other.pid, other.backend_start) != (before.pid, before.start):
            what = folder.path if other.mode == _EXCLUSIVE else f"a folder in {folder.path}"
            raise LockHeldError(f"{what} is being watched by {_writer(other)}: stop it first, or let it do the work")
        await holder.connection.execute(_TERMINATE, {"pid": other.pid})
        await asyncio.sleep(LOCK_RETRY)


def _above(folder: FolderKey) -> list[FolderKey]:
    """Return the folders that contain a folder, the outermost first."""
    names = folder.path.split("/")[:-1]
    above = ["/".join(names[:count]) or "/" for count in range(1, len(names) + 1)]
    return [FolderKey(folder.node, path) for path in above if path != folder.path]


async def _others(holder: _Holder, key: int) -> list[Row[Any]]:
    return [row for row in await holder.connection.execute(_HELD_LOCKS) if row.key == key]


async def _close(connection: AsyncConnection) -> None:
    """Close a connection in any state, and release its locks."""
    if not connection.closed:
        with suppress(SQLAlchemyError, OSError):
            await connection.invalidate()
        await connection.close()


def _writer(row: Row[Any]) -> Writer:
    return Writer(row.name, row.address, row.backend_start)


def _key(*parts: str) -> int:
    """Return the key of a lock: that of the catalogue in a schema, or of a folder in it, by machine and path."""
    joined = "\0".join(("soulspot", *parts)).encode(errors="surrogateescape")
    return int.from_bytes(hashlib.blake2b(joined, digest_size=8).digest(), signed=True)
