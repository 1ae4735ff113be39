"""SQLAlchemy's async interface over SQLite without a thread between: a statement runs where it is awaited.

aiosqlite hands each step of each statement (cursor, execute, fetch, close) to a thread and waits for its answer: some
twenty hand-offs for one file, each dearer than the statement itself, which takes SQLite a few microseconds. The one
connection that writes does without. So the event loop stands still for as long as a statement takes, and whoever uses
this sees to it that none takes long: it does not wait for a lock (`timeout=0`, the caller tries again), and it does not
checkpoint (`database.py` has a thread do that).

No private part of a library is used: a dialect of our own, registered under a name of its own, and
`AsyncSession.sync_session`.
"""

from collections.abc import Collection, Mapping
from typing import Any

from sqlalchemy import Connection, Dialect, Executable, Insert, Result
from sqlalchemy.dialects import registry
from sqlalchemy.dialects.sqlite.pysqlite import SQLiteDialect_pysqlite
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession
from sqlalchemy.pool import AsyncAdaptedQueuePool, Pool
from sqlalchemy.sql.expression import UpdateBase
from sqlalchemy.util.concurrency import await_, in_greenlet

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

    Statements that write go to the connection itself, as Core has them, and an insert of whole rows in the shortest way
    that SQLAlchemy has: its SQL and the conversion of its values are worked out once. For the rest (entities, unit of
    work) there is the ORM's session, which joins the transaction when it is used first.
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


class _PreparedInsert:
    """An INSERT of rows that all give the same columns."""

    def __init__(self, statement: Insert, dialect: Dialect, names: Collection[str]) -> None:
        compiled = statement.compile(dialect=dialect, column_keys=list(names))
        self._sql = str(compiled)
        columns = statement.table.c
        self._columns = [
            (name, columns[name].type.dialect_impl(dialect).bind_processor(dialect))
            for name in compiled.positiontup or ()
        ]

    def execute(self, connection: Connection, params: Any) -> Result[Any]:  # noqa: ANN401 - one row or several
        return connection.exec_driver_sql(
            self._sql, [self._row(values) for values in params] if isinstance(params, list) else self._row(params)
        )

    def _row(self, values: Mapping[str, Any]) -> tuple[Any, ...]:
        if len(values) != len(self._columns):
            msg = f"these rows have other columns than the first one: {sorted(values)}"
            raise ValueError(msg)
        return tuple([values[name] if convert is None else convert(values[name]) for name, convert in self._columns])
