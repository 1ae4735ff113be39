"""Whether a catalogue is sound: what the database finds, and what the catalogue promises about itself."""

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
        return found + await database.backend.neglected(session)


async def damage(database: "Database") -> list[str]:
    """Return what the database finds wrong in its own storage."""
    try:
        async with database.session() as session:
            return await database.backend.damage(session)
    except DatabaseError as error:
        return [str(error.orig)]
