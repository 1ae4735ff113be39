"""The one connection that writes an SQLite catalogue, in the thread of the event loop.

The event loop stops while a statement runs, so none may take long: the connection does not wait for a lock
(`timeout=0`, the caller retries), and a thread checkpoints the write-ahead log into the database and syncs it. That
thread has the connection to itself meanwhile: SQLite before 3.51.3 can damage a database that one connection
checkpoints while another writes.

What this uses of SQLAlchemy beyond its documentation:

- A dialect with `is_async` (`engine.py`) promises a cursor that SQLAlchemy can await; it gets a bare `sqlite3.Cursor`.
  An `AsyncSession` that awaits it fails: `'sqlite3.Cursor' object has no attribute '_async_soft_close'`. So the session
  overrides every method that would, runs `AsyncSession.sync_session` directly, and is an AsyncSession by type only.
  `SameThreadSession` lists what works; everything else raises an error.
- `sqlalchemy.engine.result.SimpleResultMetaData` (`prepared.py`) names the columns of a result whose rows did not come
  through SQLAlchemy.

tests/test_sqlite_writer.py runs every method that works and every one that is refused, so a version of SQLAlchemy that
breaks either fails there first.
"""

import asyncio
import logging
import sqlite3
from collections.abc import Callable, Sequence
from typing import Any, Final, NoReturn

from sqlalchemy import Executable, Result, Table, event
from sqlalchemy.exc import InvalidRequestError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine
from sqlalchemy.sql.expression import UpdateBase

from soulspot.infrastructure.persistence.row_changes import Row, RowUpdate, WriterSession
from soulspot.infrastructure.persistence.sqlite.prepared import prepared_insert, prepared_query, prepared_update, run

logger = logging.getLogger(__name__)

CHECKPOINT_AFTER: Final = 5_000
"""Rows written between two checkpoints: about 20 to 50 MB of write-ahead log."""


class SqliteWriter:
    """Yields the session of one transaction at a time; keeps its connection open, as opening one takes as long.

    Each transaction begins with BEGIN IMMEDIATE: one that first reads and then writes fails at once if another process
    has written meanwhile, whatever the busy timeout.
    """

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine
        self._is_free = asyncio.Event()
        self._is_free.set()
        self._connection: AsyncConnection | None = None

    async def __aenter__(self) -> "SameThreadSession":
        await self._take_turn()
        try:
            if self._connection is None or self._connection.closed or self._connection.invalidated:
                self._connection = await self._engine.connect()
                self._session = SameThreadSession(self._connection)
            self._session.begin_immediate()
        except BaseException:
            self._is_free.set()
            raise
        return self._session

    async def __aexit__(self, kind: type[BaseException] | None, *_error: object) -> None:
        try:
            if kind is not None:
                await self._session.rollback()
                return
            await self._session.commit()
            if self._session.is_checkpoint_due():
                await asyncio.to_thread(self._session.checkpoint)
        finally:
            self._is_free.set()

    async def _take_turn(self) -> None:
        """Wait for the writer. Not first come, first served: a queue formed during a checkpoint would never drain."""
        while not self._is_free.is_set():
            await self._is_free.wait()
        self._is_free.clear()

    async def vacuum(self) -> None:
        """Rebuild the database file without its free space. Blocks the event loop."""
        await self._take_turn()
        try:
            async with self._engine.connect() as connection:
                raw = await connection.get_raw_connection()
                assert raw.driver_connection is not None
                for statement in ("VACUUM", "ANALYZE", "PRAGMA wal_checkpoint(TRUNCATE)"):
                    raw.driver_connection.execute(statement).fetchall()
        finally:
            self._is_free.set()

    async def aclose(self) -> None:
        if self._connection is not None:
            await self._connection.close()


def _refuse(name: str) -> Callable[..., Any]:
    def refused(_session: object, *_arguments: object, **_options: object) -> NoReturn:
        raise InvalidRequestError(
            f"SQLite's writer has no {name}(): its session runs in the event loop's thread and offers "
            f"{', '.join(SameThreadSession.WORKING)}"
        )

    return refused


class SameThreadSession(WriterSession):
    """The session of the transactions on the connection that writes, one after the other.

    `insert_rows`, `update_row` and Core queries with parameters go straight to the driver, as BEGIN and COMMIT do.
    Other statements go to SQLAlchemy's connection, entities and the unit of work to the ORM's session; both join the
    transaction when they are first used. `SqliteWriter` begins and ends the transactions.
    """

    WORKING: Final = ("execute", "scalar", "scalars", "get", "add", "add_all", "flush", "insert_rows", "update_row")
    REFUSED: Final = (
        *("stream", "stream_scalars", "connection", "begin", "begin_nested", "get_one", "refresh", "run_sync"),
        *("merge", "merge_all", "delete", "delete_all", "close", "aclose", "reset", "invalidate"),
    )

    def __init__(self, connection: AsyncConnection) -> None:
        super().__init__(connection, expire_on_commit=False, join_transaction_mode="rollback_only")
        assert connection.sync_connection is not None
        self._connection = connection.sync_connection
        driver = self._connection.connection.dbapi_connection
        assert isinstance(driver, sqlite3.Connection)
        self._driver: sqlite3.Connection = driver
        self._changes_at_checkpoint: int = 0
        event.listen(self.sync_session, "after_transaction_create", self._join)

    # AsyncSession.scalars calls `execute`.
    async def execute(self, statement: Executable, params: Any = None, **options: Any) -> Result[Any]:  # noqa: ANN401 - the base class's signature
        if params and isinstance(params, dict) and (query := prepared_query(statement, self._connection.dialect)):
            return query.execute(self._driver, params)
        if isinstance(statement, UpdateBase):
            return self._connection.execute(statement, params)
        return self.sync_session.execute(statement, params, **options)

    async def scalar(self, statement: Executable, params: Any = None, **options: Any) -> Any:  # noqa: ANN401 - as above
        return (await self.execute(statement, params, **options)).scalar()

    async def get(self, *arguments: Any, **options: Any) -> Any:  # noqa: ANN401 - as above
        return self.sync_session.get(*arguments, **options)

    async def flush(self, objects: Sequence[Any] | None = None) -> None:
        self.sync_session.flush(objects)

    async def insert_rows(self, table: Table, rows: Sequence[Row]) -> None:
        names = tuple(rows[0])
        insert = prepared_insert(table, names, self._connection.dialect)
        if len(rows) == 1:
            insert.execute(self._driver, tuple(rows[0].values()))
            return
        if any(tuple(row) != names for row in rows):
            raise ValueError(f"the rows of {table.name} have different columns")
        insert.execute_many(self._driver, [tuple(row.values()) for row in rows])

    async def update_row(self, change: RowUpdate) -> None:
        update = prepared_update(change.table, tuple(change.values), self._connection.dialect)
        update.execute(self._driver, (*change.values.values(), change.id))

    def begin_immediate(self) -> None:
        """Begin a transaction; raises OperationalError if another process has one."""
        run("BEGIN", self._driver.execute, "BEGIN IMMEDIATE")

    async def commit(self) -> None:
        """Flush the unit of work, commit, and forget its entities; roll back if that fails."""
        try:
            if self.sync_session.in_transaction():
                self.sync_session.flush()
                self.sync_session.close()
            if self._connection.in_transaction():
                self._connection.commit()
            else:
                run("COMMIT", self._driver.commit)
        except BaseException:
            await self.rollback()
            raise

    async def rollback(self) -> None:
        """Roll back, and forget the entities."""
        self.sync_session.close()
        if self._connection.in_transaction():
            self._connection.rollback()
        else:
            run("ROLLBACK", self._driver.rollback)

    def is_checkpoint_due(self) -> bool:
        return self._driver.total_changes >= self._changes_at_checkpoint + CHECKPOINT_AFTER

    def checkpoint(self) -> None:
        """Write what is committed to the database file, and sync it. Blocks, and needs the connection exclusively."""
        self._changes_at_checkpoint = self._driver.total_changes
        try:
            self._driver.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
        except sqlite3.Error as error:
            logger.warning("cannot checkpoint the write-ahead log, trying again later: %s", error)

    def _join(self, *_event: object) -> None:
        """Begin a transaction for SQLAlchemy as well, or it would treat the ORM's as one of its own."""
        if not self._connection.in_transaction():
            self._connection.begin()


for _name in SameThreadSession.REFUSED:
    setattr(SameThreadSession, _name, _refuse(_name))
