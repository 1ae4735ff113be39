"""The engine and the transactions: who begins one, who joins one, what a connection is set to.

A write is a visible block, and the repositories called inside it join it by themselves:

    async with database.transaction():
        track = await tracks.add(...)
        await audit.log_action("track_added", "track", track.id)

Outside a transaction a repository gets a session of its own that can only read. On SQLite there is one connection that
writes (a second would wait for the first anyway), in the thread of the event loop (`inline.py` says why), and a few
that read, each in a thread of its own.
"""

import asyncio
import socket
import sqlite3
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Self

import msgspec
from sqlalchemy import URL, make_url
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession, async_sessionmaker, create_async_engine

from soulspot.errors import CatalogueError
from soulspot.infrastructure.persistence.postgresql import notifications
from soulspot.infrastructure.persistence.records import Place
from soulspot.infrastructure.persistence.sqlite import writer as sqlite_writer
from soulspot.infrastructure.persistence.sqlite.engine import BUSY_TIMEOUT_MS, begin_with_sqlalchemy, set_up

if TYPE_CHECKING:
    from soulspot.infrastructure.persistence.postgresql.advisory_locks import Writer
    from soulspot.infrastructure.persistence.postgresql.writer import Writers

SessionFactory = Callable[[], AbstractAsyncContextManager[AsyncSession]]
"""What a repository is built with: yields the session of the transaction in progress, else one that only reads."""


class _Transaction:
    """A transaction of one task; not a generator, which would cost more than SQLite takes to begin and commit."""

    __slots__ = ("_before", "_writing", "database", "joined", "task")

    def __init__(self, database: "Database", writing: AbstractAsyncContextManager[AsyncSession]) -> None:
        self.database = database
        self._writing = writing

    async def __aenter__(self) -> AsyncSession:
        session = await self._writing.__aenter__()
        self.joined, self.task = nullcontext(session), asyncio.current_task()
        self._before = _in_progress.set(self)
        return session

    async def __aexit__(self, *error: Any) -> bool | None:  # noqa: ANN401, PYI036 - passed on, in its three parts
        _in_progress.reset(self._before)
        return await self._writing.__aexit__(*error)


_in_progress: ContextVar[_Transaction | None] = ContextVar("soulspot_transaction", default=None)


class Database:
    """One database, open. Close it with `aclose`, or use it as an async context manager."""

    def __init__(
        self, url: str, *, synchronous: str = "NORMAL", read_only: bool = False, connections: int = 32
    ) -> None:
        self.url: URL = make_url(url)
        options: dict[str, Any] = {"json_serializer": _to_json, "json_deserializer": msgspec.json.decode}
        if self.is_sqlite:
            here = {"check_same_thread": False, "timeout": 0, "cached_statements": 256}
            self._writer = create_async_engine(
                self.url.set(drivername=sqlite_writer.DRIVER), connect_args=here, **options
            )
            self._reader = create_async_engine(self.url, pool_size=2, max_overflow=4, **options)
            pragmas = ["busy_timeout=0", "journal_mode=WAL", f"synchronous={synchronous}", "wal_autocheckpoint=0"]
            set_up(self._writer, pragmas)
            set_up(self._reader, [f"busy_timeout={BUSY_TIMEOUT_MS}", "query_only=ON"])
            begin_with_sqlalchemy(self._reader)  # the writer's session begins its own
            self._writers: sqlite_writer.SoleWriter | Writers = sqlite_writer.SoleWriter(self._writer)
        else:
            try:
                from soulspot.infrastructure.persistence.postgresql import engine, writer
            except ModuleNotFoundError as error:
                msg = f"PostgreSQL needs {error.name}: install it with pip install 'soulspot[postgresql]'"
                raise CatalogueError(msg) from error
            options["json_serializer"] = engine.to_json
            self._writer, self._reader = engine.engines(self.url, connections, **options)
            self._lock_keeper = engine.unpooled(self.url)
            self._writers = writer.Writers(self._writer, connections)
            self._reading = engine.reading
        self._read_only = read_only
        self._read_sessions = async_sessionmaker(self._reader, expire_on_commit=False)

    @property
    def is_sqlite(self) -> bool:
        return self.url.get_backend_name() == "sqlite"

    def transaction(self) -> AbstractAsyncContextManager[AsyncSession]:
        """Commit what happens inside when it ends well, roll all of it back when it does not."""
        if self._read_only:
            msg = "this catalogue was opened for reading only"
            raise RuntimeError(msg)
        if (current := _in_progress.get()) is not None and current.database is self:
            msg = "a transaction is in progress already; the service that began it owns it"
            raise RuntimeError(msg)
        return _Transaction(self, self._writers.session())

    def owning(
        self, places: Iterable[Place], command: str, *, node: str, run: str
    ) -> AbstractAsyncContextManager[None]:
        """Be the only process that writes what is in these folders; SQLite's lock is of the whole file.

        Whoever listens is told of each commit, and that it was by this `node` and `run`.
        """
        if self.is_sqlite:
            return nullcontext()
        from soulspot.infrastructure.persistence.postgresql import advisory_locks

        assert not isinstance(self._writers, sqlite_writer.SoleWriter)
        said = {"node": node, "run": run}
        return advisory_locks.folders_owned(
            self._lock_keeper, places, advisory_locks.name_of(command, node), said, self._writers.committed
        )

    def alone(self, command: str) -> AbstractAsyncContextManager[None]:
        """Be the only process that writes anything; SQLite's lock does that already."""
        if self.is_sqlite:
            return nullcontext()
        from soulspot.infrastructure.persistence.postgresql import advisory_locks

        return advisory_locks.catalogue_owned(self._lock_keeper, advisory_locks.name_of(command, socket.gethostname()))

    async def writers(self, places: Sequence[Place]) -> "list[Writer]":
        """Return who writes the catalogue on a server now, each with those of these folders that it has."""
        from soulspot.infrastructure.persistence.postgresql import advisory_locks

        async with self.session() as session:
            return await advisory_locks.writers(session, places)

    @property
    def notifies(self) -> bool:
        """Whether the database notifies of commits."""
        return not self.is_sqlite

    def change_notifications(self) -> AsyncGenerator[None, None]:
        """Yield after commits, whichever process made them, until the connection is lost; only where it `notifies`."""
        return notifications.change_notifications(self._lock_keeper)

    async def reserve(self, names: Iterable[str]) -> bool:
        """Be the only transaction that makes what has one of these names; false where there is only one at a time.

        What others made before is there from now on: whoever looked earlier has to look again.
        """
        if self.is_sqlite:
            return False
        from soulspot.infrastructure.persistence.postgresql.writer import PostgresSession

        async with self.session() as session:
            assert isinstance(session, PostgresSession)
            await session.reserve(names)
        return True

    @asynccontextmanager
    async def snapshot(self) -> AsyncIterator[AsyncConnection]:
        """Yield a connection that only reads, and reads what there was at one moment."""
        async with self._reader.connect() as connection:
            if not self.is_sqlite:
                await connection.execution_options(isolation_level="REPEATABLE READ")
            async with connection.begin():
                yield connection

    def session(self) -> AbstractAsyncContextManager[AsyncSession]:
        """Return the session of this task's transaction, else a fresh one that only reads and closes itself."""
        current = _in_progress.get()
        if current is None or current.database is not self:
            return self._read_sessions() if self.is_sqlite else self._reading(self._read_sessions)
        if current.task is not asyncio.current_task():
            msg = "a task inherited the transaction of another: two tasks cannot share one connection"
            raise RuntimeError(msg)
        return current.joined

    async def copy_into(self, target: sqlite3.Connection) -> None:
        """Copy an SQLite database as it is now, through a connection that is open: whatever is at its path by now."""
        async with self._reader.connect() as connection:
            raw = await connection.get_raw_connection()
            assert raw.driver_connection is not None
            await raw.driver_connection.backup(target)

    async def vacuum(self) -> None:
        """Write an SQLite database anew, without the room that deleted rows have left; blocks the event loop."""
        assert isinstance(self._writers, sqlite_writer.SoleWriter)
        await self._writers.vacuum()

    async def aclose(self) -> None:
        await self._reader.dispose()
        await self._writers.aclose()
        await self._writer.dispose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.aclose()


def _to_json(value: object) -> str:
    return msgspec.json.encode(value).decode()
