"""`soulspot tracks` and `soulspot artists`: search the catalogue."""

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from soulspot.cli.actions.open_catalogue import open_catalogue
from soulspot.cli.output.text import duration, print_json, print_table
from soulspot.infrastructure.persistence.models import File
from soulspot.infrastructure.persistence.queries.search import SearchQueries


def tracks(words: Sequence[str], config: Path | None, *, limit: int | None, as_json: bool) -> None:
    asyncio.run(_tracks(words, config, limit=limit, as_json=as_json))


def artists(words: Sequence[str], config: Path | None, *, limit: int | None, as_json: bool) -> None:
    asyncio.run(_artists(words, config, limit=limit, as_json=as_json))


async def _tracks(words: Sequence[str], config: Path | None, *, limit: int | None, as_json: bool) -> None:
    async with open_catalogue(config) as (database, _url):
        found = await SearchQueries(database.session).tracks(words, limit)
    if as_json:
        for file in found:
            print_json(_track(file))
        return
    headings = ("artist", "title", "album", "no.", "length", "file")
    print_table(headings, [_track_row(file) for file in found])


def _track(file: File) -> dict[str, Any]:
    track = file.track
    assert track is not None
    named = ("track_number", "track_total", "disc_number", "disc_total", "date", "genres", "duration_ms", "codec")
    more = ("bitrate", "sample_rate", "channels", "has_cover", "musicbrainz_recording_id")
    return {
        "id": track.id,
        "title": track.title,
        "artist": track.artist_credit,
        "artist_id": track.artist_id,
        "album": track.album.title if track.album else None,
        "album_artist": track.album.artist_credit if track.album else None,
        **{name: getattr(track, name) for name in named + more},
        "path": file.full_path,
        "status": file.status,
    }


def _track_row(file: File) -> Sequence[object]:
    track = file.track
    assert track is not None
    album = track.album.title if track.album else None
    path = file.full_path if file.status == "catalogued" else f"{file.full_path} ({file.status})"
    return track.artist_credit, track.title, album, track.track_number, duration(track.duration_ms), path


async def _artists(words: Sequence[str], config: Path | None, *, limit: int | None, as_json: bool) -> None:
    async with open_catalogue(config) as (database, _url):
        found = await SearchQueries(database.session).artists(words, limit)
    if as_json:
        for artist, count in found:
            ids = {"id": artist.id, "name": artist.name, "musicbrainz_id": artist.musicbrainz_id}
            print_json(ids | {"tracks": count})
        return
    print_table(
        ("artist", "tracks", "MusicBrainz id"), [(each.name, count, each.musicbrainz_id) for each, count in found]
    )
