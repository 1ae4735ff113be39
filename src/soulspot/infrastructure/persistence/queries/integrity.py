"""Whether a catalogue is sound: what SQLite finds, and what the catalogue promises about itself."""

from typing import TYPE_CHECKING, Final

from sqlalchemy import text
from sqlalchemy.exc import DatabaseError

from soulspot.infrastructure.persistence import schema

if TYPE_CHECKING:
    from soulspot.infrastructure.persistence.database import Database

_PROMISES: Final = {
    "tracks without an entry in the history": (
        "SELECT count(*) FROM tracks t WHERE NOT EXISTS"
        " (SELECT 1 FROM audit_log a WHERE a.entity_id = t.id AND a.action = 'track_added')"
    ),
    "catalogued files without a track": "SELECT count(*) FROM files WHERE status = 'catalogued' AND track_id IS NULL",
    "failed files without a reason": "SELECT count(*) FROM files WHERE status = 'failed' AND error_code IS NULL",
}

_HAS_PARTS: Final = "SELECT to_regclass('audit_log_rest') IS NOT NULL"
_IS_BEYOND: Final = "SELECT EXISTS (SELECT 1 FROM audit_log_rest)"


async def faults(database: "Database") -> list[str]:
    """Return what is wrong, a sentence each; nothing where the catalogue is sound."""
    if found := await damage(database):
        return found
    revision = await schema.current_revision(database)
    if revision != schema.REVISION:
        return [f"schema {revision or 'none'}, and this soulspot needs {schema.REVISION}: `soulspot db upgrade`"]
    async with database.session() as session:
        for what, query in _PROMISES.items():
            if count := await session.scalar(text(query)):
                found.append(f"{count} {what}")
        if not database.is_sqlite and await session.scalar(text(_HAS_PARTS)) and await session.scalar(text(_IS_BEYOND)):
            found.append("the audit log is beyond its last part: `soulspot db partition` makes more")
    return found


async def damage(database: "Database") -> list[str]:
    """Return what SQLite finds wrong in its file, at most ten things."""
    if not database.is_sqlite:
        return []
    try:
        async with database.session() as session:
            verdicts = list(await session.scalars(text("PRAGMA integrity_check(10)")))
            orphans = (await session.execute(text("PRAGMA foreign_key_check"))).all()
    except DatabaseError as error:
        return [str(error.orig)]
    found = [] if verdicts == ["ok"] else [str(verdict) for verdict in verdicts]
    return found + [
        f"table {table}, row {row}: what it refers to in {parent} is not there"
        for table, row, parent, _key in orphans[:10]
    ]
