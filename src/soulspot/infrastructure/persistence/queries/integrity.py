"""Checks a catalogue: what the database finds, and the rules that its rows must obey."""

from typing import Final

from sqlalchemy import text
from sqlalchemy.exc import DatabaseError

from soulspot.infrastructure.persistence import schema
from soulspot.infrastructure.persistence.database import Database

_VIOLATIONS: Final = {
    "tracks without an entry in the history": (
        "SELECT count(*) FROM tracks t WHERE NOT EXISTS"
        " (SELECT 1 FROM audit_log a WHERE a.entity_id = t.id AND a.action = 'track_added')"
    ),
    "catalogued files without a track": "SELECT count(*) FROM files WHERE status = 'catalogued' AND track_id IS NULL",
    "failed files without a reason": "SELECT count(*) FROM files WHERE status = 'failed' AND error_code IS NULL",
}


async def faults(database: Database) -> list[str]:
    """Return the faults of a catalogue, a sentence each."""
    if found := await damage(database):
        return found
    if (revision := await schema.current_revision(database)) != schema.REVISION:
        return [f"schema {revision or 'none'}, and this soulspot needs {schema.REVISION}: `soulspot db upgrade`"]
    async with database.session() as session:
        counts = {what: await session.scalar(text(query)) for what, query in _VIOLATIONS.items()}
        found = [f"{count} {what}" for what, count in counts.items() if count]
        return found + await database.backend.neglected(session)


async def damage(database: Database) -> list[str]:
    """Return what the database finds wrong in its own storage."""
    try:
        async with database.session() as session:
            return await database.backend.damage(session)
    except DatabaseError as error:
        return [str(error.orig)]
