"""The one connection that writes an SQLite catalogue, in the thread of the event loop.

The event loop stands still for as long as a statement takes, so none may take long: it does not wait for a lock
(`timeout=0`, the caller tries again), and a thread brings what commits have left in the write-ahead log into the
database and syncs it. That thread has the connection to itself meanwhile: SQLite before 3.51.3 can damage a database
that one connection checkpoints while another writes.

What this uses of SQLAlchemy that its documentation does not promise:

- A dialect says `is_async` (`engine.py`), which promises a cursor that SQLAlchemy can await; it gets a bare
  `sqlite3.Cursor`. An `AsyncSession` that awaits it fails: `'sqlite3.Cursor' object has no attribute
  '_async_soft_close'`. So the session overrides every method that would, runs `AsyncSession.sync_session` where it is
  called, and is an AsyncSession by type only. What works is listed at `SameThreadSession`; the rest is refused.
- `sqlalchemy.engine.result.SimpleResultMetaData` (`prepared.py`) names the columns of a result whose rows did not come
  through SQLAlchemy.

tests/test_sqlite_writer.py runs each method that works and each that is refused, so a version of SQLAlchemy that breaks
either fails there first.
"""

import asyncio
import logging
import sqlite3
from collections.abc import Callable, Sequence
from typing import Any, Final, NoReturn, TypeVar

from sqlalchemy import Delete, Executable, Result, Select, Table, event
from sqlalchemy.exc import InvalidRequestError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine
from sqlalchemy.sql.expression import UpdateBase

from soulspot.infrastructure.persistence.row_changes import Row, RowUpdate, WriterSession
from soulspot.infrastructure.persistence.sqlite.prepared import (
    PreparedQuery,
    PreparedStatement,
    prepared_insert,
    prepared_update,
    run,
)

logger = logging.getLogger(__name__)

_K = TypeVar("_K")
_V = TypeVar("_V")

CHECKPOINT_AFTER: Final = 5_000
"""Rows written after which the write-ahead log is brought into the database: some 20 to 50 MB of it."""
MOST_PREPARED: Final = 500
"""Statements kept at most: a bound, should somebody build a new one each time."""


class SqliteWriter:
    """Yields the session of one transaction at a time; its connection stays open, as opening it costs a transaction.

    Each transaction begins with BEGIN IMMEDIATE: one that starts by reading and then writes fails at once when another
    process wrote meanwhile, however long the busy timeout is.
    """

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine
        self._is_free = asyncio.Event()
        self._is_free.set()
        self._connection: AsyncConnection | None = None
        self._checkpointed = 0

    async def __aenter__(self) -> "SameThreadSession":
        await self._take_turn()
        try:
            if self._connection is None or self._connection.closed or self._connection.invalidated:
                self._connection = await self._engine.connect()
                self._session, self._checkpointed = SameThreadSession(self._connection), 0
            self._session.begin_immediate()
        except BaseException:
            self._is_free.set()
            raise
        return self._session

    async def __aexit__(self, kind: type[BaseException] | None, *_error: object) -> None:
        try:
            if kind is None:
                await self._commit()
                await self._checkpoint_at_times()
            else:
                await self._session.rollback()
        finally:
            self._is_free.set()

    async def _take_turn(self) -> None:
        """Wait for the writer. Not first come, first served: a queue formed during a checkpoint would never drain."""
        while not self._is_free.is_set():
            await self._is_free.wait()
        self._is_free.clear()

    async def _commit(self) -> None:
        try:
            await self._session.commit()
        except BaseException:
            await self._session.rollback()
            raise

    async def _checkpoint_at_times(self) -> None:
        changes = self._session.changes
        if changes - self._checkpointed >= CHECKPOINT_AFTER:
            self._checkpointed = changes
            await asyncio.to_thread(self._session.checkpoint)

    async def vacuum(self) -> None:
        """Rebuild the database file without its free space; blocks the event loop."""
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
        msg = (
            f"SQLite's writer has no {name}(): its session runs in the event loop's thread and offers "
            f"{', '.join(SameThreadSession.WORKING)}"
        )
        raise InvalidRequestError(msg)

    return refused


class SameThreadSession(WriterSession):
    """The session of the transactions on the connection that writes, one after the other.

    `insert_rows`, `update_row` and Core queries that have their values beside them go straight to the driver, as BEGIN
    and COMMIT do. Other statements go to SQLAlchemy's connection, entities and the unit of work to the ORM's session;
    either joins the transaction when it is first used. `SqliteWriter` begins and ends the transactions.
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
        event.listen(self.sync_session, "after_transaction_create", self._join)
        self._queries: dict[Executable, PreparedQuery] = {}
        self._inserts: dict[tuple[Table, tuple[str, ...]], PreparedStatement] = {}
        self._updates: dict[tuple[Table, tuple[str, ...]], PreparedStatement] = {}

    async def execute(self, statement: Executable, params: Any = None, **options: Any) -> Result[Any]:  # noqa: ANN401 - the base class's signature
        if params and isinstance(params, dict) and (query := self._prepared(statement)) is not None:
            return query.execute(self._driver, params)
        if isinstance(statement, UpdateBase):
            return self._connection.execute(statement, params)
        return self.sync_session.execute(statement, params, **options)

    async def scalar(self, statement: Executable, params: Any = None, **options: Any) -> Any:  # noqa: ANN401 - as above
        return (await self.execute(statement, params, **options)).scalar()

    async def scalars(self, statement: Executable, params: Any = None, **options: Any) -> Any:  # noqa: ANN401 - as above
        return (await self.execute(statement, params, **options)).scalars()

    async def get(self, *arguments: Any, **options: Any) -> Any:  # noqa: ANN401 - as above
        return self.sync_session.get(*arguments, **options)

    async def flush(self, objects: Sequence[Any] | None = None) -> None:
        self.sync_session.flush(objects)

    async def insert_rows(self, table: Table, rows: Sequence[Row]) -> None:
        names = tuple(rows[0])
        if (insert := self._inserts.get((table, names))) is None:
            insert = prepared_insert(table, names, self._connection.dialect)
            _keep(self._inserts, (table, names), insert)
        if len(rows) == 1:
            insert.execute(self._driver, tuple(rows[0].values()))
            return
        if any(tuple(row) != names for row in rows):
            msg = f"the rows of {table.name} have different columns"
            raise ValueError(msg)
        insert.execute_many(self._driver, [tuple(row.values()) for row in rows])

    async def update_row(self, change: RowUpdate) -> None:
        key = change.table, tuple(change.values)
        if (update := self._updates.get(key)) is None:
            update = prepared_update(*key, self._connection.dialect)
            _keep(self._updates, key, update)
        update.execute(self._driver, (*change.values.values(), change.id))

    def begin_immediate(self) -> None:
        """Begin a transaction; raises OperationalError when another process has one."""
        run("BEGIN", self._driver.execute, "BEGIN IMMEDIATE")

    async def commit(self) -> None:
        """Write what the unit of work still has, commit, and forget its entities."""
        if self.sync_session.in_transaction():
            self.sync_session.flush()
            self.sync_session.close()
        if self._connection.in_transaction():
            self._connection.commit()
        else:
            run("COMMIT", self._driver.commit)

    async def rollback(self) -> None:
        """Roll back, and forget the entities."""
        self.sync_session.close()
        if self._connection.in_transaction():
            self._connection.rollback()
        else:
            run("ROLLBACK", self._driver.rollback)

    @property
    def changes(self) -> int:
        """The number of rows written since the connection was opened."""
        return self._driver.total_changes

    def checkpoint(self) -> None:
        """Bring what is committed into the database file, and sync it; blocks, and nothing else may run meanwhile."""
        try:
            self._driver.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
        except sqlite3.Error as error:
            logger.warning("the write-ahead log stays as it is for now: %s", error)  # nothing is lost: it is the log

    def _join(self, *_event: object) -> None:
        """Have SQLAlchemy know of the transaction too, or it would take the ORM's for one of its own."""
        if not self._connection.in_transaction():
            self._connection.begin()

    def _prepared(self, statement: Executable) -> PreparedQuery | None:
        """Return the prepared form of a Core statement, which is known by identity: build it once, and hold it."""
        if (query := self._queries.get(statement)) is not None:
            return query
        if not isinstance(statement, Select | Delete) or _names_entities(statement):
            return None
        query = PreparedQuery(statement, self._connection.dialect)
        _keep(self._queries, statement, query)
        return query


for _name in SameThreadSession.REFUSED:
    setattr(SameThreadSession, _name, _refuse(_name))


def _keep(kept: dict[_K, _V], key: _K, value: _V) -> None:
    if len(kept) >= MOST_PREPARED:
        kept.clear()
    kept[key] = value


def _names_entities(statement: Select[Any] | Delete) -> bool:
    """Whether a statement is of mapped classes, which only the ORM's session can load."""
    if isinstance(statement, Delete):
        return not isinstance(statement.table, Table) or "entity" in statement.entity_description
    return any("entity" in each for each in statement.column_descriptions)
