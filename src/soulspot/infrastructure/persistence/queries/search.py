"""Searches by words: artists, albums, tracks."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from sqlalchemy import ColumnElement, func, or_, select
from sqlalchemy.orm import InstrumentedAttribute, joinedload

from soulspot.infrastructure.persistence.identity import normalize_name
from soulspot.infrastructure.persistence.models import Album, Artist, File, Track, TrackArtist
from soulspot.infrastructure.persistence.table_access import CatalogueAccess


class OnAlbum(NamedTuple):
    """A track's tags about its album, its artist, and whether its file is present."""

    disc_number: int | None
    track_number: int | None
    track_total: int | None
    disc_total: int | None
    compilation: bool | None
    artist: str
    is_present: bool


class SearchQueries(CatalogueAccess):
    """Every word must match, in any case, anywhere in a name."""

    async def artists(self, words: Iterable[str], limit: int | None = None) -> list[tuple[Artist, int]]:
        """Return the artists whose name contains every word, with the number of tracks that credit each, by name."""
        credited = select(func.count(TrackArtist.track_id.distinct())).where(TrackArtist.artist_id == Artist.id)
        tracks = credited.join(File, File.track_id == TrackArtist.track_id).where(File.missing_since.is_(None))
        query = select(Artist, tracks.correlate(Artist).scalar_subquery()).order_by(Artist.name_key, Artist.id)
        rows = await self._rows(query.where(*contains_words(Artist.name_key, words)).limit(limit))
        return [(artist, count) for artist, count in rows]

    async def albums(self, words: Iterable[str]) -> list[tuple[Album, list[OnAlbum]]]:
        """Return the albums whose title or artists contain every word, with their tracks, by title and date."""
        scope = [_album_contains(word) for word in words]
        on_album = (
            select(Track.album_id, Track.disc_number, Track.track_number, Track.track_total, Track.disc_total)
            .add_columns(Track.compilation, Artist.name, File.missing_since.is_(None))
            .join(Track.artist)
            .join(Track.files)
            .where(Track.album_id.in_(select(Album.id).where(*scope)) if scope else Track.album_id.is_not(None))
        )
        albums = await self._scalars(select(Album).where(*scope).order_by(Album.title_key, Album.date, Album.id))
        tracks: dict[str, list[OnAlbum]] = {}
        for album_id, *values in await self._rows(on_album):
            tracks.setdefault(album_id, []).append(OnAlbum(*values))
        return [(album, tracks.get(album.id, [])) for album in albums]

    async def tracks(self, words: Iterable[str], limit: int | None = None) -> Sequence[File]:
        """Return the files, with track, album and folder, whose title, artist or album contain every word.

        Sorted by artist, album, disc and number; includes failed and missing files that have a track.
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
        return await self._scalars(query.where(*contains_words(Track.search_text, words)).limit(limit))


def contains_words(column: InstrumentedAttribute[str], words: Iterable[str]) -> list[ColumnElement[bool]]:
    """Return the conditions that a column of normalized text contains every word."""
    return [column.contains(normalize_name(word), autoescape=True) for word in words]


def _album_contains(word: str) -> ColumnElement[bool]:
    """Whether an album's title, its artist, or a main artist of its tracks contains a word."""
    (named,) = contains_words(Artist.name_key, [word])
    return or_(
        *contains_words(Album.title_key, [word]),
        select(Artist.id).where(Artist.id == Album.artist_id, named).exists(),
        select(Track.id).join(Track.artist).where(Track.album_id == Album.id, named).exists(),
    )
