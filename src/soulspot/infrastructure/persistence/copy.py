"""Copies a whole catalogue into an empty one: every row of every table, with its id and its sequence number.

It reads one snapshot, writes one transaction, and then compares both row by row.
"""

from collections.abc import AsyncIterator, Mapping
from typing import Any, Final

from sqlalchemy import Table, func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from soulspot.errors import CatalogueError
from soulspot.infrastructure.persistence.database import Database
from soulspot.infrastructure.persistence.models import Base
from soulspot.infrastructure.persistence.row_changes import insert_rows

BATCH: Final = 500

_Batches = AsyncIterator[list[Mapping[str, Any]]]


async def copy_catalogue(source: Database, target: Database) -> dict[str, int]:
    """Copy, compare, and return the number of rows by table.

    Raises CatalogueError if the target holds any row, and if the copy differs from the original.
    """
    tables = Base.metadata.sorted_tables
    async with target.session() as session:
        for table in tables:
            if await session.scalar(select(func.count()).select_from(table)):
                raise CatalogueError(
                    f"the target holds {table.name} already: give the URL of a new or an empty database"
                )
    async with source.backend.snapshot() as original:
        copied = dict.fromkeys((table.name for table in tables), 0)
        async with target.transaction() as session:
            for table in tables:
                async for rows in _batches(original, source, table):
                    await insert_rows(session, table, *rows)
                    await session.flush()
                    copied[table.name] += len(rows)
            await target.backend.resume_numbering(session)
        async with target.backend.snapshot() as copy:
            for table in tables:
                await _compare(table, _batches(original, source, table), _batches(copy, target, table))
    return copied


async def _compare(table: Table, originals: _Batches, copies: _Batches) -> None:
    async for ours in originals:
        if ours != await anext(copies, []):
            raise CatalogueError(f"the copy of {table.name} differs from the original: do not use it, and report this")
    if await anext(copies, []):
        raise CatalogueError(
            f"the copy of {table.name} has rows that the original lacks: has something else written to it?"
        )


async def _batches(connection: AsyncConnection, database: Database, table: Table) -> _Batches:
    """Yield all rows, ordered by their keys, compared byte by byte."""
    query = select(table).order_by(*map(database.backend.in_byte_order, table.primary_key.columns))
    result = await connection.stream(query, execution_options={"yield_per": BATCH})
    async for rows in result.mappings().partitions(BATCH):
        yield [dict(row) for row in rows]
