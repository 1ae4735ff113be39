"""The audit log in parts, on PostgreSQL: by ranges of its sequence, so that an old one can be moved or let go whole.

What is there becomes the first part as it is, and is not copied; the parts that are to come are made ahead, and one for
the rest takes what would be beyond all of them. The table that is asked and written has the same name, columns,
constraints and indexes as before. Whatever refers to it (views, grants, triggers) is carried over: by itself it would
stay with the table that has become the first part.
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
"""Entries of a part: some 4 GB with their indexes."""
AHEAD: Final = 4
"""Parts that are made before there is anything for them."""
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
    """One part: its table, the sequence numbers that it holds (None: without a limit), and about how many there are."""

    table: str
    first: int | None
    before: int | None
    rows: int

    @property
    def is_rest(self) -> bool:
        return self.table == REST


async def partition(url: URL, rows: int = ROWS) -> list[Part]:
    """Part the audit log where it is whole, and make parts ahead; return all parts in their order."""
    async with _connection(url) as connection:
        if not await _is_parted(connection):
            await _make_first(connection, rows)
        async with _locked(connection):
            await _make_parts_ahead(connection, rows)
        return await parts(connection)


async def unite(url: URL) -> bool:
    """Make the audit log one table again; false where it is."""
    async with _connection(url) as connection:
        if not await _is_parted(connection):
            return False
        async with _locked(connection):
            await _exchange(connection, WHOLE, "")
            await _take_rows(connection, WHOLE)
            await _run(connection, f"DROP TABLE {WHOLE}")
    return True


async def parts(connection: AsyncConnection) -> list[Part]:
    """Return the parts in their order, the one for the rest last; none where the audit log is whole."""
    found = []
    for table, bounds, rows in await connection.execute(text(_PARTS)):
        match = _BOUNDS.search(bounds)
        first = int(match[1].strip("'")) if match and match[1] != "MINVALUE" else None
        found.append(Part(table, first, int(match[2]) if match else None, rows))
    return sorted(found, key=lambda part: (part.is_rest, part.before or 0))


async def _make_first(connection: AsyncConnection, rows: int) -> None:
    """Make what is there the first part, up to a number that is well beyond the last one."""
    end = (await _last(connection) + rows // 10) // rows * rows + rows
    # That all is below the end is looked up while others write on; then the exchange need not look, and takes no time.
    await _run(connection, f"ALTER TABLE audit_log DROP CONSTRAINT IF EXISTS {FIRST}_end")
    await _run(connection, f"ALTER TABLE audit_log ADD CONSTRAINT {FIRST}_end CHECK (sequence < {end}) NOT VALID")
    await _run(connection, f"ALTER TABLE audit_log VALIDATE CONSTRAINT {FIRST}_end")
    async with _locked(connection):
        await _exchange(connection, FIRST, "PARTITION BY RANGE (sequence)")
        await _run(connection, f"ALTER TABLE audit_log ATTACH PARTITION {FIRST} FOR VALUES FROM (MINVALUE) TO ({end})")
        await _run(connection, f"ALTER TABLE {FIRST} DROP CONSTRAINT {FIRST}_end")
        await _run(connection, f"CREATE TABLE {REST} PARTITION OF audit_log DEFAULT")


async def _make_parts_ahead(connection: AsyncConnection, rows: int) -> None:
    """Make the parts that are missing; what went into the one for the rest meanwhile moves into them."""
    end = max(part.before or 0 for part in await parts(connection))
    enough = await _last(connection) + AHEAD * rows
    await _run(connection, f"ALTER TABLE audit_log DETACH PARTITION {REST}")
    while end < enough:
        bounds = f"FROM ({end}) TO ({end + rows})"
        await _run(connection, f"CREATE TABLE audit_log_from_{end} PARTITION OF audit_log FOR VALUES {bounds}")
        end += rows
    await _take_rows(connection, REST)
    await _run(connection, f"TRUNCATE {REST}")
    await _run(connection, f"ALTER TABLE audit_log ATTACH PARTITION {REST} DEFAULT")


async def _exchange(connection: AsyncConnection, old_name: str, kind: str) -> None:
    """Give the audit log another name, and its own to a new, empty table that is like it, whatever refers to it."""
    indexes = (await connection.execute(text(_INDEXES))).all()
    views = (await connection.execute(text(_VIEWS))).all()
    grants = list(await connection.scalars(text(_GRANTS)))
    triggers = (await connection.execute(text(_TRIGGERS))).all()
    numbers = await connection.scalar(text("SELECT pg_get_serial_sequence('audit_log', 'sequence')"))
    if others := [name for name, is_view, _query in views if not is_view]:
        msg = f"{', '.join(others)} is made from the audit log: drop it first, and make it again afterwards"
        raise CatalogueError(msg)
    for name, _definition in triggers:
        await _run(connection, f'DROP TRIGGER "{name}" ON audit_log')
    await _run(connection, f"ALTER TABLE audit_log RENAME TO {old_name}")
    await _run(connection, f"ALTER TABLE {old_name} RENAME CONSTRAINT pk_audit_log TO pk_{old_name}")
    for name, _definition in indexes:
        await _run(connection, f'ALTER INDEX "{name}" RENAME TO "{name}_{old_name}"')
    await _run(connection, f"CREATE TABLE audit_log (LIKE {old_name} INCLUDING DEFAULTS) {kind}")
    await _run(connection, "ALTER TABLE audit_log ADD CONSTRAINT pk_audit_log PRIMARY KEY (sequence)")
    await _run(connection, f"ALTER SEQUENCE {numbers} OWNED BY audit_log.sequence")
    for definition in [*(row[1] for row in indexes), *grants, *(row[1] for row in triggers)]:
        await _run(connection, definition)
    for name, _is_view, query in views:
        await _run(connection, f"CREATE OR REPLACE VIEW {name} AS {query}")


async def _take_rows(connection: AsyncConnection, table: str) -> None:
    """Copy what another table holds; it is nothing new, so no trigger is to hear of it."""
    await _run(connection, "ALTER TABLE audit_log DISABLE TRIGGER USER")
    await _run(connection, f"INSERT INTO audit_log SELECT * FROM {table}")  # noqa: S608 - our own names
    await _run(connection, "ALTER TABLE audit_log ENABLE TRIGGER USER")


async def _is_parted(connection: AsyncConnection) -> bool:
    query = "SELECT relkind = 'p' FROM pg_class WHERE oid = to_regclass('audit_log')"
    return bool(await connection.scalar(text(query)))


async def _last(connection: AsyncConnection) -> int:
    return int(await connection.scalar(text("SELECT coalesce(max(sequence), 0) FROM audit_log")) or 0)


async def _run(connection: AsyncConnection, statement: str) -> None:
    await connection.exec_driver_sql(statement)


@asynccontextmanager
async def _connection(url: URL) -> AsyncIterator[AsyncConnection]:
    """Yield a connection that waits for as long as a statement takes, each of which is a transaction of its own."""
    engine = unpooled(url, answer_limit=None)
    try:
        async with engine.connect() as connection:
            await _run(connection, "SET lock_timeout = '10s'")
            yield connection
    except DBAPIError as error:
        msg = f"the audit log is as it was: {error.orig.__cause__ if error.orig else error}"
        raise CatalogueError(msg) from error
    finally:
        await engine.dispose()


@asynccontextmanager
async def _locked(connection: AsyncConnection) -> AsyncIterator[None]:
    """Have the audit log to oneself, in one transaction."""
    await _run(connection, "BEGIN")
    try:
        await _run(connection, "LOCK TABLE audit_log IN ACCESS EXCLUSIVE MODE")
        yield
    except BaseException:
        await _run(connection, "ROLLBACK")
        raise
    await _run(connection, "COMMIT")
