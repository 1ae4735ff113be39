"""The pages that show: the stream, albums and artists, one track with its history, failures, how things are."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from itertools import groupby
from operator import attrgetter
from typing import Any, Final

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import PlainTextResponse, RedirectResponse, Response

from soulspot.infrastructure.persistence.models import AuditEntry
from soulspot.infrastructure.persistence.queries.browse import BrowseQueries
from soulspot.infrastructure.persistence.repositories import (
    AlbumRepository,
    ArtistRepository,
    FileRepository,
    TrackRepository,
)
from soulspot.web.activity_chart import Arrivals, drawn
from soulspot.web.daemon_client import DaemonClient
from soulspot.web.event_kinds import FILES, KINDS
from soulspot.web.rendering import Rendering

PAGE: Final = 50
GRID: Final = 60
LONGEST_WORDS: Final = 200
"""Characters of what is searched for."""
WORDS: Final = 8
NOT_FOUND: Final = "The catalogue has nothing like that."
_COLUMNS: Final = (
    ("date", "original_date", "genres", "compilation", "isrc", "musicbrainz_recording_id", "musicbrainz_track_id")
    + ("container", "codec", "lossless", "bitrate", "sample_rate", "bits_per_sample", "channels")
    + ("replaygain_track_gain", "replaygain_track_peak", "replaygain_album_gain", "replaygain_album_peak")
)


@dataclass(frozen=True, slots=True)
class Pages:
    """What the catalogue shows; `advice` says what to do, by the code of a failure."""

    rendering: Rendering
    browsing: BrowseQueries
    tracks: TrackRepository
    files: FileRepository
    albums: AlbumRepository
    artists: ArtistRepository
    daemon: DaemonClient
    arrivals: Arrivals
    advice: Mapping[str, str]

    async def stream(self, request: Request) -> Response:
        """What happened, newest first, of one kind or of all that is of files."""
        asked = request.query_params.get("kind", "")
        if asked not in {"", "all", *KINDS}:
            raise HTTPException(404, NOT_FOUND)
        actions = {"": FILES, "all": None}.get(asked, KINDS.get(asked))
        before = _number(request, "before")
        last = await self.browsing.last_sequence()
        found = await self.browsing.entries(before=before, actions=actions, limit=PAGE)
        by = "hour" if request.query_params.get("by") == "hour" else "day"
        bars = await (self.arrivals.hours() if by == "hour" else self.arrivals.days()) if before is None else ()
        return await self.rendering.page(
            request, "stream.html", entries=found.entries, older=found.older, kind=asked, kinds=KINDS, last=last,
            is_first=before is None, chart=drawn(bars), by=by, is_counted=self.arrivals.is_complete,
        )  # fmt: skip

    async def entry(self, request: Request) -> Response:
        """One entry of the audit log, whole."""
        entry = await self.browsing.entry(_in_path(request, "sequence"))
        if entry is None:
            raise HTTPException(404, NOT_FOUND)
        return PlainTextResponse(_whole(entry))

    async def search(self, request: Request) -> Response:
        """Tracks, albums, artists and files in which all of some words occur."""
        asked = request.query_params.get("q", "").strip()[:LONGEST_WORDS]
        words, after = asked.split()[:WORDS], request.query_params.get("after")
        found: dict[str, Any] = {"songs": (), "albums": (), "artists": (), "files": ()}
        if words:
            found["songs"] = await self.browsing.songs(words, after=after, limit=PAGE)
        if words and after is None:
            found["albums"] = await self.browsing.albums(words, limit=12)
            found["artists"] = await self.browsing.artists(words, limit=12)
            found["files"] = await self.browsing.files(words, limit=20)
        found["older"] = found["songs"][-1].track_id if len(found["songs"]) == PAGE else None
        return await self.rendering.page(request, "search.html", q=asked, words=words, **found)

    async def track(self, request: Request) -> Response:
        """Everything that is known of one file, by its own id or by that of its track."""
        file = await self.files.with_id(request.path_params["id"])
        if file is None:
            raise HTTPException(404, NOT_FOUND)
        if file.track_id is not None and request.path_params["id"] != file.track_id:
            return RedirectResponse(request.url_for("track", id=file.track_id).path, 303)
        track = await self.tracks.get_by_id(file.track_id) if file.track_id else None
        ids = [file.id, *([track.id] if track else [])]
        history = await self.browsing.history(ids, before=_number(request, "before"))
        values = {name: getattr(track, name) for name in _COLUMNS} | dict(track.tags) if track else {}
        described = {name: value for name, value in values.items() if value not in (None, "", [], {})}
        return await self.rendering.page(
            request, "track.html", file=file, path=file.full_path, track=track, values=described, history=history,
            advice=self.advice.get(file.error_code or ""),
        )  # fmt: skip

    async def whole(self, request: Request) -> Response:
        """One value of a track, as long as it is."""
        track = await self.tracks.get_by_id(request.path_params["id"])
        name = request.path_params["name"]
        if track is None or (name not in _COLUMNS and name not in track.tags):
            raise HTTPException(404, NOT_FOUND)
        value = track.tags[name] if name in track.tags else getattr(track, name)
        return PlainTextResponse(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, indent=1))

    async def newest_albums(self, request: Request) -> Response:
        """Albums by title, or the newest of the catalogue first."""
        after = request.query_params.get("after")
        if request.query_params.get("by") == "title":
            albums = await self.browsing.albums(after=(after or "", request.query_params.get("id", "")), limit=GRID)
        else:
            albums = await self.browsing.newest_albums(after=after, limit=GRID)
        by = request.query_params.get("by", "")
        return await self.rendering.page(request, "albums.html", albums=albums, by=by, is_full=len(albums) == GRID)

    async def album(self, request: Request) -> Response:
        album = await self.albums.get_by_id(request.path_params["id"])
        if album is None:
            raise HTTPException(404, NOT_FOUND)
        songs = await self.browsing.songs_of_album(album.id)
        discs = [(disc, list(each)) for disc, each in groupby(songs, key=attrgetter("disc"))]
        return await self.rendering.page(request, "album.html", album=album, songs=songs, discs=discs)

    async def all_artists(self, request: Request) -> Response:
        after = request.query_params.get("after", ""), request.query_params.get("id", "")
        artists = await self.browsing.artists(after=after, limit=GRID)
        return await self.rendering.page(request, "artists.html", artists=artists, is_full=len(artists) == GRID)

    async def artist(self, request: Request) -> Response:
        artist = await self.artists.get_by_id(request.path_params["id"])
        if artist is None:
            raise HTTPException(404, NOT_FOUND)
        after = request.query_params.get("after")
        songs = await self.browsing.songs_of_artist(artist.id, after=after, limit=PAGE)
        albums = await self.browsing.albums_of_artist(artist.id) if after is None else ()
        older = songs[-1].track_id if len(songs) == PAGE else None
        return await self.rendering.page(
            request, "artist.html", artist=artist, songs=songs, albums=albums, older=older, after=after
        )

    async def failures(self, request: Request) -> Response:
        """The files that could not be read, by the code of the reason."""
        code = request.query_params.get("code") or None
        counts, are_more = await self.browsing.failures_by_code()
        found = await self.browsing.failures(code, after=_moment_and_id(request), limit=PAGE) if counts else ()
        older = found[-1] if len(found) == PAGE else None
        return await self.rendering.page(
            request, "failures.html", counts=counts, are_more=are_more, code=code, older=older, advice=self.advice,
            failures=[(each, each.full_path) for each in found],
        )  # fmt: skip

    async def health(self, request: Request) -> Response:
        return await self.rendering.page(request, "health.html", report=await self.daemon.report())


def _number(request: Request, name: str) -> int | None:
    text = request.query_params.get(name)
    return int(text) if text is not None and text.isascii() and text.isdecimal() and len(text) < 19 else None  # noqa: PLR2004 - of 64 bits


def _in_path(request: Request, name: str) -> int:
    return min(int(request.path_params[name]), 2**63 - 1)


def _moment_and_id(request: Request) -> tuple[datetime, str] | None:
    try:
        at = datetime.fromisoformat(request.query_params.get("after", ""))
    except ValueError:
        return None
    return (at, request.query_params.get("id", "")) if at.tzinfo is not None else None


def _whole(entry: AuditEntry) -> str:
    head = {
        "sequence": entry.sequence,
        "at": entry.at.isoformat(),
        "action": entry.action,
        "entity_type": entry.entity_type,
        "entity_id": entry.entity_id,
        "path": entry.path,
        "run": entry.run,
    }
    lines = [f"{name:<12} {value}" for name, value in head.items()]
    return "\n".join([*lines, "", json.dumps(entry.changes, ensure_ascii=False, indent=1)]) + "\n"
