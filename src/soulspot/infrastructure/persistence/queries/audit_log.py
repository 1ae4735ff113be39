"""Queries of the audit log, and what retention removes from it."""

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Final

from sqlalchemy import ColumnElement, delete, func, or_, select

from soulspot.infrastructure.persistence.identity import normalize_name
from soulspot.infrastructure.persistence.models import Artist, AuditEntry, TrackArtist
from soulspot.infrastructure.persistence.table_access import CatalogueAccess, SessionFactory
from soulspot.infrastructure.persistence.tables import ALBUMS, ARTISTS, ENTRIES, FILES, FOLDERS, TRACKS

_TABLES: Final = (
    (("track",), TRACKS),
    (("file",), FILES),
    (("artist",), ARTISTS),
    (("album",), ALBUMS),
    (("folder", "scan"), FOLDERS),
)
"""The table that holds the entities of an entry, by their types."""


class AuditLogQueries(CatalogueAccess):
    """Queries of the entries, and their removal.

    Args:
        run: the id of this start of soulspot; `remove_own` removes its entries.

    """

    def __init__(self, session_factory: SessionFactory, *, run: str = "") -> None:
        super().__init__(session_factory)
        self._run = run

    async def entries(  # noqa: PLR0913 - one argument for each filter
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

        `path` is the full, escaped path of a file or folder; `entities` are ids; `artist` is a name, and matches the
        entries of the artist and of its tracks; `among` are sequence numbers.
        """
        conditions = (
            None if path is None else _at_or_below(path),
            None if entities is None else AuditEntry.entity_id.in_(entities),
            None if artist is None else _of_artist(artist),
            None if action is None else AuditEntry.action == action,
            None if since is None else AuditEntry.at >= since,
            None if among is None else AuditEntry.sequence.in_(among),
        )
        query = select(AuditEntry).where(*(each for each in conditions if each is not None))
        return (await self._scalars(query.order_by(AuditEntry.sequence.desc()).limit(limit)))[::-1]

    async def numbers(self, after: int, among: Collection[int], limit: int) -> Sequence[int]:
        """Return the lowest sequence numbers that exist, of those after one and of some before it."""
        asked = (AuditEntry.sequence > after) | AuditEntry.sequence.in_(among)
        query = select(AuditEntry.sequence).where(asked).order_by(AuditEntry.sequence).limit(limit)
        return await self._scalars(query)

    async def last_before(self, moment: datetime) -> int:
        """Return the number of the newest entry that is older than a moment, 0 if there is none."""
        query = select(AuditEntry.sequence).where(AuditEntry.at < moment).order_by(AuditEntry.at.desc()).limit(1)
        return await self._scalar(query) or 0

    async def aged(self, after: int, upto: int, before: datetime, limit: int) -> Sequence[tuple[int, bool]]:
        """Return the first entries in (after, upto], each with whether it is older than a moment and may be removed.

        The first and the last entry of everything that the catalogue still holds must stay; those of removed rows may
        go.
        """
        mine, other = ENTRIES, ENTRIES.alias()
        same = select(other.c.sequence).where(other.c.entity_id == mine.c.entity_id)
        earlier = same.where(other.c.sequence < mine.c.sequence).exists()
        later = same.where(other.c.sequence > mine.c.sequence).exists()
        exists = or_(
            mine.c.entity_type == "audit",
            *(
                mine.c.entity_type.in_(kinds) & select(table.c.id).where(table.c.id == mine.c.entity_id).exists()
                for kinds, table in _TABLES
            ),
        )
        spent = (mine.c.at < before) & ((earlier & later) | ~exists)
        query = select(mine.c.sequence, spent).where(mine.c.sequence > after, mine.c.sequence <= upto)
        rows = await self._rows(query.order_by(mine.c.sequence).limit(limit))
        return [(number, bool(is_spent)) for number, is_spent in rows]

    async def remove(self, numbers: Collection[int]) -> int:
        """Remove entries; return how many existed."""
        return await self._change(delete(ENTRIES).where(ENTRIES.c.sequence.in_(numbers)))

    async def remove_own(self, action: str, entity_id: str, *, after: int) -> None:
        """Remove the entries after a number that this run wrote, of one action on one entity."""
        mine = (ENTRIES.c.entity_id == entity_id) & (ENTRIES.c.run == self._run) & (ENTRIES.c.action == action)
        await self._change(delete(ENTRIES).where(mine, ENTRIES.c.sequence > after))

    async def last_sequence(self) -> int:
        return await self._scalar(select(func.max(AuditEntry.sequence))) or 0


def _at_or_below(path: str) -> ColumnElement[bool]:
    return (AuditEntry.path == path) | AuditEntry.path.startswith(f"{path}/", autoescape=True)


def _of_artist(name: str) -> ColumnElement[bool]:
    ids = select(Artist.id).where(Artist.name_key == normalize_name(name))
    tracks = select(TrackArtist.track_id).where(TrackArtist.artist_id.in_(ids))
    return AuditEntry.entity_id.in_(ids.union(tracks))
