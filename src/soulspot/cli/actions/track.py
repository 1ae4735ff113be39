"""`soulspot track`: shows everything about one file."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from soulspot.cli.actions.audit import print_entries
from soulspot.cli.actions.open_catalogue import find_file, query_catalogue
from soulspot.cli.output.text import local_time, print_json, printable
from soulspot.infrastructure.persistence.database import Database
from soulspot.infrastructure.persistence.models import AuditEntry, File, Track, TrackArtist
from soulspot.infrastructure.persistence.queries.audit_log import AuditLogQueries
from soulspot.infrastructure.persistence.repositories import TrackRepository
from soulspot.ingest.catalogue.credits import FEATURED, FIELDS, MAIN, ORDER
from soulspot.reports.formatting import duration

SHOWN: Final = 300
"""Characters printed of one value such as lyrics; JSON has all of them."""
_NOTES: Final = {
    "title-from-name": "no title tag: the title is the file name",
    "artist-from-album-artist": "no artist tag: the artist is the album artist",
    "artist-unknown": "no artist tag",
    "invalid-text": "some text is in an unknown encoding",
    "credits-capped": "too many credits: some are only in the tags",
    "value-capped": "a very long text was cut",
}
_COLUMNS: Final = (
    ("title", "artist_credit", "track_number", "track_total", "disc_number", "disc_total", "date", "original_date")
    + ("genres", "compilation", "isrc", "musicbrainz_recording_id", "musicbrainz_track_id", "replaygain_track_gain")
    + ("replaygain_track_peak", "replaygain_album_gain", "replaygain_album_peak", "has_cover")
)
_SOUND: Final = ("container", "codec", "lossless", "duration_ms") + (
    "bitrate",
    "sample_rate",
    "bits_per_sample",
    "channels",
)
_ALBUM: Final = ("id", "title", "artist_credit", "artist_id", "date", "original_date", "disc_total", "compilation") + (
    "musicbrainz_id",
    "musicbrainz_release_group_id",
)
_FILE: Final = (
    "id",
    "status",
    "missing_since",
    "size",
    "mtime_ns",
    "inode",
    "fingerprint",
    "parser_version",
    "notes",
) + ("error_code", "error_text", "failed_at", "attempts")
_HISTORY: Final = ("sequence", "at", "action", "path", "changes")
_IN_CREDITS: Final = frozenset((*FIELDS.values(), "performer_instruments"))
_NAMES: Final = {"artist_credit": "artist"}


def show(asked: str, config: Path | None, *, as_json: bool) -> None:
    async def read(database: Database) -> tuple[File, Track | None, Sequence[AuditEntry]]:
        file = await find_file(database, asked)
        track = await TrackRepository(database.session).get_by_id(file.track_id) if file.track_id else None
        ids = [file.id, *([track.id] if track else [])]
        return file, track, await AuditLogQueries(database.session).entries(entities=ids)

    file, track, entries = query_catalogue(config, read)
    if as_json:
        print_json(_as_json(file, track, entries))
        return
    for name, value in (*_track_lines(track), ("", ""), *_file_lines(file)) if track else _file_lines(file):
        print(printable(f"{name:<20}{value}").rstrip())
    print()
    print_entries(entries)


def _as_json(file: File, track: Track | None, entries: Iterable[AuditEntry]) -> dict[str, Any]:
    return {
        "id": track.id if track else None,
        "path": file.full_path,
        **(_track_as_json(track) if track else {}),
        "file": {name: getattr(file, name) for name in _FILE},
        "history": [{name: getattr(entry, name) for name in _HISTORY} for entry in entries],
    }


def _track_as_json(track: Track) -> dict[str, Any]:
    return {
        **{_NAMES.get(name, name): getattr(track, name) for name in _COLUMNS + _SOUND},
        "album": track.album and {_NAMES.get(name, name): getattr(track.album, name) for name in _ALBUM},
        "credits": [_credit(credit) for credit in _in_order(track.credits)],
        "tags": track.tags,
        "added_at": track.created_at,
        "updated_at": track.updated_at,
    }


def _in_order(credits: Iterable[TrackArtist]) -> list[TrackArtist]:
    return sorted(credits, key=lambda credit: (ORDER.index(credit.role), credit.position))


def _credit(credit: TrackArtist) -> dict[str, Any]:
    return {
        "role": credit.role,
        "artist": credit.artist.name,
        "artist_id": credit.artist_id,
        "musicbrainz_id": credit.artist.musicbrainz_id,
        "sort_name": credit.artist.sort_name,
        "credited_as": credit.credited_as,
        "instrument": credit.instrument,
    }


def _track_lines(track: Track) -> Iterator[tuple[str, str]]:
    yield "title", track.title
    yield "artist", track.artist_credit
    if track.album is not None:
        by = f" by {track.album.artist_credit}" if track.album.artist_credit else ""
        yield "album", f"{track.album.title}{by}"
    yield from _numbers("disc", track.disc_number, track.disc_total)
    yield from _numbers("track", track.track_number, track.track_total)
    for credit in _in_order(track.credits):
        role = f"{credit.role} artist" if credit.role in {MAIN, FEATURED} else credit.role
        yield role, _credited(credit)
    shown = {"title", "artist_credit", "track_number", "track_total", "disc_number", "disc_total"}
    for name in _COLUMNS:
        if name not in shown:
            yield from _lines(name, getattr(track, name))
    for name, value in track.tags.items():
        if name not in _IN_CREDITS:
            yield from _lines(name, value)
    yield "sound", _sound(track)
    yield "id", track.id


def _numbers(name: str, number: int | None, total: int | None) -> Iterator[tuple[str, str]]:
    if number is not None or total is not None:
        yield name, f"{'?' if number is None else number}{f' of {total}' if total else ''}"


def _credited(credit: TrackArtist) -> str:
    name, artist = credit.credited_as, credit.artist
    text = name if name == artist.name else f"{name} (the artist {artist.name})"
    text += f", {credit.instrument}" if credit.instrument else ""
    return f"{text}  {artist.musicbrainz_id}" if artist.musicbrainz_id else text


def _lines(name: str, value: object) -> Iterator[tuple[str, str]]:
    """Yield a line for a value, several for a value with parts, none for an empty one."""
    if isinstance(value, Mapping):
        for key, each in value.items():
            text = "; ".join(map(str, each)) if isinstance(each, Sequence) and not isinstance(each, str) else str(each)
            yield from _lines(str(key), text)
    elif isinstance(value, Sequence) and not isinstance(value, str):
        if value and isinstance(value[0], Mapping):
            yield name, "; ".join(" ".join(map(str, each.values())) for each in value)
        elif value:
            yield from _lines(name, "; ".join(map(str, value)))
    elif value is not None and value != "":
        text = {True: "yes", False: "no"}[value] if isinstance(value, bool) else str(value)
        rest = f"… ({len(text)} characters)" if len(text) > SHOWN else ""
        yield name.replace("_", " "), text[:SHOWN] + rest


def _sound(track: Track) -> str:
    parts = (
        track.codec,
        None if track.lossless is None else "lossless" if track.lossless else "lossy",
        duration(track.duration_ms),
        track.bitrate and f"{track.bitrate / 1000:.0f} kbit/s",
        track.sample_rate and f"{track.sample_rate / 1000:g} kHz",
        track.bits_per_sample and f"{track.bits_per_sample} bit",
        track.channels and ("mono" if track.channels == 1 else f"{track.channels} channels"),
    )
    return ", ".join(str(part) for part in parts if part) or "unknown"


def _file_lines(file: File) -> Iterator[tuple[str, str]]:
    yield "file", file.full_path
    since = f" since {local_time(file.missing_since)}" if file.missing_since else ""
    yield "status", f"{file.status}{since}"
    if file.error_code is not None:
        yield "failure", f"{file.error_code}: {file.error_text}"
    yield "size", f"{file.size} bytes"
    if file.fingerprint is not None:
        yield "fingerprint", file.fingerprint
    for note in file.notes:
        yield "note", _NOTES.get(note, note)
