"""Copies a whole catalogue into an empty one: every row of every table, with its id and its place in the history.

What is read is of one moment, what is written is one transaction, and both are compared row by row afterwards.
"""

from collections.abc import AsyncIterator, Mapping
from typing import Any, Final

from sqlalchemy import Select, String, Table, func, insert, select, text
from sqlalchemy.ext.asyncio import AsyncConnection

from soulspot.errors import CatalogueError
from soulspot.infrastructure.persistence.database import Database
from soulspot.infrastructure.persistence.models import Base

BATCH: Final = 500

_RESUME_NUMBERS: Final = text(
    "SELECT setval(pg_get_serial_sequence('audit_log', 'sequence'), coalesce(max(sequence), 1), count(*) > 0)"
    " FROM audit_log"
)


async def copy_catalogue(source: Database, target: Database) -> dict[str, int]:
    """Copy, compare, and return the number of rows by table.

    Raises CatalogueError when the target holds anything, and when the copy is not what it was made from.
    """
    tables = Base.metadata.sorted_tables
    async with target.session() as session:
        for table in tables:
            if await session.scalar(select(func.count()).select_from(table)):
                msg = f"the target holds {table.name} already: give the URL of a new or an empty database"
                raise CatalogueError(msg)
    async with source.snapshot() as original:
        copied = dict.fromkeys((table.name for table in tables), 0)
        async with target.transaction() as session:
            for table in tables:
                async for rows in _batches(original, table):
                    await session.execute(insert(table), rows)
                    await session.flush()
                    copied[table.name] += len(rows)
            if not target.is_sqlite:
                await session.execute(_RESUME_NUMBERS)
        async with target.snapshot() as copy:
            for table in tables:
                await _compare(original, copy, table)
    return copied


async def _compare(original: AsyncConnection, copy: AsyncConnection, table: Table) -> None:
    theirs = _batches(copy, table)
    async for ours in _batches(original, table):
        if ours != await anext(theirs, []):
            msg = f"the copy of {table.name} is not what it was made from: do not use it, and report this"
            raise CatalogueError(msg)
    if await anext(theirs, []):
        msg = f"the copy of {table.name} has rows that the original has not: was it written to meanwhile?"
        raise CatalogueError(msg)


async def _batches(connection: AsyncConnection, table: Table) -> AsyncIterator[list[Mapping[str, Any]]]:
    result = await connection.stream(_in_order(connection, table), execution_options={"yield_per": BATCH})
    async for rows in result.mappings().partitions(BATCH):
        yield [dict(row) for row in rows]


def _in_order(connection: AsyncConnection, table: Table) -> Select[*tuple[Any, ...]]:
    """Return the query of all rows in the order of their keys, byte by byte as SQLite has it."""
    key = table.primary_key.columns
    if connection.dialect.name == "sqlite":
        return select(table).order_by(*key)
    return select(table).order_by(*(each.collate("C") if isinstance(each.type, String) else each for each in key))
