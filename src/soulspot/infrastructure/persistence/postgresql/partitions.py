"""Partitions the audit log on PostgreSQL by ranges of its sequence, so that old ranges can be moved or dropped whole.

The existing table becomes the first partition as it is, without a copy; further ones are created ahead, and a default
one takes what lies beyond them. The partitioned table has the same name, columns, constraints and indexes as before.
Views, grants and triggers of the table are recreated: otherwise they would stay with the existing table, which has
become the first partition.
"""

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final

from sqlalchemy import URL, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection

from soulspot.errors import CatalogueError
from soulspot.infrastructure.persistence.postgresql.engine import unpooled

ROWS: Final = 10_000_000
"""Entries per partition: about 4 GB with their indexes."""
AHEAD: Final = 4
"""Partitions created ahead of their entries."""
FIRST, REST, WHOLE = "audit_log_first", "audit_log_rest", "audit_log_parted"

_BOUNDS: Final = re.compile(r"FROM \(('?\d+'?|MINVALUE)\) TO \('?(\d+)'?\)")
_PARTS: Final = """
    SELECT c.relname, pg_get_expr(c.relpartbound, c.oid), greatest(c.reltuples, 0)::bigint FROM pg_inherits i
    JOIN pg_class c ON c.oid = i.inhrelid WHERE i.inhparent = 'audit_log'::regclass
"""
_INDEXES: Final = """
    SELECT c.relname, pg_get_indexdef(c.oid) FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid
    WHERE i.indrelid = 'audit_log'::regclass AND NOT i.indisprimary
"""
_VIEWS: Final = """
    SELECT DISTINCT v.oid::regclass::text, v.relkind = 'v', pg_get_viewdef(v.oid) FROM pg_depend d
    JOIN pg_rewrite r ON r.oid = d.objid JOIN pg_class v ON v.oid = r.ev_class
    WHERE d.classid = 'pg_rewrite'::regclass AND d.refobjid = 'audit_log'::regclass
"""
_GRANTS: Final = """
    SELECT 'GRANT ' || privilege_type || ' ON audit_log TO '
        || CASE grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(grantee)) END
        || CASE WHEN is_grantable THEN ' WITH GRANT OPTION' ELSE '' END
    FROM pg_class, aclexplode(relacl) WHERE oid = 'audit_log'::regclass AND grantee <> relowner
"""
_TRIGGERS: Final = """
    SELECT tgname, pg_get_triggerdef(oid) FROM pg_trigger WHERE tgrelid = 'audit_log'::regclass AND NOT tgisinternal
"""


@dataclass(frozen=True, slots=True)
class Part:
    """A partition: its table, its range of sequence numbers (None: unlimited), and its approximate number of rows."""

    table: str
    first: int | None
    before: int | None
    rows: int

    @property
    def is_rest(self) -> bool:
        return self.table == REST


async def partition(url: URL, rows: int = ROWS) -> list[Part]:
    """Partition the audit log if it is not, and create partitions ahead; return all partitions in order."""
    async with _connection(url) as connection:
        if not await _is_partitioned(connection):
            await _create_first(connection, rows)
        async with _locked(connection):
            await _create_ahead(connection, rows)
        return await parts(connection)


async def unite(url: URL) -> bool:
    """Turn the audit log back into one table; false if it is one already."""
    async with _connection(url) as connection:
        if not await _is_partitioned(connection):
            return False
        async with _locked(connection):
            await _exchange(connection, WHOLE, "")
            await _copy_rows(connection, WHOLE)
            await _run(connection, f"DROP TABLE {WHOLE}")
    return True


async def parts(connection: AsyncConnection) -> list[Part]:
    """Return the partitions in order, the default one last; none if the audit log is one table."""
    found = []
    for table, bounds, rows in await connection.execute(text(_PARTS)):
        match = _BOUNDS.search(bounds)
        first = int(match[1].strip("'")) if match and match[1] != "MINVALUE" else None
        found.append(Part(table, first, int(match[2]) if match else None, rows))
    return sorted(found, key=lambda part: (part.is_rest, part.before or 0))


async def _create_first(connection: AsyncConnection, rows: int) -> None:
    """Turn the existing table into the first partition, up to a number well beyond the last entry."""
    end = (await _last(connection) + rows // 10) // rows * rows + rows
    # Validate the limit while others write; then attaching the partition under the lock need not scan it.
    await _run(
        connection,
        f"ALTER TABLE audit_log DROP CONSTRAINT IF EXISTS {FIRST}_end",
        f"ALTER TABLE audit_log ADD CONSTRAINT {FIRST}_end CHECK (sequence < {end}) NOT VALID",
        f"ALTER TABLE audit_log VALIDATE CONSTRAINT {FIRST}_end",
    )
    async with _locked(connection):
        await _exchange(connection, FIRST, "PARTITION BY RANGE (sequence)")
        await _run(
            connection,
            f"ALTER TABLE audit_log ATTACH PARTITION {FIRST} FOR VALUES FROM (MINVALUE) TO ({end})",
            f"ALTER TABLE {FIRST} DROP CONSTRAINT {FIRST}_end",
            f"CREATE TABLE {REST} PARTITION OF audit_log DEFAULT",
        )


async def _create_ahead(connection: AsyncConnection, rows: int) -> None:
    """Create the missing partitions, and move entries from the default one into them."""
    end = max(part.before or 0 for part in await parts(connection))
    starts = range(end, await _last(connection) + AHEAD * rows, rows)
    await _run(
        connection,
        f"ALTER TABLE audit_log DETACH PARTITION {REST}",
        *(
            f"CREATE TABLE audit_log_from_{start} PARTITION OF audit_log FOR VALUES FROM ({start}) TO ({start + rows})"
            for start in starts
        ),
    )
    await _copy_rows(connection, REST)
    await _run(connection, f"TRUNCATE {REST}", f"ALTER TABLE audit_log ATTACH PARTITION {REST} DEFAULT")


async def _exchange(connection: AsyncConnection, old_name: str, kind: str) -> None:
    """Rename the audit log, and create an empty table like it under its name; its dependants follow the name."""
    indexes = (await connection.execute(text(_INDEXES))).all()
    views = (await connection.execute(text(_VIEWS))).all()
    grants = (await connection.scalars(text(_GRANTS))).all()
    triggers = (await connection.execute(text(_TRIGGERS))).all()
    numbers = await connection.scalar(text("SELECT pg_get_serial_sequence('audit_log', 'sequence')"))
    if others := [name for name, is_view, _query in views if not is_view]:
        raise CatalogueError(
            f"{', '.join(others)} depends on the audit log: drop it first, and create it again afterwards"
        )
    await _run(
        connection,
        *(f'DROP TRIGGER "{name}" ON audit_log' for name, _definition in triggers),
        f"ALTER TABLE audit_log RENAME TO {old_name}",
        f"ALTER TABLE {old_name} RENAME CONSTRAINT pk_audit_log TO pk_{old_name}",
        *(f'ALTER INDEX "{name}" RENAME TO "{name}_{old_name}"' for name, _definition in indexes),
        f"CREATE TABLE audit_log (LIKE {old_name} INCLUDING DEFAULTS) {kind}",
        "ALTER TABLE audit_log ADD CONSTRAINT pk_audit_log PRIMARY KEY (sequence)",
        f"ALTER SEQUENCE {numbers} OWNED BY audit_log.sequence",
        *(definition for _name, definition in indexes),
        *grants,
        *(definition for _name, definition in triggers),
        *(f"CREATE OR REPLACE VIEW {name} AS {query}" for name, _is_view, query in views),
    )


async def _copy_rows(connection: AsyncConnection, table: str) -> None:
    """Copy the entries of another table, without firing triggers: they are not new."""
    await _run(
        connection,
        "ALTER TABLE audit_log DISABLE TRIGGER USER",
        f"INSERT INTO audit_log SELECT * FROM {table}",  # noqa: S608 - our own names
        "ALTER TABLE audit_log ENABLE TRIGGER USER",
    )


async def _is_partitioned(connection: AsyncConnection) -> bool:
    query = "SELECT relkind = 'p' FROM pg_class WHERE oid = to_regclass('audit_log')"
    return bool(await connection.scalar(text(query)))


async def _last(connection: AsyncConnection) -> int:
    return int(await connection.scalar(text("SELECT coalesce(max(sequence), 0) FROM audit_log")) or 0)


async def _run(connection: AsyncConnection, *statements: str) -> None:
    for statement in statements:
        await connection.exec_driver_sql(statement)


@asynccontextmanager
async def _connection(url: URL) -> AsyncIterator[AsyncConnection]:
    """Yield a connection without a timeout, on which each statement is a transaction of its own."""
    engine = unpooled(url, answer_limit=None)
    try:
        async with engine.connect() as connection:
            await _run(connection, "SET lock_timeout = '10s'")
            yield connection
    except DBAPIError as error:
        raise CatalogueError(f"the audit log is as it was: {error.orig.__cause__ if error.orig else error}") from error
    finally:
        await engine.dispose()


@asynccontextmanager
async def _locked(connection: AsyncConnection) -> AsyncIterator[None]:
    """Keep others away from the audit log during one transaction."""
    await _run(connection, "BEGIN")
    try:
        await _run(connection, "LOCK TABLE audit_log IN ACCESS EXCLUSIVE MODE")
        yield
    except BaseException:
        await _run(connection, "ROLLBACK")
        raise
    await _run(connection, "COMMIT")
