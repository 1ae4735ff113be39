"""The pages to read: the stream, albums, artists, a track with its history, failures, health."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from itertools import groupby
from operator import attrgetter
from typing import Final, TypeVar

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import PlainTextResponse, RedirectResponse, Response

from soulspot.infrastructure.persistence.queries.browse import BrowseQueries
from soulspot.infrastructure.persistence.repositories import (
    AlbumRepository,
    ArtistRepository,
    FileRepository,
    TrackRepository,
)
from soulspot.web.activity_chart import ActivityCounts, Unit, draw_chart
from soulspot.web.daemon_client import DaemonClient
from soulspot.web.event_kinds import FILES, KINDS
from soulspot.web.rendering import Rendering

PAGE_SIZE: Final = 50
GRID_SIZE: Final = 60
MAX_QUERY_CHARACTERS: Final = 200
MAX_QUERY_WORDS: Final = 8
NOT_FOUND: Final = "The catalogue has no such entry."
_COLUMNS: Final = (
    ("date", "original_date", "genres", "compilation", "isrc", "musicbrainz_recording_id", "musicbrainz_track_id")
    + ("container", "codec", "lossless", "bitrate", "sample_rate", "bits_per_sample", "channels")
    + ("replaygain_track_gain", "replaygain_track_peak", "replaygain_album_gain", "replaygain_album_peak")
)

Row = TypeVar("Row")


def found_or_404(row: Row | None) -> Row:
    if row is None:
        raise HTTPException(404, NOT_FOUND)
    return row


@dataclass(frozen=True, slots=True)
class Pages:
    """Renders the pages; `advice` maps the code of a failure to what to do about it."""

    rendering: Rendering
    browsing: BrowseQueries
    tracks: TrackRepository
    files: FileRepository
    albums: AlbumRepository
    artists: ArtistRepository
    daemon: DaemonClient
    activity_counts: ActivityCounts
    advice: Mapping[str, str]

    async def stream(self, request: Request) -> Response:
        """The newest audit entries: those on files, of one kind, or all."""
        kind = request.query_params.get("kind", "")
        if kind not in {"", "all", *KINDS}:
            raise HTTPException(404, NOT_FOUND)
        before, last = parse_sequence(request.query_params.get("before")), await self.browsing.last_sequence()
        actions = {"": FILES, "all": None}.get(kind, KINDS.get(kind))
        found = await self.browsing.entries(before=before, actions=actions, limit=PAGE_SIZE)
        by: Unit = "hour" if request.query_params.get("by") == "hour" else "day"
        chart = draw_chart(await self.activity_counts.bars(by) if before is None else ())
        return await self.rendering.page(
            request, "stream.html", entries=found.entries, older=found.older, kind=kind, kinds=KINDS, last=last,
            is_first=before is None, chart=chart, by=by, is_counted=self.activity_counts.is_complete,
        )  # fmt: skip

    async def entry(self, request: Request) -> Response:
        """One complete audit entry, as text."""
        sequence = min(int(request.path_params["sequence"]), 2**63 - 1)
        entry = found_or_404(await self.browsing.entry(sequence))
        names = ("action", "entity_type", "entity_id", "path", "run")
        head = {"sequence": entry.sequence, "at": entry.at.isoformat()} | {name: getattr(entry, name) for name in names}
        lines = [f"{name:<12} {value}" for name, value in head.items()]
        changes = json.dumps(entry.changes, ensure_ascii=False, indent=1)
        return PlainTextResponse("\n".join([*lines, "", changes, ""]))

    async def search(self, request: Request) -> Response:
        """Tracks, albums, artists and files that contain all words."""
        query = request.query_params.get("q", "").strip()[:MAX_QUERY_CHARACTERS]
        words, after = query.split()[:MAX_QUERY_WORDS], request.query_params.get("after")
        is_first = bool(words) and after is None
        songs = await self.browsing.songs(words, after=after, limit=PAGE_SIZE) if words else ()
        return await self.rendering.page(
            request, "search.html", q=query, words=words, songs=songs,
            albums=await self.browsing.albums(words, limit=12) if is_first else (),
            artists=await self.browsing.artists(words, limit=12) if is_first else (),
            files=await self.browsing.files(words, limit=20) if is_first else (),
            older=songs[-1].track_id if len(songs) == PAGE_SIZE else None,
        )  # fmt: skip

    async def track(self, request: Request) -> Response:
        """One file and its track, by the id of either."""
        file = found_or_404(await self.files.with_id(request.path_params["id"]))
        if file.track_id is not None and request.path_params["id"] != file.track_id:
            return RedirectResponse(request.url_for("track", id=file.track_id).path, 303)
        track = await self.tracks.get_by_id(file.track_id) if file.track_id else None
        ids = [file.id, track.id] if track else [file.id]
        history = await self.browsing.history(ids, before=parse_sequence(request.query_params.get("before")))
        values = {name: getattr(track, name) for name in _COLUMNS} | dict(track.tags) if track else {}
        values = {name: value for name, value in values.items() if value not in (None, "", [], {})}
        return await self.rendering.page(
            request, "track.html", file=file, path=file.full_path, track=track, values=values, history=history,
            advice=self.advice.get(file.error_code or ""),
        )  # fmt: skip

    async def full_value(self, request: Request) -> Response:
        """One value of a track, in full."""
        track, name = found_or_404(await self.tracks.get_by_id(request.path_params["id"])), request.path_params["name"]
        if name not in _COLUMNS and name not in track.tags:
            raise HTTPException(404, NOT_FOUND)
        value = track.tags[name] if name in track.tags else getattr(track, name)
        return PlainTextResponse(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, indent=1))

    async def all_albums(self, request: Request) -> Response:
        """Albums by title, or the newest first."""
        by, after = request.query_params.get("by", ""), request.query_params.get("after")
        if by == "title":
            albums = await self.browsing.albums(
                after=(after or "", request.query_params.get("id", "")), limit=GRID_SIZE
            )
        else:
            albums = await self.browsing.newest_albums(after=after, limit=GRID_SIZE)
        return await self.rendering.page(request, "albums.html", albums=albums, by=by, is_full=len(albums) == GRID_SIZE)

    async def album(self, request: Request) -> Response:
        album = found_or_404(await self.albums.get_by_id(request.path_params["id"]))
        songs = await self.browsing.songs_of_album(album.id)
        discs = [(disc, list(each)) for disc, each in groupby(songs, key=attrgetter("disc"))]
        return await self.rendering.page(request, "album.html", album=album, songs=songs, discs=discs)

    async def all_artists(self, request: Request) -> Response:
        after = request.query_params.get("after", ""), request.query_params.get("id", "")
        artists = await self.browsing.artists(after=after, limit=GRID_SIZE)
        return await self.rendering.page(request, "artists.html", artists=artists, is_full=len(artists) == GRID_SIZE)

    async def artist(self, request: Request) -> Response:
        artist = found_or_404(await self.artists.get_by_id(request.path_params["id"]))
        after = request.query_params.get("after")
        songs = await self.browsing.songs_of_artist(artist.id, after=after, limit=PAGE_SIZE)
        albums = await self.browsing.albums_of_artist(artist.id) if after is None else ()
        older = songs[-1].track_id if len(songs) == PAGE_SIZE else None
        return await self.rendering.page(request, "artist.html", artist=artist, songs=songs, albums=albums, older=older)

    async def failures(self, request: Request) -> Response:
        """The files that could not be read, by failure code."""
        code = request.query_params.get("code") or None
        counts, are_more = await self.browsing.failures_by_code()
        found = await self.browsing.failures(code, after=_moment_and_id(request), limit=PAGE_SIZE) if counts else ()
        older = found[-1] if len(found) == PAGE_SIZE else None
        return await self.rendering.page(
            request, "failures.html", counts=counts, are_more=are_more, code=code, older=older, advice=self.advice,
            failures=[(each, each.full_path) for each in found],
        )  # fmt: skip

    async def health(self, request: Request) -> Response:
        return await self.rendering.page(request, "health.html", report=await self.daemon.report())


def parse_sequence(text: str | None) -> int | None:
    """Return the sequence number of an audit entry, None if the text is not one."""
    return int(text) if text and text.isascii() and text.isdecimal() and len(text) < 19 else None  # noqa: PLR2004 - 64 bits


def _moment_and_id(request: Request) -> tuple[datetime, str] | None:
    try:
        at = datetime.fromisoformat(request.query_params.get("after", ""))
    except ValueError:
        return None
    return (at, request.query_params.get("id", "")) if at.tzinfo is not None else None
