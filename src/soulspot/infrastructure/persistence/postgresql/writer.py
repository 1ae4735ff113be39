"""Writes to PostgreSQL in few round trips: collects the changes of one file, and sends them as one statement.

The network limits the speed here, not the statements. A new file's rows (artists, album, track, credits, file, audit
entries) and the changes of a known one need no answer from the database first, so they wait in the session and leave
together before the next read or with the commit. If that one statement is the whole transaction, it needs no BEGIN and
no COMMIT around it. A read does not begin a transaction either: at READ COMMITTED each statement sees what was
committed before it, with a BEGIN or without.
"""

import asyncio
import hashlib
import logging
import struct
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from functools import lru_cache
from typing import Any, Final

import asyncpg
from sqlalchemy import Executable, Result, Select, Table, event
from sqlalchemy.exc import DBAPIError, IntegrityError, OperationalError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from soulspot.errors import UnreachableError
from soulspot.infrastructure.persistence.faults import sqlstate
from soulspot.infrastructure.persistence.postgresql.engine import CUT_OFF, NO_ANSWER, replace_nul, to_json
from soulspot.infrastructure.persistence.row_changes import Row, RowUpdate, WriterSession
from soulspot.infrastructure.persistence.statements import LOCKS

logger = logging.getLogger(__name__)

RETRY_CONNECT_SECONDS: Final = 30.0
"""Seconds to wait before connecting again to a server that refused a connection."""
CLOSE_LIMIT: Final = 2.0
"""Timeout for closing a connection, in seconds."""
MIN_CONNECTIONS: Final = 4
"""Connections that keep a nearby server busy; each millisecond of a round trip adds three."""

# The connection broke, the server is shutting down, or it is not the primary any more.
_UNUSABLE: Final = ("08", "57P", "25006")


class PostgresSession(WriterSession):
    """The session of the transactions on one connection, one after the other; `WriterPool` begins and ends them.

    `insert_rows` and `update_row` only collect changes; the next statement sends them first, so it sees them. Collected
    changes have no order, so an update is the only change of its table.
    """

    def __init__(self, connection: AsyncConnection, driver: asyncpg.Connection) -> None:
        super().__init__(connection, expire_on_commit=False, join_transaction_mode="rollback_only")
        self._on_connection = connection
        self._driver = driver
        self._has_begun = False
        self._inserts: dict[Table, list[Row]] = {}
        self._updates: dict[Table, RowUpdate] = {}

    async def insert_rows(self, table: Table, rows: Sequence[Row]) -> None:
        if table in self._updates:
            await self._send_first(is_read=False)
        self._inserts.setdefault(table, []).extend(rows)

    async def update_row(self, change: RowUpdate) -> None:
        if change.table in self._inserts or change.table in self._updates:
            await self._send_first(is_read=False)
        self._updates[change.table] = change

    # AsyncSession.scalars calls `execute`.
    async def execute(self, statement: Executable, params: Any = None, **options: Any) -> Result[Any]:  # noqa: ANN401 - the base class's signature
        await self._send_first(is_read=_is_read(statement))
        return await super().execute(statement, params, **options)

    async def scalar(self, statement: Executable, params: Any = None, **options: Any) -> Any:  # noqa: ANN401 - as above
        return (await self.execute(statement, params, **options)).scalar()

    async def stream(self, statement: Executable, *arguments: Any, **options: Any) -> Any:  # noqa: ANN401 - as above
        await self._send_first(is_read=_is_read(statement))
        return await super().stream(statement, *arguments, **options)

    async def get(self, *arguments: Any, **options: Any) -> Any:  # noqa: ANN401 - as above
        await self._send_first(is_read=not options.get("with_for_update"))
        return await super().get(*arguments, **options)

    async def flush(self, objects: Sequence[Any] | None = None) -> None:
        await self._send_first(is_read=False)
        await super().flush(objects)

    async def connection(self, *arguments: Any, **options: Any) -> AsyncConnection:  # noqa: ANN401 - as above
        await self._send_first(is_read=False)
        return await super().connection(*arguments, **options)

    async def reserve(self, names: Iterable[str]) -> None:
        """Lock these names until the transaction ends: sorted, against deadlocks, and in one round trip."""
        locks = ", ".join(f"pg_advisory_xact_lock({high}, {low})" for high, low in sorted(set(map(_halves, names))))
        begin, self._has_begun = "" if self._has_begun else "BEGIN; ", True
        await self._run(f"{begin}SELECT {locks}")

    async def commit(self) -> None:
        if self.sync_session.new or self.sync_session.dirty or self.sync_session.deleted:
            await self.flush()
        if not self._has_begun:
            await self._send()
        elif parts := self._take_parts():
            values = map(_quoted, parts.values())  # a round trip of two statements takes no parameters
            await self._run(f"{_one_statement(parts, values)}; COMMIT")
        else:
            await self._run("COMMIT")
        await self._end()

    async def rollback(self, error: BaseException | None = None) -> None:
        """Roll back, or close the connection if an error broke it or interrupted a statement on it."""
        self._inserts.clear()
        self._updates.clear()
        if error is not None and _is_lost(error):
            self._driver.terminate()
        elif self._has_begun:
            try:
                await self._run("ROLLBACK")
            except BaseException as failed:
                self._driver.terminate()  # and the server rolls back
                if not isinstance(failed, DBAPIError):
                    raise
        await self._end()

    async def round_trip_ms(self) -> float:
        """Measure a round trip to the server, in milliseconds."""
        began = time.perf_counter()
        await self._run("SELECT 1")
        return (time.perf_counter() - began) * 1000

    @property
    def is_lost(self) -> bool:
        return bool(self._driver.is_closed())

    async def aclose(self) -> None:
        """Close the connection too."""
        with suppress(asyncpg.PostgresError, *CUT_OFF):
            await self._driver.close(timeout=CLOSE_LIMIT)
        await self._on_connection.invalidate()
        await self._on_connection.close()

    async def _send_first(self, *, is_read: bool) -> None:
        if (self._inserts or self._updates or not is_read) and not self._has_begun:
            await self._run("BEGIN")
            self._has_begun = True
        await self._send()

    async def _send(self) -> None:
        if parts := self._take_parts():
            await self._run(_with_parameters(tuple(parts)), *parts.values())

    def _take_parts(self) -> dict[str, str]:
        """Take the collected changes, as the parts of a statement with the value of each, in JSON.

        In JSON a part is the same for any number of rows, so the server plans it once. Rows that others may insert too
        are sorted: of two watchers that insert the same rows, one waits for the other, and they never deadlock.
        """
        parts = {_update(each): to_json({**each.values, "id": each.id}) for each in self._updates.values()}
        for table, rows in self._inserts.items():
            ordered = sorted(rows, key=_order) if len(rows) > 1 and "name_key" in rows[0] else rows
            parts[_insert_into(table, rows)] = to_json(ordered)
        self._inserts, self._updates = {}, {}
        return parts

    async def _run(self, statement: str, *parameters: str) -> None:
        """Run a statement on the driver itself, without a pool, a cursor or a greenlet."""
        try:
            await self._driver.execute(statement, *parameters)
        except asyncpg.IntegrityConstraintViolationError as error:
            raise IntegrityError(statement, None, error) from error
        except (asyncpg.PostgresError, *CUT_OFF) as error:
            lost = isinstance(error, CUT_OFF) or self.is_lost
            raise OperationalError(statement, None, error, connection_invalidated=lost) from error

    async def _end(self) -> None:
        """Forget the transaction and its entities."""
        self._has_begun = False
        if self.sync_session.in_transaction():
            await self.close()


class WriterPool:
    """The connections that write, each with its session: opened on demand, as many as the distance pays for.

    Nearby, few connections keep the server and this process busy, and more would compete. The farther the server, the
    longer each connection waits for an answer, and the more of them are needed.
    """

    def __init__(self, engine: AsyncEngine, limit: int) -> None:
        self.committed = asyncio.Event()
        self._engine = engine
        self._limit = limit
        self._wanted = self._allowed = min(limit, MIN_CONNECTIONS)
        self._slots = asyncio.Semaphore(self._allowed)
        self._knows_distance = self._is_short = False
        self._open = 0  # including those being opened
        self._idle: list[PostgresSession] = []
        event.listen(engine.sync_engine, "before_cursor_execute", replace_nul, retval=True)

    async def aclose(self) -> None:
        await asyncio.gather(*(session.aclose() for session in self._idle))
        self._idle.clear()

    async def take(self) -> PostgresSession:
        """Wait for a free session and return it; `give_back` it."""
        while True:
            await self._slots.acquire()
            try:
                return await self._idle_or_new()
            except BaseException as error:
                if not self._can_continue_after(error):
                    self._slots.release()
                    raise

    async def give_back(self, session: PostgresSession) -> None:
        try:
            if session.is_lost:
                self._knows_distance = False  # the next connection may lead to another server
                await self._close(session)
            else:
                self._idle.append(session)
        finally:
            self._slots.release()

    async def _idle_or_new(self) -> PostgresSession:
        while self._idle:
            session = self._idle.pop()
            if not session.is_lost:
                return session
            await self._close(session)
        self._open += 1
        try:
            return await self._new()
        except BaseException:
            self._open -= 1
            raise

    async def _new(self) -> PostgresSession:
        connection = await self._engine.connect()
        driver = (await connection.get_raw_connection()).driver_connection
        assert driver is not None
        session = PostgresSession(connection, driver)
        if not self._knows_distance:
            try:
                round_trip_ms = min([await session.round_trip_ms() for _trip in range(3)])
            except BaseException:
                driver.terminate()
                await session.aclose()
                raise
            self._wanted = max(self._wanted, min(self._limit, MIN_CONNECTIONS + int(3 * round_trip_ms)))
            self._knows_distance, self._is_short = True, False
            self._add_slots()
        return session

    async def _close(self, session: PostgresSession) -> None:
        self._open -= 1
        await session.aclose()

    def _can_continue_after(self, error: BaseException) -> bool:
        """Whether the server only refuses more connections: drop one slot, and try again later."""
        if not (self._open and isinstance(error.__cause__, asyncpg.TooManyConnectionsError)):
            return False
        if not self._is_short:
            logger.warning("PostgreSQL refuses more connections, continuing with fewer: %s", error)
        self._is_short = True
        self._allowed -= 1
        asyncio.get_running_loop().call_later(RETRY_CONNECT_SECONDS, self._add_slots)
        return True

    def _add_slots(self) -> None:
        while self._allowed < self._wanted:
            self._allowed += 1
            self._slots.release()


class PooledTransaction:
    """One transaction on one of the connections that write; not a generator, as in `database.py`."""

    __slots__ = ("_session", "_writers")

    def __init__(self, writers: WriterPool) -> None:
        self._writers = writers

    async def __aenter__(self) -> PostgresSession:
        self._session = await self._writers.take()
        return self._session

    async def __aexit__(self, _kind: object, error: BaseException | None, _traceback: object) -> None:
        try:
            if error is not None:
                await self._roll_back(error)
            else:
                await self._commit()
        finally:
            await self._writers.give_back(self._session)

    async def _commit(self) -> None:
        try:
            await self._session.commit()
        except BaseException as error:
            await self._roll_back(error)
            raise
        self._writers.committed.set()

    async def _roll_back(self, error: BaseException) -> None:
        await self._session.rollback(error)
        if isinstance(error, CUT_OFF):
            raise UnreachableError(str(error) or NO_ANSWER) from error


def _is_read(statement: Executable) -> bool:
    return isinstance(statement, Select) and not statement.get_execution_options().get(LOCKS)


def _is_lost(error: BaseException) -> bool:
    """Whether the state of a connection is unknown: it broke, or a statement on it was interrupted."""
    if not isinstance(error, Exception) or isinstance(error, CUT_OFF):
        return True
    return isinstance(error, DBAPIError) and (error.connection_invalidated or sqlstate(error).startswith(_UNUSABLE))


def _insert_into(table: Table, rows: Sequence[Row]) -> str:
    """Return the part of a statement that inserts rows; `{}` stands for their JSON."""
    if any(row.keys() != rows[0].keys() for row in rows[1:]):
        raise ValueError(f"the rows of {table.name} have different columns")
    return _insert(table.name, tuple(rows[0]))


@lru_cache
def _insert(table: str, columns: tuple[str, ...]) -> str:
    names = ", ".join(f'"{name}"' for name in columns)
    source = f"json_populate_recordset(NULL::{table}, {{}}::json)"
    return f"INSERT INTO {table} ({names}) SELECT {names} FROM {source}"  # noqa: S608 - our own names


def _update(change: RowUpdate) -> str:
    """Return the part that updates one row; `{}` stands for the JSON of its id and its new values."""
    name = change.table.name
    changes = ", ".join(f'"{column}" = new."{column}"' for column in change.values)
    source = f"json_populate_record(NULL::{name}, {{}}::json) AS new"
    return f"UPDATE {name} SET {changes} FROM {source} WHERE {name}.id = new.id"  # noqa: S608 - as above


def _one_statement(parts: Iterable[str], values: Iterable[str]) -> str:
    """Join the parts into one statement, so that the server checks foreign keys at its end."""
    *others, last = (part.replace("{}", value, 1) for part, value in zip(parts, values, strict=True))
    first = ", ".join(f"_{number} AS ({part})" for number, part in enumerate(others))
    return f"WITH {first} {last}" if first else last


@lru_cache
def _with_parameters(parts: tuple[str, ...]) -> str:
    return _one_statement(parts, [f"${number}" for number in range(1, len(parts) + 1)])


def _quoted(value: str) -> str:
    """Return a string literal; every connection of soulspot has standard_conforming_strings on."""
    return "'" + value.replace("'", "''") + "'"


def _halves(name: str) -> tuple[int, int]:
    """Return the two numbers of a name's lock; `advisory_locks.py` uses locks of one number, which never collide."""
    high, low = struct.unpack("!ii", hashlib.blake2b(name.encode(errors="replace"), digest_size=8).digest())
    return high, low


def _order(row: Mapping[str, Any]) -> tuple[str, str]:
    return row["name_key"], row["musicbrainz_id"] or ""
