"""Who writes a catalogue that several share on PostgreSQL: locks in the server, held for the life of the process.

Each writer holds the catalogue's lock, together with all others, and that of each of its folders, alone; those of the
folders above it together with its neighbours, so that nobody watches one folder through another. A folder belongs to
the machine that sees it, so its lock is of both. Whoever changes the schema holds the catalogue's lock alone: who comes
then waits, and who is there already is named. A lock is of a schema: one database may have several catalogues.

The locks are held by a connection of its own and not by a row, so that they go with the process, however that ends. A
connection that is lost takes them along; they are taken again as soon as the server is back, and when somebody else
was faster, this process ends. A connection that only we know to be lost holds them still: the server is told to end it.

The same connection notifies of commits (`notifications.py`): it has nothing else to do.
"""

import asyncio
import hashlib
import json
import logging
import os
from collections import defaultdict
from collections.abc import AsyncIterator, Collection, Iterable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
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

LOOK_EVERY: Final = 5.0
"""Seconds between two looks at whether the locks are still held."""
WAIT_EVERY: Final = 0.2
"""Seconds between two tries to take a lock that will be free soon."""
FIRST_RETRY: Final = 0.25
LAST_RETRY: Final = 1.0
"""Seconds between two tries to take the locks again: doubling from the first to the last."""
_TELL_AT_END: Final = 1.0

_NAME_LENGTH: Final = 63
_ALONE: Final = "ExclusiveLock"

_INTRODUCE: Final = text("""
    SELECT set_config('application_name', :name, false), current_schema(), pid, backend_start
    FROM pg_stat_activity WHERE pid = pg_backend_pid()
""")
_TAKE: Final = text("SELECT pg_try_advisory_lock(CAST(:key AS bigint))")
_SHARE: Final = text("SELECT pg_try_advisory_lock_shared(CAST(:key AS bigint))")
_TAKE_ALL: Final = text("""
    SELECT (SELECT bool_and(pg_try_advisory_lock_shared(key::bigint)) FROM unnest(string_to_array(:shared, ',')) AS key)
        AND (SELECT bool_and(pg_try_advisory_lock(key::bigint)) FROM unnest(string_to_array(:alone, ',')) AS key)
""")
_HELD: Final = text("""
    SELECT (l.classid::bigint << 32) | l.objid::bigint AS key, l.mode, current_schema() AS schema,
        a.pid, a.backend_start, a.application_name AS name, host(a.client_addr) AS address
    FROM pg_locks l JOIN pg_stat_activity a USING (pid)
    WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 1
    AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
    ORDER BY a.backend_start, a.pid
""")
_END: Final = text("SELECT pg_terminate_backend(:pid)")
_TELL: Final = text(f"SELECT pg_notify({CHANNEL}, :said)")


class _Backend(NamedTuple):
    """The server's side of a connection."""

    pid: int
    start: datetime


@dataclass(frozen=True, slots=True)
class _Held:
    """A connection that holds locks."""

    connection: AsyncConnection
    backend: _Backend


@asynccontextmanager
async def lock_folders(
    engine: AsyncEngine, places: Iterable[FolderKey], name: str, said: Mapping[str, str], committed: asyncio.Event
) -> AsyncIterator[None]:
    """Be the only process that writes what is in these folders, and tell others when something was committed.

    Raises LockHeldError that names the holder, at once or, in the task that entered, when the lock was lost to another.
    """
    wanted = sorted(places)
    try:
        held = await _take_all(engine, wanted, name, None)
    except DBAPIError as error:
        if not is_environment_fault(error):
            raise
        raise UnreachableError(str(error.orig)) from error
    owner, turn = asyncio.current_task(), asyncio.Lock()
    assert owner is not None

    def end(task: asyncio.Task[None]) -> None:
        if not task.cancelled():
            owner.cancel()

    keeping = asyncio.create_task(
        _keep(engine, held, wanted, name, json.dumps(said), committed, turn), name="keep the locks of the folders"
    )
    keeping.add_done_callback(end)
    await asyncio.sleep(0)  # from when it runs on, it closes what it holds, however it ends
    try:
        yield
    except asyncio.CancelledError:
        if keeping.done() and not keeping.cancelled() and (lost := keeping.exception()) is not None:
            owner.uncancel()
            raise lost from None
        raise
    finally:
        keeping.remove_done_callback(end)
        await _end(keeping, turn)


async def _end(keeping: asyncio.Task[None], turn: asyncio.Lock) -> None:
    """End the keeping of locks between two statements: one that is cut short would cost the last notification."""
    with suppress(TimeoutError):
        async with asyncio.timeout(_TELL_AT_END), turn:
            keeping.cancel()
    keeping.cancel()
    await asyncio.wait([keeping])


@asynccontextmanager
async def lock_catalogue(engine: AsyncEngine, name: str) -> AsyncIterator[None]:
    """Be the only one that writes the catalogue; waits for another that is, and raises LockHeldError naming writers."""
    connection = await engine.connect()
    try:
        schema, _backend = await _introduce(connection, name)
        await _take_catalogue(connection, schema, alone=True)
        yield
    finally:
        await _close(connection)


async def writers(session: AsyncSession, places: Collection[FolderKey]) -> list[Writer]:
    """Return who writes the catalogue, those first that came first, each with those of these folders that it has."""
    rows = (await session.execute(_HELD)).all()
    schema = rows[0].schema if rows else ""
    catalogue, by_key = _catalogue_key(schema), {_place_key(schema, place): place for place in places}
    found = {row.pid: _writer(row) for row in rows if row.key == catalogue}
    owned: dict[int, list[FolderKey]] = defaultdict(list)
    for row in rows:
        if row.key in by_key and row.mode == _ALONE:
            owned[row.pid].append(by_key[row.key])
    return [replace(writer, folders=tuple(sorted(owned[pid]))) for pid, writer in found.items()]


def name_of(command: str, node: str) -> str:
    """Return what a process is called in the server; a long name of a machine is cut, never the pid."""
    return f"soulspot {command} (pid {os.getpid()}) on {node}".encode("ascii", "replace").decode()[:_NAME_LENGTH]


async def _keep(  # noqa: PLR0913, PLR0917 - what `lock_folders` has
    engine: AsyncEngine,
    held: _Held,
    places: list[FolderKey],
    name: str,
    said: str,
    committed: asyncio.Event,
    turn: asyncio.Lock,
) -> None:
    """Hold the locks, and tell of commits, until cancelled; raises LockHeldError when one went to another."""
    try:
        while True:
            has_news = await _until_set(committed, LOOK_EVERY)
            try:
                async with turn:
                    if has_news:
                        committed.clear()
                        await held.connection.execute(_TELL, {"said": said})
                    else:
                        await held.connection.execute(text("SELECT 1"))
            except (DBAPIError, OSError):
                await _close(held.connection)
                held = await _take_again(engine, places, name, held.backend)
                committed.set()  # whatever was not told
            await asyncio.sleep(NOTIFY_INTERVAL)
    finally:
        if committed.is_set():
            with suppress(SQLAlchemyError, OSError):
                async with asyncio.timeout(_TELL_AT_END):
                    await held.connection.execute(_TELL, {"said": said})
        await _close(held.connection)


async def _until_set(event: asyncio.Event, seconds: float) -> bool:
    try:
        async with asyncio.timeout(seconds):
            return await event.wait()
    except TimeoutError:
        return False


async def _take_again(engine: AsyncEngine, places: list[FolderKey], name: str, before: _Backend) -> _Held:
    backoff = Backoff(FIRST_RETRY, LAST_RETRY)
    while True:
        try:
            return await _take_all(engine, places, name, before)
        except (DBAPIError, OSError, UnreachableError):
            await asyncio.sleep(next(backoff))


async def _take_all(engine: AsyncEngine, places: list[FolderKey], name: str, before: _Backend | None) -> _Held:
    """Take every lock; `before` is the connection that had them, which may not have ended for the server yet."""
    connection = await engine.connect()
    try:
        schema, backend = await _introduce(connection, name)
        if not await _take_at_once(connection, schema, places):
            await _take_catalogue(connection, schema, alone=False)
            for place in places:
                await _take_place(connection, schema, place, before)
    except BaseException:
        await _close(connection)
        raise
    return _Held(connection, backend)


async def _introduce(connection: AsyncConnection, name: str) -> tuple[str, _Backend]:
    _name, schema, pid, start = (await connection.execute(_INTRODUCE, {"name": name})).one()
    return schema or "", _Backend(pid, start)


async def _take_catalogue(connection: AsyncConnection, schema: str, *, alone: bool) -> None:
    key, is_said = _catalogue_key(schema), False
    while not await connection.scalar(_TAKE if alone else _SHARE, {"key": key}):
        holders = await _holders(connection, key)
        if alone and (writing := [str(_writer(row)) for row in holders if row.mode != _ALONE]):
            msg = f"the catalogue is being written by {'; '.join(writing)}: stop that first"
            raise LockHeldError(msg)
        if holders and not is_said:
            logger.warning("waiting for %s", _writer(holders[0]))
            is_said = True
        await asyncio.sleep(WAIT_EVERY)


async def _take_at_once(connection: AsyncConnection, schema: str, places: Iterable[FolderKey]) -> bool:
    """Take every lock that is free, in one round trip; return whether all were. One may be taken more than once."""
    above = {above for place in places for above in _above(place)}
    shared = [_catalogue_key(schema), *(_place_key(schema, place) for place in above)]
    alone = [_place_key(schema, place) for place in places]
    keys = {"shared": ",".join(map(str, shared)), "alone": ",".join(map(str, alone))}
    return bool(await connection.scalar(_TAKE_ALL, keys))


async def _take_place(connection: AsyncConnection, schema: str, place: FolderKey, before: _Backend | None) -> None:
    """Take the lock of a folder alone, and those of the folders that it lies in together with its neighbours."""
    for above in _above(place):
        await _take(connection, _SHARE, schema, above, before)
    await _take(connection, _TAKE, schema, place, before)


async def _take(
    connection: AsyncConnection, how: TextClause, schema: str, place: FolderKey, before: _Backend | None
) -> None:
    key = _place_key(schema, place)
    while not await connection.scalar(how, {"key": key}):
        holder = next(iter(await _holders(connection, key)), None)
        if holder is None:
            continue  # it has just gone
        if before is not None and (holder.pid, holder.backend_start) == before:
            await connection.execute(_END, {"pid": holder.pid})
            await asyncio.sleep(WAIT_EVERY)
            continue
        what = place.path if holder.mode == _ALONE else f"a folder in {place.path}"
        msg = f"{what} is being watched by {_writer(holder)}: stop it first, or let it do the work"
        raise LockHeldError(msg)


def _above(place: FolderKey) -> list[FolderKey]:
    """Return the folders that a folder lies in, the outermost first."""
    names = place.path.split("/")[:-1]
    above = ["/".join(names[:count]) or "/" for count in range(1, len(names) + 1)]
    return [FolderKey(place.node, path) for path in above if path != place.path]


async def _holders(connection: AsyncConnection, key: int) -> list[Row[Any]]:
    return [row for row in await connection.execute(_HELD) if row.key == key]


async def _close(connection: AsyncConnection) -> None:
    """Close a connection for good, and the locks with it, however it is."""
    if not connection.closed:
        with suppress(SQLAlchemyError, OSError):
            await connection.invalidate()
        await connection.close()


def _writer(row: Row[Any]) -> Writer:
    return Writer(row.name, row.address, row.backend_start)


def _catalogue_key(schema: str) -> int:
    return _key(schema)


def _place_key(schema: str, place: FolderKey) -> int:
    return _key(schema, place.node, place.path)


def _key(*parts: str) -> int:
    joined = "\0".join(("soulspot", *parts))
    digest = hashlib.blake2b(joined.encode(errors="surrogateescape"), digest_size=8).digest()
    return int.from_bytes(digest, signed=True)
