"""SQLAlchemy's async interface over SQLite without a thread between: a statement runs where it is awaited.

aiosqlite hands each step of each statement (cursor, execute, fetch, close) to a thread and waits for its answer: some
twenty hand-offs for one file, each dearer than the statement itself, which takes SQLite a few microseconds. The one
connection that writes does without. So the event loop stands still for as long as a statement takes, and whoever uses
this sees to it that none takes long: it does not wait for a lock (`timeout=0`, the caller tries again), and it does not
checkpoint (`database.py` has a thread do that).

No private part of a library is used: a dialect of our own, registered under a name of its own, and
`AsyncSession.sync_session`.
"""

import logging
import sqlite3
from collections.abc import Collection, Mapping
from operator import itemgetter
from typing import Any

from sqlalchemy import Connection, Dialect, Executable, Insert, Result
from sqlalchemy.dialects import registry
from sqlalchemy.dialects.sqlite.pysqlite import SQLiteDialect_pysqlite
from sqlalchemy.engine import IteratorResult
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.engine.result import SimpleResultMetaData
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession
from sqlalchemy.pool import AsyncAdaptedQueuePool, Pool
from sqlalchemy.sql.expression import UpdateBase
from sqlalchemy.util.concurrency import await_, in_greenlet

logger = logging.getLogger(__name__)

DRIVER = "sqlite+soulspot_inline"


class InlineDialect(SQLiteDialect_pysqlite):
    """sqlite3 as an asynchronous driver that never has to wait."""

    driver = "soulspot_inline"
    is_async = True
    supports_statement_cache = True

    @classmethod
    def get_pool_class(cls, url: object) -> type[Pool]:  # noqa: ARG003 - the base class's signature
        return AsyncAdaptedQueuePool

    def do_execute(self, cursor: Any, statement: str, parameters: Any, context: Any = None) -> None:  # noqa: ANN401, ARG002
        if in_greenlet():
            await_(_answer())
        cursor.execute(statement, parameters)

    def get_driver_connection(self, connection: DBAPIConnection) -> Any:  # noqa: ANN401 - the base class's type
        return connection


async def _answer() -> None:
    """Be awaited: AsyncConnection takes a driver that is never awaited for one that blocks by mistake."""


registry.register("sqlite.soulspot_inline", __name__, "InlineDialect")


class InlineSession(AsyncSession):
    """The session of the transactions on one connection of the inline dialect; whoever begins one ends it.

    Statements that write go to the connection itself, as Core has them, and an insert of whole rows, a plain
    `insert(table)` with its values beside it, straight to the driver: its SQL and the conversion of its values are
    worked out once. For the rest (entities, unit of work) there is the ORM's session, which joins the transaction when
    it is used first.
    """

    def __init__(self, connection: AsyncConnection) -> None:
        super().__init__(connection, expire_on_commit=False, join_transaction_mode="rollback_only")
        assert connection.sync_connection is not None
        self._on_connection = connection.sync_connection
        self._prepared: dict[Insert, _PreparedInsert] = {}

    async def execute(self, statement: Executable, params: Any = None, **options: Any) -> Result[Any]:  # noqa: ANN401 - the base class's signature
        if isinstance(statement, Insert) and params:
            if (prepared := self._prepared.get(statement)) is None:
                prepared = self._prepared[statement] = _PreparedInsert(
                    statement, self._on_connection.dialect, params[0] if isinstance(params, list) else params
                )
            return prepared.execute(self._on_connection, params)
        if isinstance(statement, UpdateBase):
            return self._on_connection.execute(statement, params)
        return self.sync_session.execute(statement, params, **options)

    def end(self) -> None:
        """Write what the unit of work still has, before a commit, and forget its entities."""
        if self.sync_session.in_transaction():
            self.sync_session.flush()
            self.sync_session.close()

    def checkpoint(self) -> None:
        """Bring what is committed into the database file, and sync it; blocks, and nothing else may run meanwhile."""
        try:
            self._on_connection.connection.cursor().execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
        except sqlite3.Error as error:
            logger.warning("the write-ahead log stays as it is for now: %s", error)  # nothing is lost: it is the log


class _PreparedInsert:
    """An INSERT of rows that all give the same columns."""

    def __init__(self, statement: Insert, dialect: Dialect, names: Collection[str]) -> None:
        compiled = statement.compile(dialect=dialect, column_keys=list(names))
        ordered = compiled.positiontup or []
        self._sql = str(compiled)
        self._width = len(ordered)
        self._values = itemgetter(*ordered)
        self._converters = [
            (number, convert)
            for number, name in enumerate(ordered)
            if (convert := statement.table.c[name].type.dialect_impl(dialect).bind_processor(dialect)) is not None
        ]

    def execute(self, connection: Connection, params: Any) -> Result[Any]:  # noqa: ANN401 - one row or several
        cursor = connection.connection.cursor()
        try:
            if isinstance(params, list):
                cursor.executemany(self._sql, [self._row(values) for values in params])
            else:
                cursor.execute(self._sql, self._row(params))
        except sqlite3.Error as error:
            raise DBAPIError.instance(self._sql, params, error, sqlite3.Error, dialect=connection.dialect) from error
        return _NO_ROWS

    def _row(self, values: Mapping[str, Any]) -> list[Any]:
        if len(values) != self._width:
            msg = f"these rows have other columns than the first one: {sorted(values)}"
            raise ValueError(msg)
        row = list(self._values(values))
        for number, convert in self._converters:
            row[number] = convert(row[number])
        return row


_NO_ROWS: Result[Any] = IteratorResult(SimpleResultMetaData([]), iter(()))
