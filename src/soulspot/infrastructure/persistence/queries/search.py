"""What a person searches for by words: artists, albums, tracks."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from sqlalchemy import ColumnElement, func, or_, select
from sqlalchemy.orm import InstrumentedAttribute, joinedload

from soulspot.infrastructure.persistence.database import SessionFactory
from soulspot.infrastructure.persistence.identity import normalize_name
from soulspot.infrastructure.persistence.models import Album, Artist, File, Track, TrackArtist


class OnAlbum(NamedTuple):
    """What a track says of its album."""

    disc_number: int | None
    track_number: int | None
    track_total: int | None
    disc_total: int | None
    compilation: bool | None
    artist: str
    is_present: bool


class SearchQueries:
    """Each word has to be found, whatever its case; a name holds it anywhere."""

    def __init__(self, session_factory: SessionFactory) -> None:
        self._session_factory = session_factory

    async def artists(self, words: Iterable[str], limit: int | None = None) -> list[tuple[Artist, int]]:
        """Return the artists whose name holds every word, with the number of tracks that credit each, by name."""
        credited = select(func.count(TrackArtist.track_id.distinct())).where(TrackArtist.artist_id == Artist.id)
        tracks = credited.join(File, File.track_id == TrackArtist.track_id).where(File.missing_since.is_(None))
        query = select(Artist, tracks.correlate(Artist).scalar_subquery()).order_by(Artist.name_key, Artist.id)
        query = query.where(*_holds(Artist.name_key, words)).limit(limit)
        async with self._session_factory() as session:
            return [(artist, count) for artist, count in await session.execute(query)]

    async def albums(self, words: Iterable[str]) -> list[tuple[Album, list[OnAlbum]]]:
        """Return the albums whose title or artists hold every word, with their tracks, by title and date."""
        scope = [_album_names(word) for word in words]
        query = select(Album).where(*scope).order_by(Album.title_key, Album.date, Album.id)
        on_album = (
            select(Track.album_id, Track.disc_number, Track.track_number, Track.track_total, Track.disc_total)
            .add_columns(Track.compilation, Artist.name, File.missing_since.is_(None))
            .join(Track.artist)
            .join(Track.files)
            .where(Track.album_id.in_(select(Album.id).where(*scope)) if scope else Track.album_id.is_not(None))
        )
        tracks: dict[str, list[OnAlbum]] = {}
        async with self._session_factory() as session:
            albums = (await session.scalars(query)).all()
            for album_id, *values in await session.execute(on_album):
                tracks.setdefault(album_id, []).append(OnAlbum(*values))
        return [(album, tracks.get(album.id, [])) for album in albums]

    async def tracks(self, words: Iterable[str], limit: int | None = None) -> Sequence[File]:
        """Return the files, with track, album and folder, whose title, artist or album hold every word.

        In the order of artist, album, disc and number. Failed and missing files that have a track are among them.
        """
        query = (
            select(File)
            .join(File.track)
            .outerjoin(Track.album)
            .join(Track.artist)
            .options(joinedload(File.track).options(joinedload(Track.album), joinedload(Track.artist)))
            .options(joinedload(File.folder))
            .order_by(Artist.name_key, Album.title_key, Track.disc_number, Track.track_number, File.path)
        )
        query = query.where(*_holds(Track.search_text, words)).limit(limit)
        async with self._session_factory() as session:
            return (await session.scalars(query)).all()


def _holds(column: InstrumentedAttribute[str], words: Iterable[str]) -> list[ColumnElement[bool]]:
    return [column.contains(normalize_name(word), autoescape=True) for word in words]


def _album_names(word: str) -> ColumnElement[bool]:
    """Whether an album's title, its artist, or a main artist of its tracks holds a word."""
    named = Artist.name_key.contains(normalize_name(word), autoescape=True)
    return or_(
        Album.title_key.contains(normalize_name(word), autoescape=True),
        select(Artist.id).where(Artist.id == Album.artist_id, named).exists(),
        select(Track.id).join(Track.artist).where(Track.album_id == Album.id, named).exists(),
    )
