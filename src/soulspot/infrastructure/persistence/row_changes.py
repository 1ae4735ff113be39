"""Inserts of whole rows and updates of one row, which each backend writes in its fastest way.

SQLite prepares one statement per set of columns; PostgreSQL collects the rows and sends them in one round trip.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import Table, insert, update
from sqlalchemy.ext.asyncio import AsyncSession

Row = Mapping[str, object]
"""Values by column name."""


@dataclass(frozen=True, slots=True)
class RowUpdate:
    """New values for some columns of the row with this id."""

    table: Table
    id: str
    values: Row


class WriterSession(AsyncSession):
    """The session of a write transaction."""

    async def insert_rows(self, table: Table, rows: Sequence[Row]) -> None:
        """Insert rows that all have values for the same columns."""
        raise NotImplementedError

    async def update_row(self, change: RowUpdate) -> None:
        raise NotImplementedError


async def insert_rows(session: AsyncSession, table: Table, *rows: Row) -> None:
    """Insert rows that all have values for the same columns."""
    if isinstance(session, WriterSession):
        await session.insert_rows(table, rows)
    else:
        await session.execute(insert(table), list(rows))


async def update_row(session: AsyncSession, change: RowUpdate) -> None:
    if isinstance(session, WriterSession):
        await session.update_row(change)
    else:
        await session.execute(update(change.table).where(change.table.c.id == change.id).values(dict(change.values)))
