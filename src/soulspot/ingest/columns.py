"""What a file's tags become in the catalogue: the columns of its track, album and file, and its credits. Pure.

One field of `TrackTags` goes to one column; a field that has none is kept in the track's `tags`, as JSON, so that
nothing that a person wrote is lost. A text longer than its column is cut there and kept whole in `tags`.
"""

from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, fields
from typing import Any, Final

from soulspot.infrastructure.persistence.identity import album_key, fold
from soulspot.infrastructure.persistence.models import NAME_LENGTH
from soulspot.infrastructure.persistence.repositories import Credit
from soulspot.infrastructure.tags import PARSER_VERSION, TrackTags
from soulspot.ingest.scanner import FoundFile

UNKNOWN_ARTIST: Final = "[unknown]"  # MusicBrainz's name for an artist that nobody knows
TITLE_FROM_NAME: Final = "title-from-name"
ARTIST_UNKNOWN: Final = "artist-unknown"

_ROLES: Final[Mapping[str, str]] = {
    "composer": "composers",
    "lyricist": "lyricists",
    "conductor": "conductors",
    "arranger": "arrangers",
    "performer": "performers",
    "remixer": "remixers",
    "producer": "producers",
}
_SAME_NAME: Final = (
    ("track_number", "track_total", "disc_number", "disc_total", "date", "original_date", "compilation", "bitrate")
    + ("sample_rate", "channels", "bits_per_sample", "container", "codec", "lossless", "has_cover")
    + ("musicbrainz_recording_id", "musicbrainz_track_id", "replaygain_track_gain", "replaygain_track_peak")
    + ("replaygain_album_gain", "replaygain_album_peak")
)
# Columns under another name, the album's, the file's, and what credits hold.
_ELSEWHERE: Final = frozenset(
    ("title", "artist", "artists", "album", "album_artist", "genres", "duration", "fingerprint", "notes")
    + ("musicbrainz_artist_ids", "musicbrainz_album_id", "musicbrainz_release_group_id")
)
_DEFAULTS: Final = {
    field.name: () if field.default is MISSING and field.default_factory is not MISSING else field.default
    for field in fields(TrackTags)
    if field.name not in _ELSEWHERE and field.name not in _SAME_NAME
}


@dataclass(frozen=True, slots=True)
class Named:
    """What a track is called where its tags may be silent: the title from the file's name, the artist "[unknown]"."""

    title: str
    artist: str
    notes: list[str]


def named(file: FoundFile, tags: TrackTags) -> Named:
    notes = list(tags.notes)
    if not tags.title:
        notes.append(TITLE_FROM_NAME)
    artist = tags.artist or ", ".join(tags.artists)
    if not artist:
        notes.append(ARTIST_UNKNOWN)
    return Named(tags.title or title_of(file.path), artist or UNKNOWN_ARTIST, notes)


def title_of(path: str) -> str:
    """Return a title for a file without one: its name without the extension."""
    name = path.rpartition("/")[2]
    stem = name.rpartition(".")[0]
    return stem or name


def credits_of(tags: TrackTags, artist: str) -> list[Credit]:
    """Return everyone that the tags name, by role; an id belongs to a name only where there are as many of both."""
    credits = _paired("main", tags.artists or (artist,), tags.musicbrainz_artist_ids)
    album_artists = tags.album_artists or ((tags.album_artist,) if tags.album_artist else ())
    credits += _paired("album artist", album_artists, tags.musicbrainz_album_artist_ids)
    for role, name in _ROLES.items():
        if names := getattr(tags, name):
            credits += _paired(role, names, ())
    return credits


def track_columns(tags: TrackTags, name: Named) -> dict[str, Any]:
    """Return the columns of `tracks` that come from the tags alone."""
    values = {column: getattr(tags, column) for column in _SAME_NAME}
    return values | {
        "title": name.title[:NAME_LENGTH],
        "artist_credit": name.artist[:NAME_LENGTH],
        "genres": list(tags.genres),
        "duration_ms": None if tags.duration is None else round(tags.duration * 1000),
        "isrc": tags.isrcs[0][:32] if tags.isrcs else None,
        "search_text": fold(f"{name.title} {name.artist} {tags.album or ''}"),
        "tags": _without_column(tags, name),
    }


def album_key_of(file: FoundFile, tags: TrackTags) -> str:
    """Return the identity of the album that the tags name; one without a release id belongs to its watched folder."""
    key = album_key(file.path, tags.album or "", tags.album_artist, tags.date, tags.musicbrainz_album_id)
    return key if tags.musicbrainz_album_id else f"{file.root.id}:{key}"


def album_columns(tags: TrackTags, identity_key: str, artist_id: str | None) -> dict[str, Any]:
    title = tags.album or ""
    return {
        "identity_key": identity_key,
        "title": title[:NAME_LENGTH],
        "title_key": fold(title)[:NAME_LENGTH],
        "artist_id": artist_id,
        "artist_credit": tags.album_artist[:NAME_LENGTH] if tags.album_artist else None,
        "date": tags.date,
        "original_date": tags.original_date,
        "disc_total": tags.disc_total,
        "compilation": tags.compilation,
        "musicbrainz_id": tags.musicbrainz_album_id,
        "musicbrainz_release_group_id": tags.musicbrainz_release_group_id,
    }


def signature_columns(file: FoundFile) -> dict[str, Any]:
    signature = file.signature
    return {
        "size": signature.size,
        "mtime_ns": signature.mtime_ns,
        "ctime_ns": signature.ctime_ns,
        "inode": signature.inode,
    }


def file_columns(file: FoundFile, tags: TrackTags, notes: list[str]) -> dict[str, Any]:
    """Return the columns of `files` for a file that was read."""
    return signature_columns(file) | {
        "status": "catalogued",
        "missing_since": None,
        "error_code": None,
        "error_text": None,
        "attempts": 0,
        "parser_version": PARSER_VERSION,
        "fingerprint": tags.fingerprint,
        "notes": notes,
    }


def differences(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, Any]:
    """Return before and after of each column that differs; of `tags`, of each tag by its own name."""
    changes = {name: [before[name], value] for name, value in after.items() if before[name] != value}
    changes.pop("search_text", None)
    if "tags" in changes:
        old, new = changes.pop("tags")
        changes |= {
            f"tags.{name}": [old.get(name), new.get(name)]
            for name in sorted(old.keys() | new.keys())
            if old.get(name) != new.get(name)
        }
    return changes


def _paired(role: str, names: tuple[str, ...], ids: tuple[str, ...]) -> list[Credit]:
    if len(names) != len(ids):
        return [Credit(role, name) for name in names]
    return [Credit(role, name, identity) for name, identity in zip(names, ids, strict=True)]


def _without_column(tags: TrackTags, name: Named) -> dict[str, Any]:
    kept: dict[str, Any] = {}
    for field, default in _DEFAULTS.items():
        value = getattr(tags, field)
        if value != default:
            kept[field] = value
    if "pictures" in kept:
        kept["pictures"] = [asdict(picture) for picture in tags.pictures]
    texts = {"title": name.title, "artist": name.artist, "album": tags.album or ""}
    kept |= {field: text for field, text in texts.items() if len(text) > NAME_LENGTH}
    return {field: list(value) if isinstance(value, tuple) else value for field, value in kept.items()}
