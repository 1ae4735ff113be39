"""The engine and the transactions: who begins one, who joins one, what a connection is set to.

A write is a visible block, and the repositories called inside it join it by themselves:

    async with database.transaction():
        track = await tracks.add(...)
        await audit.log_action("track_added", "track", track.id)

Outside a transaction a repository gets a session of its own that can only read. On SQLite there is one connection that
writes (a second would wait for the first anyway) and a few that read; every write transaction begins with BEGIN
IMMEDIATE, because one that starts by reading and then writes fails at once when another wrote meanwhile, however long
the busy timeout is.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Self

import msgspec
from sqlalchemy import URL, Connection, event, make_url
from sqlalchemy.exc import DBAPIError, OperationalError
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.pool import ConnectionPoolEntry

SessionFactory = Callable[[], AbstractAsyncContextManager[AsyncSession]]
"""What a repository is built with: yields the session of the transaction in progress, else one that only reads."""

BUSY_TIMEOUT_MS = 5_000
# What a person or time mends, and not the file: SQLite's names, and the classes of PostgreSQL's SQLSTATE.
_ENVIRONMENT_SQLITE = (
    "SQLITE_FULL",
    "SQLITE_BUSY",
    "SQLITE_LOCKED",
    "SQLITE_IOERR",
    "SQLITE_READONLY",
    "SQLITE_CANTOPEN",
)
_ENVIRONMENT_SQLSTATE = ("08", "40", "53", "55", "57")


@dataclass(frozen=True, slots=True)
class _Transaction:
    database: "Database"
    session: AsyncSession
    task: "asyncio.Task[Any] | None"


_in_progress: ContextVar[_Transaction | None] = ContextVar("soulspot_transaction", default=None)


class Database:
    """One database, open. Close it with `aclose`, or use it as an async context manager."""

    def __init__(self, url: str, *, synchronous: str = "NORMAL", read_only: bool = False) -> None:
        self.url: URL = make_url(url)
        options: dict[str, Any] = {"json_serializer": _to_json, "json_deserializer": msgspec.json.decode}
        if self.is_sqlite:
            self._writer = create_async_engine(self.url, pool_size=1, max_overflow=0, pool_timeout=None, **options)
            self._reader = create_async_engine(self.url, pool_size=2, max_overflow=4, **options)
            _set_up_sqlite(self._writer, ["journal_mode=WAL", f"synchronous={synchronous}"], "BEGIN IMMEDIATE")
            _set_up_sqlite(self._reader, ["query_only=ON"], "BEGIN")
        else:
            self._writer = create_async_engine(self.url, pool_size=4, max_overflow=4, pool_pre_ping=True, **options)
            self._reader = self._writer.execution_options(postgresql_readonly=True)
        self._read_only = read_only
        self._write_sessions = async_sessionmaker(self._writer, expire_on_commit=False)
        self._read_sessions = async_sessionmaker(self._reader, expire_on_commit=False)

    @property
    def is_sqlite(self) -> bool:
        return self.url.get_backend_name() == "sqlite"

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[AsyncSession]:
        """Commit what happens inside when it ends well, roll all of it back when it does not."""
        if self._read_only:
            msg = "this catalogue was opened for reading only"
            raise RuntimeError(msg)
        if (current := _in_progress.get()) is not None and current.database is self:
            msg = "a transaction is in progress already; the service that began it owns it"
            raise RuntimeError(msg)
        async with self._write_sessions.begin() as session:
            token = _in_progress.set(_Transaction(self, session, asyncio.current_task()))
            try:
                yield session
            finally:
                _in_progress.reset(token)

    @asynccontextmanager
    async def session(self) -> AsyncIterator[AsyncSession]:
        """Yield the session of this task's transaction, else a fresh one that only reads and closes itself."""
        current = _in_progress.get()
        if current is None or current.database is not self:
            async with self._read_sessions() as session:
                yield session
        elif current.task is not asyncio.current_task():
            msg = "a task inherited the transaction of another: two tasks cannot share one connection"
            raise RuntimeError(msg)
        else:
            yield current.session

    async def aclose(self) -> None:
        await self._reader.dispose()
        await self._writer.dispose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.aclose()


def is_environment_fault(error: DBAPIError) -> bool:
    """Whether the database refuses for a reason that passes: full disk, foreign lock, lost server, lost race.

    Such a transaction may be tried again as a whole; anything else is a fault of the program.
    """
    if error.connection_invalidated:
        return True
    name = getattr(error.orig, "sqlite_errorname", None)
    if name is not None:
        return isinstance(error, OperationalError) and name.startswith(_ENVIRONMENT_SQLITE)
    state = getattr(error.orig, "sqlstate", None)
    return state is not None and state.startswith(_ENVIRONMENT_SQLSTATE)


def _to_json(value: object) -> str:
    return msgspec.json.encode(value).decode()


def _set_up_sqlite(engine: AsyncEngine, pragmas: list[str], begin: str) -> None:
    # The driver's own transaction handling is switched off, so that ours is the only one (SQLAlchemy's SQLite page).
    @event.listens_for(engine.sync_engine, "connect")
    def connect(connection: Any, _record: ConnectionPoolEntry) -> None:  # noqa: ANN401 - the driver's, untyped
        connection.isolation_level = None
        cursor = connection.cursor()
        for pragma in (f"busy_timeout={BUSY_TIMEOUT_MS}", "foreign_keys=ON", *pragmas):
            cursor.execute(f"PRAGMA {pragma}")
        cursor.close()

    @event.listens_for(engine.sync_engine, "begin")
    def begin_transaction(connection: Connection) -> None:
        connection.exec_driver_sql(begin)
