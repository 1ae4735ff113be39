"""Statements that go straight to sqlite3, with SQL and value conversions prepared once.

SQLAlchemy provides the text and `params` of a compiled statement, and the bind and result processors of the types; all
of that is documented, `SimpleResultMetaData` is not (`writer.py`). Without this, the transaction of one file takes
about twice as long.
"""

import sqlite3
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any, Final, TypeVar

from sqlalchemy import Column, Delete, Dialect, Executable, Result, Select, Table
from sqlalchemy.dialects.sqlite.pysqlite import SQLiteDialect_pysqlite
from sqlalchemy.engine import IteratorResult
from sqlalchemy.engine.result import SimpleResultMetaData
from sqlalchemy.exc import DBAPIError

CACHED: Final = 500
"""Prepared statements kept of each kind; a bound in case a caller builds a new one each time."""

_T = TypeVar("_T")
_Convert = Callable[[Any], Any]
_Converters = Sequence[tuple[int, _Convert]]
_NAMED = SQLiteDialect_pysqlite(paramstyle="named")


class PreparedStatement:
    """The SQL of a write that always has the same columns, in the same order."""

    __slots__ = ("_converters", "_sql")

    def __init__(self, sql: str, columns: Iterable[Column[Any]], dialect: Dialect) -> None:
        self._sql = sql
        self._converters = _converters(
            [column.type.dialect_impl(dialect).bind_processor(dialect) for column in columns]
        )

    def execute(self, driver: sqlite3.Connection, values: Sequence[Any]) -> None:
        run(self._sql, driver.execute, self._sql, _converted(values, self._converters))

    def execute_many(self, driver: sqlite3.Connection, rows: Iterable[Sequence[Any]]) -> None:
        run(self._sql, driver.executemany, self._sql, [_converted(values, self._converters) for values in rows])


@lru_cache(CACHED)
def prepared_insert(table: Table, names: tuple[str, ...], dialect: Dialect) -> PreparedStatement:
    """Prepare the insert of one row, with values in the order of these names."""
    columns, places = ", ".join(f'"{name}"' for name in names), ", ".join("?" * len(names))
    sql = f'INSERT INTO "{table.name}" ({columns}) VALUES ({places})'  # noqa: S608 - our own names
    return PreparedStatement(sql, [table.c[name] for name in names], dialect)


@lru_cache(CACHED)
def prepared_update(table: Table, names: tuple[str, ...], dialect: Dialect) -> PreparedStatement:
    """Prepare the update of one row, with values in the order of these names, followed by its id."""
    columns = ", ".join(f'"{name}" = ?' for name in names)
    sql = f'UPDATE "{table.name}" SET {columns} WHERE "id" = ?'  # noqa: S608 - our own names
    return PreparedStatement(sql, [*[table.c[name] for name in names], table.c.id], dialect)


class PreparedQuery:
    """A Core statement whose `bindparam`s are texts, numbers or NULL."""

    __slots__ = ("_converters", "_fixed", "_metadata", "_sql")

    def __init__(self, statement: Select[Any] | Delete, dialect: Dialect) -> None:
        compiled = statement.compile(dialect=_NAMED)
        self._sql = str(compiled)
        self._fixed = {name: value for name, value in compiled.params.items() if value is not None}
        columns = list(statement.selected_columns) if isinstance(statement, Select) else []
        self._metadata = SimpleResultMetaData([str(column.key) for column in columns])
        self._converters = _converters(
            [column.type.dialect_impl(dialect).result_processor(dialect, None) for column in columns]
        )

    def execute(self, driver: sqlite3.Connection, params: Mapping[str, Any]) -> Result[Any]:
        values = {**self._fixed, **params} if self._fixed else params
        cursor = run(self._sql, driver.execute, self._sql, values)
        rows = [_converted(row, self._converters) for row in run(self._sql, cursor.fetchall)]
        return IteratorResult(self._metadata, iter(rows))


@lru_cache(CACHED)
def prepared_query(statement: Executable, dialect: Dialect) -> PreparedQuery | None:
    """Prepare a Core statement, None for one of the ORM; the cache knows it by identity, so build it once."""
    if isinstance(statement, Select | Delete) and not _names_entities(statement):
        return PreparedQuery(statement, dialect)
    return None


def run(statement: str, act: Callable[..., _T], *arguments: Any) -> _T:  # noqa: ANN401 - the driver's own
    """Call the driver; convert its errors to SQLAlchemy's."""
    try:
        return act(*arguments)
    except sqlite3.Error as error:
        raise DBAPIError.instance(statement, arguments[1:], error, sqlite3.Error) from error


def _converters(found: Sequence[_Convert | None]) -> _Converters:
    """Return the conversions that are needed, each with its place in a row."""
    return [(place, convert) for place, convert in enumerate(found) if convert is not None]


def _converted(row: Sequence[Any], converters: _Converters) -> Sequence[Any]:
    if not converters:
        return row
    converted = list(row)
    for place, convert in converters:
        converted[place] = convert(converted[place])
    return tuple(converted)


def _names_entities(statement: Select[Any] | Delete) -> bool:
    """Whether a statement names mapped classes, which only the ORM's session can load."""
    if isinstance(statement, Delete):
        return not isinstance(statement.table, Table) or "entity" in statement.entity_description
    return any("entity" in each for each in statement.column_descriptions)
