"""What is asked of the audit log, and what retention removes from it."""

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Any, Final, cast

from sqlalchemy import CursorResult, delete, func, or_, select

from soulspot.infrastructure.persistence.database import SessionFactory
from soulspot.infrastructure.persistence.identity import normalize_name
from soulspot.infrastructure.persistence.models import Artist, AuditEntry, TrackArtist
from soulspot.infrastructure.persistence.tables import ALBUMS, ARTISTS, ENTRIES, FILES, FOLDERS, TRACKS

_TABLES: Final = (
    (("track",), TRACKS),
    (("file",), FILES),
    (("artist",), ARTISTS),
    (("album",), ALBUMS),
    (("folder", "scan"), FOLDERS),
)
"""Where the entities are that entries are about, by their types."""


class AuditLogQueries:
    """Queries of the entries, and their removal.

    Args:
        run: the id of this start of soulspot, of which `remove_own` removes entries.

    """

    def __init__(self, session_factory: SessionFactory, *, run: str = "") -> None:
        self._session_factory = session_factory
        self._run = run

    async def entries(  # noqa: PLR0913 - one argument for each thing that a person may ask by
        self,
        *,
        path: str | None = None,
        entities: Collection[str] | None = None,
        artist: str | None = None,
        action: str | None = None,
        since: datetime | None = None,
        among: Collection[int] | None = None,
        limit: int | None = None,
    ) -> Sequence[AuditEntry]:
        """Return the newest `limit` entries that match, oldest first.

        `path` is a file or folder, whole and escaped; `entities` are ids; `artist` a name: entries of the artist and of
        its tracks; `among` sequence numbers.
        """
        query = select(AuditEntry)
        if path is not None:
            query = query.where((AuditEntry.path == path) | AuditEntry.path.startswith(f"{path}/", autoescape=True))
        if entities is not None:
            query = query.where(AuditEntry.entity_id.in_(entities))
        if artist is not None:
            ids = select(Artist.id).where(Artist.name_key == normalize_name(artist))
            tracks = select(TrackArtist.track_id).where(TrackArtist.artist_id.in_(ids))
            query = query.where(AuditEntry.entity_id.in_(ids.union(tracks)))
        if action is not None:
            query = query.where(AuditEntry.action == action)
        if since is not None:
            query = query.where(AuditEntry.at >= since)
        if among is not None:
            query = query.where(AuditEntry.sequence.in_(among))
        query = query.order_by(AuditEntry.sequence.desc()).limit(limit)
        async with self._session_factory() as session:
            return list(reversed((await session.scalars(query)).all()))

    async def numbers(self, after: int, among: Collection[int], limit: int) -> Sequence[int]:
        """Return the first sequence numbers that are taken, of those after one and of some before it."""
        asked = (AuditEntry.sequence > after) | AuditEntry.sequence.in_(among)
        async with self._session_factory() as session:
            query = select(AuditEntry.sequence).where(asked).order_by(AuditEntry.sequence).limit(limit)
            return (await session.scalars(query)).all()

    async def last_before(self, moment: datetime) -> int:
        """Return the number of the newest entry that is older than a moment, 0 where none is."""
        query = select(AuditEntry.sequence).where(AuditEntry.at < moment).order_by(AuditEntry.at.desc()).limit(1)
        async with self._session_factory() as session:
            return (await session.scalar(query)) or 0

    async def aged(self, after: int, upto: int, before: datetime, limit: int) -> Sequence[tuple[int, bool]]:
        """Return the first entries in (after, upto], each with whether it is older than a moment and need not stay.

        The first and the last of each thing that the catalogue still has do. What was removed has none that does.
        """
        mine, other = ENTRIES, ENTRIES.alias()
        same = select(other.c.sequence).where(other.c.entity_id == mine.c.entity_id)
        earlier = same.where(other.c.sequence < mine.c.sequence).exists()
        later = same.where(other.c.sequence > mine.c.sequence).exists()
        there = or_(
            mine.c.entity_type == "audit",
            *(
                mine.c.entity_type.in_(kinds) & select(table.c.id).where(table.c.id == mine.c.entity_id).exists()
                for kinds, table in _TABLES
            ),
        )
        spent = (mine.c.at < before) & ((earlier & later) | ~there)
        query = select(mine.c.sequence, spent).where(mine.c.sequence > after, mine.c.sequence <= upto)
        async with self._session_factory() as session:
            rows = await session.execute(query.order_by(mine.c.sequence).limit(limit))
            return [(number, bool(is_spent)) for number, is_spent in rows]

    async def remove(self, numbers: Collection[int]) -> int:
        """Remove entries; return how many of them there were."""
        async with self._session_factory() as session:
            result = await session.execute(delete(ENTRIES).where(ENTRIES.c.sequence.in_(numbers)))
            return cast("CursorResult[Any]", result).rowcount

    async def remove_own(self, action: str, entity_id: str, *, after: int) -> None:
        """Remove what this run wrote of one kind of one thing after a number."""
        mine = (ENTRIES.c.entity_id == entity_id) & (ENTRIES.c.run == self._run) & (ENTRIES.c.action == action)
        async with self._session_factory() as session:
            await session.execute(delete(ENTRIES).where(mine, ENTRIES.c.sequence > after))

    async def last_sequence(self) -> int:
        async with self._session_factory() as session:
            return (await session.scalar(select(func.max(AuditEntry.sequence)))) or 0
