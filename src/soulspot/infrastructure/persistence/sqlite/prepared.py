"""Statements that go straight to sqlite3: their SQL and the conversion of their values are worked out once.

From SQLAlchemy come a compiled statement's text and `params`, and the bind and result processors of the types; all of
that is documented, `SimpleResultMetaData` is not (`writer.py`). Without this, a transaction of one file costs about
twice the time.
"""

import sqlite3
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

from sqlalchemy import Column, Delete, Dialect, Result, Select, Table
from sqlalchemy.dialects.sqlite.pysqlite import SQLiteDialect_pysqlite
from sqlalchemy.engine import IteratorResult
from sqlalchemy.engine.result import SimpleResultMetaData
from sqlalchemy.exc import DBAPIError

_T = TypeVar("_T")
_Convert = Callable[[Any], Any]
_Converters = Sequence[tuple[int, _Convert]]
_NAMED = SQLiteDialect_pysqlite(paramstyle="named")


class PreparedStatement:
    """The SQL of a write that is always given the same columns, in the same order."""

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


def prepared_insert(table: Table, names: Sequence[str], dialect: Dialect) -> PreparedStatement:
    """Prepare the insert of one row, whose values come in the order of these names."""
    columns, places = ", ".join(f'"{name}"' for name in names), ", ".join("?" * len(names))
    sql = f'INSERT INTO "{table.name}" ({columns}) VALUES ({places})'  # noqa: S608 - our own names
    return PreparedStatement(sql, [table.c[name] for name in names], dialect)


def prepared_update(table: Table, names: Sequence[str], dialect: Dialect) -> PreparedStatement:
    """Prepare the update of one row, whose values come in the order of these names, followed by its id."""
    columns = ", ".join(f'"{name}" = ?' for name in names)
    sql = f'UPDATE "{table.name}" SET {columns} WHERE "id" = ?'  # noqa: S608 - our own names
    return PreparedStatement(sql, [*[table.c[name] for name in names], table.c.id], dialect)


class PreparedQuery:
    """A Core statement with `bindparam`s that are given texts, numbers or NULL."""

    __slots__ = ("_answer", "_converters", "_fixed", "_has_answer", "_sql")

    def __init__(self, statement: Select[Any] | Delete, dialect: Dialect) -> None:
        compiled = statement.compile(dialect=_NAMED)
        self._sql = str(compiled)
        self._fixed = {name: value for name, value in compiled.params.items() if value is not None}
        answered = list(statement.selected_columns) if isinstance(statement, Select) else []
        self._has_answer = bool(answered)
        self._answer = SimpleResultMetaData([str(column.key) for column in answered])
        self._converters = _converters(
            [column.type.dialect_impl(dialect).result_processor(dialect, None) for column in answered]
        )

    def execute(self, driver: sqlite3.Connection, params: Mapping[str, Any]) -> Result[Any]:
        values = {**self._fixed, **params} if self._fixed else params
        cursor = run(self._sql, driver.execute, self._sql, values)
        rows = run(self._sql, cursor.fetchall) if self._has_answer else ()
        return IteratorResult(self._answer, iter([_converted(row, self._converters) for row in rows]))


def run(statement: str, act: Callable[..., _T], *arguments: Any) -> _T:  # noqa: ANN401 - the driver's own
    """Call the driver; raise what SQLAlchemy raises for its errors."""
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
