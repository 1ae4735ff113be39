"""Runs statements for repositories and queries, in the transaction in progress, else in a session that only reads."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from functools import cache
from typing import Any, ClassVar, TypeVar, cast

from sqlalchemy import CursorResult, Executable, Row, Select, Table, delete
from sqlalchemy.exc import NoResultFound
from sqlalchemy.ext.asyncio import AsyncSession

from soulspot.infrastructure.persistence.row_changes import RowUpdate, insert_rows, update_row

SessionFactory = Callable[[], AbstractAsyncContextManager[AsyncSession]]
"""The argument of every repository: yields the session of the transaction in progress, else one that only reads."""

_T = TypeVar("_T")


class CatalogueAccess:
    """Runs statements; each call joins the transaction that it is made in, and never commits."""

    def __init__(self, session_factory: SessionFactory) -> None:
        self._session_factory = session_factory

    async def _rows(
        self, statement: Executable, params: Mapping[str, Any] | None = None
    ) -> Sequence[Row[*tuple[Any, ...]]]:
        async with self._session_factory() as session:
            return (await session.execute(statement, params)).all()

    async def _scalars(self, query: Select[_T]) -> Sequence[_T]:
        async with self._session_factory() as session:
            return (await session.scalars(query)).all()

    async def _scalar(self, query: Select[_T], params: Mapping[str, Any] | None = None) -> _T | None:
        """Return the first column of the first row, None if no row matches."""
        async with self._session_factory() as session:
            return (await session.execute(query, params)).scalar()

    async def _get(self, model: type[_T], identity: object, **options: Any) -> _T | None:  # noqa: ANN401 - the session's
        async with self._session_factory() as session:
            return await session.get(model, identity, **options)

    async def _change(self, statement: Executable) -> int:
        """Execute an update or a delete; return the number of rows that it matched."""
        async with self._session_factory() as session:
            return cast("CursorResult[Any]", await session.execute(statement)).rowcount

    async def _insert(self, table: Table, *rows: Mapping[str, object]) -> None:
        async with self._session_factory() as session:
            await insert_rows(session, table, *rows)


class TableRepository(CatalogueAccess):
    """Base class of the repositories of tables with an `id`."""

    table: ClassVar[Table]

    async def set(self, row_id: str, **values: object) -> None:
        """Update some columns of one row."""
        async with self._session_factory() as session:
            await update_row(session, RowUpdate(self.table, row_id, values))

    async def remove(self, row_id: str) -> None:
        await self._change(delete(self.table).where(self.table.c.id == row_id))

    async def _values(self, query: Select[*tuple[Any, ...]], row_id: str) -> dict[str, Any] | None:
        """Return the row that a query by `id` finds, by column name."""
        rows = await self._rows(query, {"id": row_id})
        return dict(zip(_column_names(query), rows[0], strict=True)) if rows else None

    async def _existing_values(self, query: Select[*tuple[Any, ...]], row_id: str) -> dict[str, Any]:
        """Return the same as `_values`; raise NoResultFound if another writer has removed the row."""
        if (values := await self._values(query, row_id)) is None:
            raise NoResultFound(f"{self.table.name} has no row {row_id}")
        return values


@cache
def _column_names(query: Select[*tuple[Any, ...]]) -> Sequence[str]:
    return query.selected_columns.keys()  # asking each row takes three times as long
