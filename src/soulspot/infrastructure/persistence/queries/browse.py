"""What a page asks the catalogue: a few rows at a time by an index, and from where the last page ended.

Nothing here counts, sorts or skips what it does not show, so that a page costs the same in a catalogue of any size.
Where there is no index for a question (entries of one kind), only so much is looked through at once.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, NamedTuple

from sqlalchemy import Select, String, Text, case, cast, func, not_, select, tuple_
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.orm import contains_eager, joinedload
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement

from soulspot.infrastructure.persistence.database import SessionFactory
from soulspot.infrastructure.persistence.identity import normalize_name
from soulspot.infrastructure.persistence.models import Album, Artist, AuditEntry, File, Folder, Track, TrackArtist

WINDOW: Final = 20_000
"""Audit entries that are looked through at once for those of a kind."""
LONGEST_CHANGES: Final = 20_000
"""Characters of an entry's changes that a list reads."""
COUNTED: Final = 10_000
"""Failures that are counted; beyond, it is "more than"."""


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
    """An audit entry; `is_cut` where there is more to it than `changes` has, `song` what it is of, if that is known."""

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
    """Some entries, newest first; `older` is the sequence number to go on from, None at the beginning of time."""

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


class BrowseQueries:
    def __init__(self, session_factory: SessionFactory) -> None:
        self._session_factory = session_factory

    async def last_sequence(self) -> int:
        async with self._session_factory() as session:
            return (await session.scalar(select(func.max(AuditEntry.sequence)))) or 0

    async def entries(
        self, *, before: int | None = None, after: int = 0, actions: Collection[str] | None = None, limit: int = 50
    ) -> Entries:
        """Return the newest entries between two sequence numbers, of these actions, among the next `WINDOW`."""
        upto = before if before is not None else await self.last_sequence() + 1
        lowest = max(after, upto - 1 - (WINDOW if actions is not None else limit + WINDOW))
        query = select(*_ENTRY).where(AuditEntry.sequence < upto, AuditEntry.sequence > lowest)
        if actions is not None:
            query = query.where(AuditEntry.action.in_(actions))
        async with self._session_factory() as session:
            query = query.order_by(AuditEntry.sequence.desc()).limit(limit)
            found = [Entry(*row) for row in await session.execute(query)]
        older = found[-1].sequence if len(found) == limit else lowest + 1
        return Entries(await self._with_songs(found), older if older > 1 else None)

    async def entries_with(self, numbers: Collection[int]) -> Sequence[Entry]:
        """Return these entries, newest first."""
        query = select(*_ENTRY).where(AuditEntry.sequence.in_(numbers)).order_by(AuditEntry.sequence.desc())
        async with self._session_factory() as session:
            found = [Entry(*row) for row in await session.execute(query)]
        return await self._with_songs(found)

    async def history(self, entities: Collection[str], *, before: int | None = None, limit: int = 100) -> Entries:
        """Return what happened to a track and its file, newest first."""
        query = select(*_ENTRY).where(AuditEntry.entity_id.in_(entities))
        if before is not None:
            query = query.where(AuditEntry.sequence < before)
        async with self._session_factory() as session:
            query = query.order_by(AuditEntry.sequence.desc()).limit(limit)
            found = [Entry(*row) for row in await session.execute(query)]
        return Entries(found, found[-1].sequence if len(found) == limit else None)

    async def entry(self, sequence: int) -> AuditEntry | None:
        """Return one entry, whole."""
        async with self._session_factory() as session:
            return await session.get(AuditEntry, sequence)

    async def _with_songs(self, entries: Sequence[Entry]) -> list[Entry]:
        tracks = {each.entity_id for each in entries if each.entity_type == "track"}
        files = {each.entity_id for each in entries if each.entity_type == "file"}
        songs: dict[str, Song] = {}
        async with self._session_factory() as session:
            if tracks:
                for row in await session.execute(_songs().where(Track.id.in_(tracks))):
                    songs[row[0]] = Song(*row)
            if files:
                for file_id, *values in await session.execute(_songs(File.id).where(File.id.in_(files))):
                    songs[file_id] = Song(*values)
        return [each._replace(song=songs.get(each.entity_id)) for each in entries]

    async def songs(self, words: Iterable[str], *, after: str | None = None, limit: int = 50) -> Sequence[Song]:
        """Return the tracks whose title, artist or album hold every word, the newest first."""
        found = select(Track.id).where(
            *(Track.search_text.contains(normalize_name(each), autoescape=True) for each in words)
        )
        return await self._page_of_songs(_below(found, Track.id, after).order_by(Track.id.desc()).limit(limit))

    async def files(
        self, words: Iterable[str], *, after: str | None = None, limit: int = 20
    ) -> Sequence[tuple[File, Folder]]:
        """Return the files whose path below their folder holds every word, as it is written."""
        query = select(File.id).where(*(File.path.contains(each, autoescape=True) for each in words))
        query = _below(query, File.id, after).order_by(File.id.desc()).limit(limit)
        async with self._session_factory() as session:
            ids = list(await session.scalars(query))
            whole = select(File).where(File.id.in_(ids)).order_by(File.id.desc()).options(joinedload(File.folder))
            return [(each, each.folder) for each in (await session.scalars(whole)).all()]

    async def songs_of_album(self, album_id: str, limit: int = 500) -> Sequence[Song]:
        query = _songs().where(Track.album_id == album_id)
        query = query.order_by(Track.disc_number, Track.track_number, Track.title).limit(limit)
        async with self._session_factory() as session:
            return [Song(*row) for row in await session.execute(query)]

    async def songs_of_artist(self, artist_id: str, *, after: str | None = None, limit: int = 50) -> Sequence[Song]:
        """Return the tracks that credit an artist in any role, the newest first."""
        query = select(TrackArtist.track_id).where(TrackArtist.artist_id == artist_id).distinct()
        query = _below(query, TrackArtist.track_id, after).order_by(TrackArtist.track_id.desc()).limit(limit)
        return await self._page_of_songs(query)

    async def albums_of_artist(self, artist_id: str, limit: int = 100) -> Sequence[Album]:
        query = select(Album).where(Album.artist_id == artist_id).order_by(Album.date.desc(), Album.id).limit(limit)
        async with self._session_factory() as session:
            return (await session.scalars(query)).all()

    async def newest_albums(self, *, after: str | None = None, limit: int = 60) -> Sequence[Album]:
        query = _below(select(Album), Album.id, after).order_by(Album.id.desc()).limit(limit)
        async with self._session_factory() as session:
            return (await session.scalars(query)).all()

    async def albums(
        self, words: Iterable[str] = (), *, after: tuple[str, str] = ("", ""), limit: int = 60
    ) -> Sequence[Album]:
        """Return the albums whose title holds every word, by title, behind one of them."""
        query = select(Album).where(
            *(Album.title_key.contains(normalize_name(each), autoescape=True) for each in words)
        )
        query = query.where(tuple_(Album.title_key, Album.id) > tuple_(*after)) if any(after) else query
        async with self._session_factory() as session:
            return (await session.scalars(query.order_by(Album.title_key, Album.id).limit(limit))).all()

    async def artists(
        self, words: Iterable[str] = (), *, after: tuple[str, str] = ("", ""), limit: int = 60
    ) -> Sequence[Artist]:
        """Return the artists whose name holds every word, by name, behind one of them."""
        query = select(Artist).where(
            *(Artist.name_key.contains(normalize_name(each), autoescape=True) for each in words)
        )
        query = query.where(tuple_(Artist.name_key, Artist.id) > tuple_(*after)) if any(after) else query
        async with self._session_factory() as session:
            return (await session.scalars(query.order_by(Artist.name_key, Artist.id).limit(limit))).all()

    async def file_with_cover(self, album_id: str) -> File | None:
        """Return a file of an album that is there, one with a cover in it before others."""
        query = select(File).join(File.track).where(Track.album_id == album_id, File.missing_since.is_(None))
        query = query.order_by(Track.has_cover.desc(), Track.disc_number, Track.track_number).limit(1)
        async with self._session_factory() as session:
            return await session.scalar(query.options(joinedload(File.folder)))

    async def failures_by_code(self) -> tuple[Mapping[str, int], bool]:
        """Return the number of failures by code, and whether there are more than were counted."""
        some = select(File.error_code).where(*_FAILED).limit(COUNTED).subquery()
        query = select(some.c.error_code, func.count()).group_by(some.c.error_code)
        async with self._session_factory() as session:
            counts = {str(code): number for code, number in await session.execute(query)}
        return counts, sum(counts.values()) >= COUNTED

    async def failures(
        self, code: str | None = None, *, after: tuple[datetime, str] | None = None, limit: int = 50
    ) -> Sequence[File]:
        """Return files that could not be read, with their folders, what was tried last first."""
        query = select(File).join(File.folder).where(*_FAILED).options(contains_eager(File.folder))
        if code is not None:
            query = query.where(File.error_code == code)
        if after is not None:
            query = query.where(tuple_(File.failed_at, File.id) < tuple_(*after))
        async with self._session_factory() as session:
            return (await session.scalars(query.order_by(File.failed_at.desc(), File.id.desc()).limit(limit))).all()

    async def arrivals(
        self, after: int, upto: int, actions: Collection[str]
    ) -> tuple[Mapping[tuple[str, str], int], str | None]:
        """Return how often each action happened in each ten minutes, among the entries in (after, upto].

        Also the ten minutes of the oldest of them.
        """
        ten_minutes = TenMinutes(AuditEntry.at)
        scope = AuditEntry.sequence > after, AuditEntry.sequence <= upto
        query = select(ten_minutes, AuditEntry.action, func.count()).where(*scope)
        query = query.where(AuditEntry.action.in_(actions)).group_by(ten_minutes, AuditEntry.action)
        oldest = select(ten_minutes).where(*scope).order_by(AuditEntry.sequence).limit(1)
        async with self._session_factory() as session:
            counts = {(when, action): count for when, action, count in await session.execute(query)}
            return counts, await session.scalar(oldest)

    async def _page_of_songs(self, ids: Select[Any]) -> Sequence[Song]:
        # First which, from as little of each row as can be, and then what they are.
        async with self._session_factory() as session:
            wanted = list(await session.scalars(ids))
            found = await session.execute(_songs().where(Track.id.in_(wanted)).order_by(Track.id.desc()))
            return [Song(*row) for row in found]


_WHOLE: Final = func.coalesce(func.length(cast(AuditEntry.changes, Text)), 0) <= LONGEST_CHANGES
_ENTRY: Final = (
    AuditEntry.sequence,
    AuditEntry.at,
    AuditEntry.action,
    AuditEntry.entity_type,
    AuditEntry.entity_id,
    AuditEntry.path,
    case((_WHOLE, AuditEntry.changes)),  # lyrics may have megabytes, before and after
    not_(_WHOLE),
)
_FAILED: Final = (File.failed_at.is_not(None), File.status == "failed")


def _songs(*more: Any) -> Select[Any]:  # noqa: ANN401 - columns
    return select(*more, *_SONG).join(File, File.track_id == Track.id).outerjoin(Album, Album.id == Track.album_id)


def _below(query: Select[Any], column: Any, after: str | None) -> Select[Any]:  # noqa: ANN401
    return query if after is None else query.where(column < after)
