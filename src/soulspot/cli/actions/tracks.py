"""`soulspot tracks` and `soulspot artists`: search the catalogue."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from soulspot.cli.actions.open_catalogue import query_catalogue
from soulspot.cli.output.text import Row, print_rows
from soulspot.infrastructure.persistence.models import File
from soulspot.infrastructure.persistence.queries.search import SearchQueries
from soulspot.reports.formatting import duration


def tracks(words: Sequence[str], config: Path | None, *, limit: int | None, as_json: bool) -> None:
    found = query_catalogue(config, lambda database: SearchQueries(database.session).tracks(words, limit))
    columns = {"artist": "artist", "title": "title", "album": "album", "no.": "track_number"}
    print_rows(map(_track, found), {**columns, "length": _length, "file": _file}, as_json=as_json)


def artists(words: Sequence[str], config: Path | None, *, limit: int | None, as_json: bool) -> None:
    found = query_catalogue(config, lambda database: SearchQueries(database.session).artists(words, limit))
    rows = [
        {"id": artist.id, "name": artist.name, "musicbrainz_id": artist.musicbrainz_id, "tracks": count}
        for artist, count in found
    ]
    columns = {"artist": "name", "tracks": "tracks", "MusicBrainz id": "musicbrainz_id"}
    print_rows(rows, columns, as_json=as_json)


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


def _length(track: Row) -> str:
    return duration(track["duration_ms"])


def _file(track: Row) -> str:
    return str(track["path"]) if track["status"] == "catalogued" else f"{track['path']} ({track['status']})"
