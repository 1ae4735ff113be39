"""SQLAlchemy's async interface over SQLite without a thread between: a statement runs where it is awaited.

aiosqlite hands each step of each statement (cursor, execute, fetch, close) to a thread and waits for its answer: some
twenty hand-offs for one file, each dearer than the statement itself, which takes SQLite a few microseconds. The one
connection that writes does without. So the event loop stands still for as long as a statement takes, and none is to
take long: it does not wait for a lock (`timeout=0`, the caller tries again), and what commits have left in the
write-ahead log is brought into the database, and synced, by a thread. That has the connection to itself meanwhile:
SQLite before 3.51.3 can damage a database that one connection checkpoints while another writes.

No private part of a library is used: a dialect of our own, registered under a name of its own, and
`AsyncSession.sync_session`.
"""

import asyncio
import logging
import sqlite3
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from operator import itemgetter
from typing import Any, Self, TypeVar

from sqlalchemy import Dialect, Executable, Insert, Result, Select, event
from sqlalchemy.dialects import registry
from sqlalchemy.dialects.sqlite.pysqlite import SQLiteDialect_pysqlite
from sqlalchemy.engine import IteratorResult
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.engine.result import SimpleResultMetaData
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, AsyncSession
from sqlalchemy.pool import AsyncAdaptedQueuePool, Pool
from sqlalchemy.sql.expression import UpdateBase
from sqlalchemy.types import TypeEngine
from sqlalchemy.util.concurrency import await_, in_greenlet

logger = logging.getLogger(__name__)

_T = TypeVar("_T")

DRIVER = "sqlite+soulspot_inline"
CHECKPOINT_AFTER = 5_000
"""Rows written after which the write-ahead log is brought into the database: some 20 to 50 MB of it."""
KEPT = 500
"""Statements that are kept at most: a bound, should somebody make one anew each time."""


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


class SoleWriter:
    """The one connection that writes, as its session; kept open, as opening it costs a transaction.

    Each transaction is a `with` block, one after the other, which begins with BEGIN IMMEDIATE: one that starts by
    reading and then writes fails at once when another process wrote meanwhile, however long the busy timeout is.
    """

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine
        self._is_free = asyncio.Event()
        self._is_free.set()
        self._held: AsyncConnection | None = None
        self._checkpointed = 0

    def session(self) -> Self:
        """Return what yields the session, and commits: the same each time, as there is one transaction at most."""
        return self

    async def __aenter__(self) -> "InlineSession":
        await self._take_turn()
        try:
            if self._held is None or self._held.closed or self._held.invalidated:
                self._held = await self._engine.connect()
                self._session, self._checkpointed = InlineSession(self._held), 0
            self._session.start()
        except BaseException:
            self._is_free.set()
            raise
        return self._session

    async def __aexit__(self, kind: type[BaseException] | None, *_error: object) -> None:
        try:
            if kind is None:
                self._end()
                await self._checkpoint_at_times()
            else:
                self._session.undo()
        finally:
            self._is_free.set()

    async def _take_turn(self) -> None:
        """Wait while somebody has it; in no order, as a queue that has formed once would never end."""
        while not self._is_free.is_set():
            await self._is_free.wait()
        self._is_free.clear()

    def _end(self) -> None:
        try:
            self._session.end()
        except BaseException:
            self._session.undo()
            raise

    async def _checkpoint_at_times(self) -> None:
        changes = self._session.changes
        if changes - self._checkpointed >= CHECKPOINT_AFTER:
            self._checkpointed = changes
            await asyncio.to_thread(self._session.checkpoint)

    async def vacuum(self) -> None:
        """Write the database anew, without the room that deleted rows have left; blocks the event loop."""
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
        if self._held is not None:
            await self._held.close()


class InlineSession(AsyncSession):
    """The session of the transactions on one connection of the inline dialect; whoever begins one ends it.

    A Core statement that has its values beside it is kept, and goes straight to the driver, as BEGIN and COMMIT do: its
    SQL and the conversion of what it is given and answers are worked out once. Other statements that write go to the
    connection itself, as Core has them. For the rest (entities, unit of work) there is the ORM's session. Either joins
    the transaction when it is used first.
    """

    def __init__(self, connection: AsyncConnection) -> None:
        super().__init__(connection, expire_on_commit=False, join_transaction_mode="rollback_only")
        assert connection.sync_connection is not None
        self._on_connection = connection.sync_connection
        driver = self._on_connection.connection.dbapi_connection
        assert isinstance(driver, sqlite3.Connection)
        self._driver: sqlite3.Connection = driver
        event.listen(self.sync_session, "after_transaction_create", self._join)
        self._kept: dict[Executable, _Kept] = {}

    async def execute(self, statement: Executable, params: Any = None, **options: Any) -> Result[Any]:  # noqa: ANN401 - the base class's signature
        if params and isinstance(statement, UpdateBase | Select):
            if (kept := self._kept.get(statement)) is None:
                if len(self._kept) >= KEPT:
                    self._kept.clear()
                one = params[0] if isinstance(params, list) else params
                kept = self._kept[statement] = _Kept(statement, self._on_connection.dialect, one)
            return kept.execute(self._driver, params)
        if isinstance(statement, UpdateBase):
            return self._on_connection.execute(statement, params)
        return self.sync_session.execute(statement, params, **options)

    def start(self) -> None:
        """Begin a transaction; raises OperationalError when another process has one."""
        _run("BEGIN", self._driver.execute, "BEGIN IMMEDIATE")

    def end(self) -> None:
        """Write what the unit of work still has, commit, and forget its entities."""
        if self.sync_session.in_transaction():
            self.sync_session.flush()
            self.sync_session.close()
        if self._on_connection.in_transaction():
            self._on_connection.commit()
        else:
            _run("COMMIT", self._driver.commit)

    def undo(self) -> None:
        """Roll back, and forget the entities."""
        self.sync_session.close()
        if self._on_connection.in_transaction():
            self._on_connection.rollback()
        else:
            _run("ROLLBACK", self._driver.rollback)

    def _join(self, *_event: object) -> None:
        """Have SQLAlchemy know of the transaction too, or it would take the ORM's for one of its own."""
        if not self._on_connection.in_transaction():
            self._on_connection.begin()

    @property
    def changes(self) -> int:
        """The number of rows that were written since the connection was opened."""
        return self._driver.total_changes

    def checkpoint(self) -> None:
        """Bring what is committed into the database file, and sync it; blocks, and nothing else may run meanwhile."""
        try:
            self._driver.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
        except sqlite3.Error as error:
            logger.warning("the write-ahead log stays as it is for now: %s", error)  # nothing is lost: it is the log


class _Kept:
    """A statement that is always given values of the same names: an INSERT of whole rows, or one with `bindparam`s.

    It is known by identity, so it is made once and held by whoever runs it.
    """

    def __init__(
        self, statement: UpdateBase | Select[*tuple[Any, ...]], dialect: Dialect, names: Collection[str]
    ) -> None:
        compiled = statement.compile(
            dialect=dialect, column_keys=list(names) if isinstance(statement, Insert) else None
        )
        ordered = compiled.positiontup or []
        self._sql = str(compiled)
        self._names = frozenset(names)
        self._own = {
            name: value for name, value in compiled.construct_params(dict.fromkeys(names)).items() if name not in names
        }
        self._values = itemgetter(*ordered) if len(ordered) > 1 else lambda values: (values[ordered[0]],)
        self._given = _converters(dialect, [compiled.binds[name].type for name in ordered], _bind_processor)
        answered = list(statement.selected_columns) if isinstance(statement, Select) else []
        self._answered = _converters(dialect, [column.type for column in answered], _result_processor)
        self._answer = SimpleResultMetaData([str(column.key) for column in answered])
        self._has_answer = bool(answered)

    def execute(self, driver: sqlite3.Connection, params: Any) -> Result[Any]:  # noqa: ANN401 - one row or several
        if isinstance(params, list):
            _run(self._sql, driver.executemany, self._sql, [self._row(values) for values in params])
            return IteratorResult(self._answer, iter(()))
        cursor = _run(self._sql, driver.execute, self._sql, self._row(params))
        rows = _run(self._sql, cursor.fetchall) if self._has_answer else ()
        return IteratorResult(self._answer, iter([_converted(row, self._answered) for row in rows]))

    def _row(self, values: Mapping[str, Any]) -> Sequence[Any]:
        if values.keys() != self._names:
            msg = f"this statement is given other values than the first time: {sorted(values)}"
            raise ValueError(msg)
        return _converted(self._values({**self._own, **values} if self._own else values), self._given)


def _run(statement: str, act: Callable[..., _T], *arguments: Any) -> _T:  # noqa: ANN401 - the driver's own
    try:
        return act(*arguments)
    except sqlite3.Error as error:
        raise DBAPIError.instance(statement, arguments[1:], error, sqlite3.Error) from error


_Converter = Callable[[Any], Any]


def _converters(
    dialect: Dialect,
    types: Iterable[TypeEngine[Any]],
    of: Callable[[TypeEngine[Any], Dialect], _Converter | None],
) -> list[tuple[int, _Converter]]:
    """Return the functions that convert values of these types, those that need one, with their places in a row."""
    found = ((number, of(each.dialect_impl(dialect), dialect)) for number, each in enumerate(types))
    return [(number, convert) for number, convert in found if convert is not None]


def _result_processor(kind: TypeEngine[Any], dialect: Dialect) -> _Converter | None:
    return kind.result_processor(dialect, None)


def _bind_processor(kind: TypeEngine[Any], dialect: Dialect) -> _Converter | None:
    return kind.bind_processor(dialect)


def _converted(row: Sequence[Any], converters: Sequence[tuple[int, _Converter]]) -> Sequence[Any]:
    if not converters:
        return row
    converted = list(row)
    for number, convert in converters:
        converted[number] = convert(converted[number])
    return tuple(converted)
