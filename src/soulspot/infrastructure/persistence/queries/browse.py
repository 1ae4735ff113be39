"""Queries of the web page: a few rows at a time, by an index, starting where the last page ended.

No query counts, sorts or skips rows that it does not show, so a page costs the same in a catalogue of any size. Where
no index fits (entries of one action), a query reads a limited window.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, NamedTuple, TypeVar

from sqlalchemy import Select, String, Text, case, cast, func, not_, select, tuple_
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.orm import InstrumentedAttribute, contains_eager, joinedload
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement

from soulspot.infrastructure.persistence.models import Album, Artist, AuditEntry, File, Folder, Track, TrackArtist
from soulspot.infrastructure.persistence.queries.search import contains_words
from soulspot.infrastructure.persistence.table_access import CatalogueAccess

_T = TypeVar("_T")

WINDOW: Final = 20_000
"""Audit entries that one query for some actions reads."""
LONGEST_CHANGES: Final = 20_000
"""Characters of an entry's changes that a list shows."""
COUNTED: Final = 10_000
"""Failures that are counted; the page shows "more than" for more."""


class Song(NamedTuple):
    """A track as a line of a list shows it."""

    track_id: str
    title: str
    artist: str
    artist_id: str
    album: str | None
    album_id: str | None
    number: int | None
    disc: int | None
    duration_ms: int | None
    status: str


class Entry(NamedTuple):
    """An audit entry; `is_cut`: `changes` is omitted because it is long; `song`: the entity, if it is a known song."""

    sequence: int
    at: datetime
    action: str
    entity_type: str
    entity_id: str
    path: str | None
    changes: Mapping[str, Any] | None
    is_cut: bool
    song: Song | None = None


@dataclass(frozen=True, slots=True)
class Entries:
    """Some entries, newest first; `older` is the `before` of the next page, None on the last page."""

    entries: Sequence[Entry]
    older: int | None


class TenMinutes(FunctionElement[str]):
    """The ten minutes of a moment in UTC, as the first 15 characters of its text: "2026-11-24 17:5"."""

    inherit_cache = True
    type = String()


@compiles(TenMinutes, "sqlite")
def _on_sqlite(element: TenMinutes, compiler: SQLCompiler, **options: Any) -> str:  # noqa: ANN401 - SQLAlchemy's own
    return f"substr({compiler.process(element.clauses, **options)}, 1, 15)"


@compiles(TenMinutes, "postgresql")
def _on_postgresql(element: TenMinutes, compiler: SQLCompiler, **options: Any) -> str:  # noqa: ANN401
    moment = compiler.process(element.clauses, **options)
    return f"substr(to_char({moment} AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI'), 1, 15)"


_SONG = (
    Track.id,
    Track.title,
    Track.artist_credit,
    Track.artist_id,
    Album.title,
    Track.album_id,
    Track.track_number,
    Track.disc_number,
    Track.duration_ms,
    File.status,
)


class BrowseQueries(CatalogueAccess):
    async def last_sequence(self) -> int:
        return await self._scalar(select(func.max(AuditEntry.sequence))) or 0

    async def entries(
        self, *, before: int | None = None, after: int = 0, actions: Collection[str] | None = None, limit: int = 50
    ) -> Entries:
        """Return the newest entries between two sequence numbers, of these actions, within the next `WINDOW`."""
        upto = before if before is not None else await self.last_sequence() + 1
        lowest = max(after, upto - 1 - (WINDOW if actions is not None else limit + WINDOW))
        query = select(*_ENTRY).where(AuditEntry.sequence < upto, AuditEntry.sequence > lowest)
        if actions is not None:
            query = query.where(AuditEntry.action.in_(actions))
        found = await self._newest_entries(query.limit(limit))
        older = found[-1].sequence if len(found) == limit else lowest + 1
        return Entries(await self._with_songs(found), older if older > 1 else None)

    async def entries_with(self, numbers: Collection[int]) -> Sequence[Entry]:
        """Return these entries, newest first."""
        query = select(*_ENTRY).where(AuditEntry.sequence.in_(numbers))
        return await self._with_songs(await self._newest_entries(query))

    async def history(self, entities: Collection[str], *, before: int | None = None, limit: int = 100) -> Entries:
        """Return the entries of a track and its file, newest first."""
        query = select(*_ENTRY).where(AuditEntry.entity_id.in_(entities))
        if before is not None:
            query = query.where(AuditEntry.sequence < before)
        found = await self._newest_entries(query.limit(limit))
        return Entries(found, found[-1].sequence if len(found) == limit else None)

    async def entry(self, sequence: int) -> AuditEntry | None:
        """Return one entry with all its changes."""
        return await self._get(AuditEntry, sequence)

    async def songs(self, words: Iterable[str], *, after: str | None = None, limit: int = 50) -> Sequence[Song]:
        """Return the tracks whose title, artist or album contain every word, the newest first."""
        query = select(Track.id).where(*contains_words(Track.search_text, words))
        return await self._page_of_songs(_page(query, Track.id, after, limit))

    async def files(
        self, words: Iterable[str], *, after: str | None = None, limit: int = 20
    ) -> Sequence[tuple[File, Folder]]:
        """Return the files whose path below their folder contains every word, case-sensitively."""
        query = select(File.id).where(*(File.path.contains(each, autoescape=True) for each in words))
        ids = await self._scalars(_page(query, File.id, after, limit))
        files = select(File).where(File.id.in_(ids)).order_by(File.id.desc()).options(joinedload(File.folder))
        return [(each, each.folder) for each in await self._scalars(files)]

    async def songs_of_album(self, album_id: str, limit: int = 500) -> Sequence[Song]:
        query = _songs().where(Track.album_id == album_id)
        rows = await self._rows(query.order_by(Track.disc_number, Track.track_number, Track.title).limit(limit))
        return [Song(*row) for row in rows]

    async def songs_of_artist(self, artist_id: str, *, after: str | None = None, limit: int = 50) -> Sequence[Song]:
        """Return the tracks that credit an artist in any role, the newest first."""
        query = select(TrackArtist.track_id).where(TrackArtist.artist_id == artist_id).distinct()
        return await self._page_of_songs(_page(query, TrackArtist.track_id, after, limit))

    async def albums_of_artist(self, artist_id: str, limit: int = 100) -> Sequence[Album]:
        query = select(Album).where(Album.artist_id == artist_id)
        return await self._scalars(query.order_by(Album.date.desc(), Album.id).limit(limit))

    async def newest_albums(self, *, after: str | None = None, limit: int = 60) -> Sequence[Album]:
        return await self._scalars(_page(select(Album), Album.id, after, limit))

    async def albums(
        self, words: Iterable[str] = (), *, after: tuple[str, str] = ("", ""), limit: int = 60
    ) -> Sequence[Album]:
        """Return the albums whose title contains every word, by title, after the one with this key and id."""
        query = select(Album).where(*contains_words(Album.title_key, words))
        return await self._scalars(_page_by_key(query, Album.title_key, Album.id, after).limit(limit))

    async def artists(
        self, words: Iterable[str] = (), *, after: tuple[str, str] = ("", ""), limit: int = 60
    ) -> Sequence[Artist]:
        """Return the artists whose name contains every word, by name, after the one with this key and id."""
        query = select(Artist).where(*contains_words(Artist.name_key, words))
        return await self._scalars(_page_by_key(query, Artist.name_key, Artist.id, after).limit(limit))

    async def file_with_cover(self, album_id: str) -> File | None:
        """Return a present file of an album, preferably one with an embedded cover."""
        query = select(File).join(File.track).where(Track.album_id == album_id, File.missing_since.is_(None))
        query = query.order_by(Track.has_cover.desc(), Track.disc_number, Track.track_number).limit(1)
        return await self._scalar(query.options(joinedload(File.folder)))

    async def failures_by_code(self) -> tuple[Mapping[str, int], bool]:
        """Return the number of failures by code, and whether `COUNTED` was reached."""
        some = select(File.error_code).where(*_FAILED).limit(COUNTED).subquery()
        rows = await self._rows(select(some.c.error_code, func.count()).group_by(some.c.error_code))
        counts = {str(code): number for code, number in rows}
        return counts, sum(counts.values()) >= COUNTED

    async def failures(
        self, code: str | None = None, *, after: tuple[datetime, str] | None = None, limit: int = 50
    ) -> Sequence[File]:
        """Return files that could not be read, with their folders, the last attempts first."""
        query = select(File).join(File.folder).where(*_FAILED).options(contains_eager(File.folder))
        if code is not None:
            query = query.where(File.error_code == code)
        if after is not None:
            query = query.where(tuple_(File.failed_at, File.id) < tuple_(*after))
        return await self._scalars(query.order_by(File.failed_at.desc(), File.id.desc()).limit(limit))

    async def arrivals(
        self, after: int, upto: int, actions: Collection[str]
    ) -> tuple[Mapping[tuple[str, str], int], str | None]:
        """Return the number of entries in (after, upto] by ten minutes and action, and the oldest ten minutes."""
        ten_minutes = TenMinutes(AuditEntry.at)
        scope = AuditEntry.sequence > after, AuditEntry.sequence <= upto
        query = select(ten_minutes, AuditEntry.action, func.count()).where(*scope)
        query = query.where(AuditEntry.action.in_(actions)).group_by(ten_minutes, AuditEntry.action)
        counts = {(when, action): count for when, action, count in await self._rows(query)}
        return counts, await self._scalar(select(ten_minutes).where(*scope).order_by(AuditEntry.sequence).limit(1))

    async def _newest_entries(self, query: Select[*tuple[Any, ...]]) -> list[Entry]:
        return [Entry(*row) for row in await self._rows(query.order_by(AuditEntry.sequence.desc()))]

    async def _with_songs(self, entries: Sequence[Entry]) -> list[Entry]:
        songs: dict[str, Song] = {}
        for kind, column in (("track", Track.id), ("file", File.id)):
            if ids := {each.entity_id for each in entries if each.entity_type == kind}:
                for entity_id, *song in await self._rows(_songs(column).where(column.in_(ids))):
                    songs[entity_id] = Song(*song)
        return [each._replace(song=songs.get(each.entity_id)) for each in entries]

    async def _page_of_songs(self, ids: Select[str]) -> Sequence[Song]:
        # Select the ids first: from an index, without the rows.
        wanted = await self._scalars(ids)
        rows = await self._rows(_songs().where(Track.id.in_(wanted)).order_by(Track.id.desc()))
        return [Song(*row) for row in rows]


_WHOLE: Final = func.coalesce(func.length(cast(AuditEntry.changes, Text)), 0) <= LONGEST_CHANGES
_ENTRY: Final = (
    AuditEntry.sequence,
    AuditEntry.at,
    AuditEntry.action,
    AuditEntry.entity_type,
    AuditEntry.entity_id,
    AuditEntry.path,
    case((_WHOLE, AuditEntry.changes)),  # lyrics may take megabytes, before and after
    not_(_WHOLE),
)
_FAILED: Final = (File.failed_at.is_not(None), File.status == "failed")


def _songs(*more: Any) -> Select[Any]:  # noqa: ANN401 - columns
    return select(*more, *_SONG).join(File, File.track_id == Track.id).outerjoin(Album, Album.id == Track.album_id)


def _page(query: Select[_T], column: InstrumentedAttribute[str], after: str | None, limit: int) -> Select[_T]:
    """Return the query of one page by descending id; `after` is the last id of the page before."""
    return (query if after is None else query.where(column < after)).order_by(column.desc()).limit(limit)


def _page_by_key(
    query: Select[_T], key: InstrumentedAttribute[str], identity: InstrumentedAttribute[str], after: tuple[str, str]
) -> Select[_T]:
    """Return the query of one page by key and id; `after` are the last ones of the page before."""
    return (query.where(tuple_(key, identity) > tuple_(*after)) if any(after) else query).order_by(key, identity)
