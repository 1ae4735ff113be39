"""PostgreSQL in few round trips: what one file writes is gathered, and sent as one statement.

The network sets the pace here, not the statements. A new file's rows (artists, album, track, credits, file, audit
entries) and the changes of a known one depend on nothing that the database would have to answer first, so they wait in
the session and go out together when something has to be read after them, or with the commit. Where they are all that
there is to write, that one statement is the transaction, and needs no BEGIN and no COMMIT around it. A read does not
begin a transaction either: at READ COMMITTED each statement sees what was committed before it, with a BEGIN or without.
"""

import asyncio
import hashlib
import socket
import struct
import time
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final

import asyncpg
import msgspec
from sqlalchemy import URL, Executable, Insert, NullPool, Result, Select, Table, Update, event
from sqlalchemy.engine import IteratorResult
from sqlalchemy.engine.result import SimpleResultMetaData
from sqlalchemy.exc import DBAPIError, DisconnectionError, IntegrityError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, AsyncSession, async_sessionmaker, create_async_engine

from soulspot.errors import UnreachableError
from soulspot.infrastructure.persistence.database import LOCKS

CONNECT_LIMIT: Final = 10.0
"""Seconds that the server has to take a connection in."""
ANSWER_LIMIT: Final = 60.0
"""Seconds that it has to answer a statement in."""
LINK_LIMIT: Final = 20
"""Seconds without a sign of life after which either side takes the network for cut."""

READERS: Final = 4
"""Connections that only read."""
NEARBY: Final = 4
"""Connections that keep a server busy that is not far away; each millisecond of a round trip asks for one more."""

# Sooner or later than LINK_LIMIT by as much as the last probe takes: what was sent and not confirmed, and silence.
_LINK_OPTIONS: Final = {
    getattr(socket, name): value
    for name, value in (
        ("TCP_USER_TIMEOUT", LINK_LIMIT * 1000),
        ("TCP_KEEPIDLE", LINK_LIMIT // 2),
        ("TCP_KEEPINTVL", LINK_LIMIT // 4),
        ("TCP_KEEPCNT", 2),
    )
    if hasattr(socket, name)
}
# The same for the server, which would hold the locks of somebody who is gone for two hours.
_LINK_SETTINGS: Final = {
    "tcp_user_timeout": f"{LINK_LIMIT}s",
    "tcp_keepalives_idle": f"{LINK_LIMIT // 2}",
    "tcp_keepalives_interval": f"{LINK_LIMIT // 4}",
    "tcp_keepalives_count": "2",
    "idle_in_transaction_session_timeout": f"{ANSWER_LIMIT:.0f}s",
}

# The last is what the driver raises when the server ended a connection while a statement was being prepared.
_CUT_OFF: Final = (OSError, asyncpg.InterfaceError, asyncpg.InternalClientError)

# A broken connection, a server that ends, and one that is not the primary any more.
_NO_USE: Final = ("08", "57P", "25006")

_NO_ROWS: Result[Any] = IteratorResult(SimpleResultMetaData([]), iter(()))


class _Connection(asyncpg.Connection):  # type: ignore[misc]  # the driver ships no types
    """One that is lost when the network is cut: by itself, TCP would wait for a quarter of an hour, or for ever."""

    def __init__(self, protocol: Any, transport: asyncio.Transport, *more: Any) -> None:  # noqa: ANN401 - the driver's
        super().__init__(protocol, transport, *more)
        line = transport.get_extra_info("socket")
        if line.family != socket.AF_UNIX:
            line.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            for option, value in _LINK_OPTIONS.items():
                line.setsockopt(socket.IPPROTO_TCP, option, value)


async def connect(*arguments: Any, **options: Any) -> asyncpg.Connection:  # noqa: ANN401 - the driver's own
    """Connect; raises UnreachableError that says why the server cannot be had, whatever the reason."""
    try:
        return await asyncpg.connect(*arguments, connection_class=_Connection, **options)
    except (asyncpg.PostgresError, *_CUT_OFF) as error:  # the last of these where no host is the primary server
        why = "it does not answer" if isinstance(error, TimeoutError) else str(error) or type(error).__name__
        raise UnreachableError(why) from error


class PostgresSession(AsyncSession):
    """The session of the transactions on one connection, one after the other; whoever begins one ends it.

    Gathered are inserts of whole rows, a plain `insert(table)` with its values beside it, and changes of one row, an
    `update(table)` with the row's `its_id` and each column's `new_…` beside it. Whatever else is run finds what was
    gathered before it in the database. What is gathered has no order among itself, so a change is alone in its table.
    """

    def __init__(self, connection: AsyncConnection, driver: asyncpg.Connection) -> None:
        super().__init__(connection, expire_on_commit=False, join_transaction_mode="rollback_only")
        self._on_connection = connection
        self._driver = driver
        self._has_begun = False
        self._gathered: dict[Table, list[Mapping[str, Any]]] = {}
        self._changes: dict[Table, Mapping[str, Any]] = {}

    async def execute(self, statement: Executable, params: Any = None, **options: Any) -> Result[Any]:  # noqa: ANN401 - the base class's signature
        if isinstance(statement, Insert) and params:
            assert isinstance(statement.table, Table)
            if statement.table in self._changes:
                await self._before(is_read=False)
            rows = params if isinstance(params, list) else [params]
            self._gathered.setdefault(statement.table, []).extend(rows)
            return _NO_ROWS
        if isinstance(statement, Update) and isinstance(params, Mapping) and "its_id" in params:
            assert isinstance(statement.table, Table)
            if statement.table in self._gathered or statement.table in self._changes:
                await self._before(is_read=False)
            self._changes[statement.table] = params
            return _NO_ROWS
        await self._before(is_read=_is_read(statement))
        return await super().execute(statement, params, **options)

    async def scalar(self, statement: Executable, *arguments: Any, **options: Any) -> Any:  # noqa: ANN401 - as above
        await self._before(is_read=_is_read(statement))
        return await super().scalar(statement, *arguments, **options)

    async def scalars(self, statement: Executable, *arguments: Any, **options: Any) -> Any:  # noqa: ANN401 - as above
        await self._before(is_read=_is_read(statement))
        return await super().scalars(statement, *arguments, **options)

    async def get(self, *arguments: Any, **options: Any) -> Any:  # noqa: ANN401 - as above
        await self._before(is_read=not options.get("with_for_update"))
        return await super().get(*arguments, **options)

    async def flush(self, objects: Sequence[Any] | None = None) -> None:
        await self._before(is_read=False)
        await super().flush(objects)

    async def connection(self, *arguments: Any, **options: Any) -> AsyncConnection:  # noqa: ANN401 - as above
        await self._before(is_read=False)
        return await super().connection(*arguments, **options)

    async def reserve(self, names: Iterable[str]) -> None:
        """Have whoever reserves one of these names wait until this transaction ends; all in one order, in one trip."""
        locks = ", ".join(f"pg_advisory_xact_lock({high}, {low})" for high, low in sorted(set(map(_halves, names))))
        begin, self._has_begun = "" if self._has_begun else "BEGIN; ", True
        await self._run(f"{begin}SELECT {locks}")

    async def end(self) -> None:
        """Commit."""
        if self.sync_session.new or self.sync_session.dirty or self.sync_session.deleted:
            await self.flush()
        if not self._has_begun:
            await self._send()
        elif parts := self._taken():
            values = map(_quoted, parts.values())
            await self._run(f"{_one_statement(parts, values)}; COMMIT")  # two statements in one trip are told no values
        else:
            await self._run("COMMIT")
        self._has_begun = False
        await self._forget()

    async def undo(self, error: BaseException) -> None:
        """Roll back; where the connection broke, or something was cut short on it, give it up instead."""
        self._gathered.clear()
        self._changes.clear()
        if _is_lost(error):
            self._driver.terminate()
        elif self._has_begun:
            try:
                await self._run("ROLLBACK")
            except DBAPIError:
                self._driver.terminate()
        self._has_begun = False
        await self._forget()

    async def milliseconds_away(self) -> float:
        """Return what a round trip to the server takes, the best of three."""
        trips = []
        for _trip in range(3):
            began = time.perf_counter()
            await self._run("SELECT 1")
            trips.append(time.perf_counter() - began)
        return min(trips) * 1000

    @property
    def is_lost(self) -> bool:
        return bool(self._driver.is_closed())

    async def aclose(self) -> None:
        """Close the connection too."""
        if self.is_lost:
            await self._on_connection.invalidate()
        await self._on_connection.close()

    async def _before(self, *, is_read: bool) -> None:
        if (self._gathered or self._changes or not is_read) and not self._has_begun:
            await self._run("BEGIN")
            self._has_begun = True
        await self._send()

    async def _send(self) -> None:
        if parts := self._taken():
            places = [f"${number}" for number in range(1, len(parts) + 1)]
            await self._run(_one_statement(parts, places), *parts.values())

    def _taken(self) -> dict[str, str]:
        """Take what was gathered: the parts of a statement, and the value of each, as JSON.

        In JSON a part is the same however many rows there are, so the server plans it once. Rows of one table that
        others may insert too are in one order: two watchers that insert the same wait for each other, and never both.
        """
        parts = {_change_of(table, values): to_json(_row_of(values)) for table, values in self._changes.items()}
        for table, rows in self._gathered.items():
            ordered = sorted(rows, key=_order) if len(rows) > 1 and "name_key" in rows[0] else rows
            parts[_insert_into(table, rows)] = to_json(ordered)
        self._gathered, self._changes = {}, {}
        return parts

    async def _run(self, statement: str, *parameters: str) -> None:
        """Run a statement on the driver itself: no pool, no cursor, no thread of control between."""
        try:
            await self._driver.execute(statement, *parameters)
        except asyncpg.IntegrityConstraintViolationError as error:
            raise IntegrityError(statement, None, error) from error
        except (asyncpg.PostgresError, *_CUT_OFF) as error:
            lost = isinstance(error, _CUT_OFF) or self._driver.is_closed()
            raise OperationalError(statement, None, error, connection_invalidated=lost) from error

    async def _forget(self) -> None:
        if self.sync_session.in_transaction():
            await self.close()


class Writers:
    """The connections that write, each with its session: as many as pay, at most so many, opened when they are needed.

    Nearby, few connections keep the server and this process busy, and more would be in each other's way. The further
    the server is, the longer each of them waits for an answer, and the more of them it takes.
    """

    def __init__(self, engine: AsyncEngine, limit: int) -> None:
        self.committed = asyncio.Event()
        self._engine = engine
        self._limit = limit
        self._allowed = min(limit, NEARBY)
        self._room = asyncio.Semaphore(self._allowed)
        self._idle: list[PostgresSession] = []
        event.listen(engine.sync_engine, "before_cursor_execute", _keep_nul_out, retval=True)

    @asynccontextmanager
    async def session(self) -> AsyncIterator[PostgresSession]:
        """Yield a session, and commit."""
        async with self._room:
            session = await self._take()
            try:
                yield session
                await session.end()
                self.committed.set()
            except BaseException as error:
                await session.undo(error)
                if isinstance(error, _CUT_OFF):
                    raise UnreachableError(str(error) or "it does not answer") from error
                raise
            finally:
                if session.is_lost:
                    await session.aclose()
                else:
                    self._idle.append(session)

    async def aclose(self) -> None:
        while self._idle:
            await self._idle.pop().aclose()

    async def _take(self) -> PostgresSession:
        while self._idle:
            session = self._idle.pop()
            if not session.is_lost:
                return session
            await session.aclose()
        connection = await self._engine.connect()
        driver = (await connection.get_raw_connection()).driver_connection
        assert driver is not None
        session = PostgresSession(connection, driver)
        try:
            self._make_room(await session.milliseconds_away())
        except BaseException:
            driver.terminate()
            await session.aclose()
            raise
        return session

    def _make_room(self, milliseconds: float) -> None:
        """Allow as many connections as a round trip of so many milliseconds asks for."""
        wanted = min(self._limit, NEARBY + int(milliseconds))
        while self._allowed < wanted:
            self._allowed += 1
            self._room.release()


def engines(url: URL, connections: int, **options: Any) -> tuple[AsyncEngine, AsyncEngine]:  # noqa: ANN401 - the engine's own
    """Return the engine of the connections that write, and of those that the server lets do nothing but read."""
    options |= {"isolation_level": "AUTOCOMMIT", "max_overflow": 0, "pool_timeout": ANSWER_LIMIT}
    reading = _arguments(default_transaction_read_only="on")
    readers = create_async_engine(url, pool_size=READERS, connect_args=reading, **options)
    event.listen(readers.sync_engine, "checkout", _refuse_lost)
    event.listen(readers.sync_engine, "before_cursor_execute", _keep_nul_out, retval=True)
    return create_async_engine(url, pool_size=connections, connect_args=_arguments(), **options), readers


def unpooled(url: URL, *, answer_limit: float | None = ANSWER_LIMIT) -> AsyncEngine:
    """Return an engine whose connections are closed when they are let go; a statement may take so many seconds."""
    arguments = _arguments() | {"command_timeout": answer_limit}
    return create_async_engine(url, poolclass=NullPool, isolation_level="AUTOCOMMIT", connect_args=arguments)


@asynccontextmanager
async def reading(sessions: async_sessionmaker[AsyncSession]) -> AsyncIterator[AsyncSession]:
    """Yield a session that only reads; raises UnreachableError when no connection is to be had, or none answers."""
    try:
        async with sessions() as session:
            yield session
    except (PoolTimeoutError, *_CUT_OFF) as error:
        raise UnreachableError(str(error) or "it does not answer") from error


def _arguments(**server_settings: str) -> dict[str, Any]:
    return {
        "async_creator_fn": connect,
        "timeout": CONNECT_LIMIT,
        "command_timeout": ANSWER_LIMIT,
        "server_settings": {
            "application_name": "soulspot",
            "standard_conforming_strings": "on",
            **_LINK_SETTINGS,
            **server_settings,
        },
    }


def _refuse_lost(connection: Any, *_more: object) -> None:  # noqa: ANN401 - SQLAlchemy's event
    """Have the pool open another connection: the driver knows of one that was closed, and need not ask the server."""
    if connection.driver_connection.is_closed():
        raise DisconnectionError


def _is_read(statement: Executable) -> bool:
    return isinstance(statement, Select) and not statement.get_execution_options().get(LOCKS)


def _is_lost(error: BaseException) -> bool:
    """Whether nobody knows what a connection would answer next: it broke, or a statement on it was cut short."""
    if not isinstance(error, Exception) or isinstance(error, _CUT_OFF):
        return True
    state = getattr(getattr(error, "orig", None), "sqlstate", None) or ""
    return isinstance(error, DBAPIError) and (error.connection_invalidated or state.startswith(_NO_USE))


def _keep_nul_out(*occasion: Any, **_more: Any) -> tuple[str, Any]:  # noqa: ANN401 - SQLAlchemy's event
    _connection, _cursor, statement, parameters, *_rest = occasion
    return statement, tuple(without_nul(list(parameters)))


def without_nul(value: Any) -> Any:  # noqa: ANN401 - whatever JSON can hold
    """Return a value in which no text holds NUL, which PostgreSQL refuses in every text."""
    if isinstance(value, str):
        return value.replace("\0", "\ufffd")
    if isinstance(value, Mapping):
        return {without_nul(key): without_nul(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [without_nul(each) for each in value]
    return value


def to_json(value: object) -> str:
    text = msgspec.json.encode(value).decode()
    return text if r"\u0000" not in text else msgspec.json.encode(without_nul(value)).decode()


def _insert_into(table: Table, rows: list[Mapping[str, Any]]) -> str:
    """Return the part of a statement that inserts rows; `{}` stands for their JSON."""
    if any(row.keys() != rows[0].keys() for row in rows):
        msg = f"the rows of {table.name} have different columns"
        raise ValueError(msg)
    names = ", ".join(f'"{name}"' for name in rows[0])
    source = f"json_populate_recordset(NULL::{table.name}, {{}}::json)"
    return f"INSERT INTO {table.name} ({names}) SELECT {names} FROM {source}"  # noqa: S608 - our own names


def _change_of(table: Table, values: Mapping[str, Any]) -> str:
    """Return the part that changes one row; `{}` stands for the JSON of `_row_of` the same values."""
    names = [name.removeprefix("new_") for name in values if name != "its_id"]
    changes = ", ".join(f'"{name}" = new."{name}"' for name in names)
    source = f"json_populate_record(NULL::{table.name}, {{}}::json) AS new"
    return f"UPDATE {table.name} SET {changes} FROM {source} WHERE {table.name}.id = new.id"  # noqa: S608 - as above


def _row_of(values: Mapping[str, Any]) -> dict[str, Any]:
    return {"id" if name == "its_id" else name.removeprefix("new_"): value for name, value in values.items()}


def _one_statement(parts: Iterable[str], values: Iterable[str]) -> str:
    """Return the parts as one statement, at whose end foreign keys are checked."""
    *others, last = (part.replace("{}", value, 1) for part, value in zip(parts, values, strict=True))
    return (
        f"WITH {', '.join(f'_{number} AS ({part})' for number, part in enumerate(others))} {last}" if others else last
    )


def _quoted(value: str) -> str:
    """Return a text as SQL has it where standard_conforming_strings is on, as on every connection of ours."""
    return "'" + value.replace("'", "''") + "'"


def _halves(name: str) -> tuple[int, int]:
    """Return the two numbers of a name's lock, which are no lock of `owner.py`: those are one number each."""
    high, low = struct.unpack("!ii", hashlib.blake2b(name.encode(errors="replace"), digest_size=8).digest())
    return high, low


def _order(row: Mapping[str, Any]) -> tuple[str, str]:
    return row["name_key"], row["musicbrainz_id"] or ""
