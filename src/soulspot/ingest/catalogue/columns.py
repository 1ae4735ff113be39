"""What a file's tags become in the catalogue: the columns of its track, album and file. Pure; `credits.py` has who.

One field of `TrackTags` goes to one column; a field that has none is kept in the track's `tags`, as JSON, so that
nothing that a person wrote is lost. A text longer than its column is cut there and kept whole in `tags`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import MISSING, asdict, dataclass, fields
from operator import attrgetter
from typing import Any, Final

from soulspot.infrastructure.persistence.identity import album_key, album_name, is_various, normalize_name
from soulspot.infrastructure.persistence.models import NAME_LENGTH
from soulspot.infrastructure.persistence.records import Credited
from soulspot.infrastructure.tags import TrackTags
from soulspot.ingest.catalogue.credits import ALBUM_ARTIST, MAIN
from soulspot.ingest.disk.walker import FoundFile

UNKNOWN_ARTIST: Final = "[unknown]"  # MusicBrainz's name for an artist that nobody knows
TITLE_FROM_NAME: Final = "title-from-name"
ARTIST_FROM_ALBUM: Final = "artist-from-album-artist"
ARTIST_UNKNOWN: Final = "artist-unknown"
CREDITS_CAPPED: Final = "credits-capped"

_SAME_NAME: Final = (
    ("track_number", "track_total", "disc_number", "disc_total", "date", "original_date", "compilation", "bitrate")
    + ("sample_rate", "channels", "bits_per_sample", "container", "codec", "lossless", "has_cover")
    + ("musicbrainz_recording_id", "musicbrainz_track_id", "replaygain_track_gain", "replaygain_track_peak")
    + ("replaygain_album_gain", "replaygain_album_peak")
)
# Columns under another name, the album's, the file's, and what credits hold.
_ELSEWHERE: Final = frozenset(
    (
        "title",
        "artist",
        "artists",
        "album",
        "album_artist",
        "album_artists",
        "performer_instruments",
        "genres",
        "duration",
        "fingerprint",
        "notes",
    )
    + ("musicbrainz_artist_ids", "musicbrainz_album_id", "musicbrainz_release_group_id")
)
_DEFAULTS: Final = {
    field.name: field.default if field.default_factory is MISSING else field.default_factory()
    for field in fields(TrackTags)
    if field.name not in _ELSEWHERE and field.name not in _SAME_NAME
}
# All of them in one call: these run for every file.
_same_values: Final = attrgetter(*_SAME_NAME)
_kept_values: Final = attrgetter(*_DEFAULTS)


@dataclass(frozen=True, slots=True)
class Named:
    """What a track is called where its tags may be silent: by its file's name, its album artist, "[unknown]"."""

    title: str
    artist: str
    notes: list[str]


def named(file: FoundFile, tags: TrackTags) -> Named:
    notes = list(tags.notes)
    if not tags.title:
        notes.append(TITLE_FROM_NAME)
    artist = tags.artist or ", ".join(tags.artists)
    if not artist:
        notes.append(ARTIST_FROM_ALBUM if tags.album_artist and not is_various(tags.album_artist) else ARTIST_UNKNOWN)
        artist = (tags.album_artist or "") if notes[-1] == ARTIST_FROM_ALBUM else ""
    return Named(tags.title or title_of(file.path), artist or UNKNOWN_ARTIST, notes)


def title_of(path: str) -> str:
    """Return a title for a file without one: its name without the extension."""
    name = path.rpartition("/")[2]
    stem = name.rpartition(".")[0]
    return stem or name


def track_columns(tags: TrackTags, name: Named, credited: Sequence[Credited]) -> dict[str, Any]:
    """Return the columns of `tracks` that come from the tags, but for its album."""
    return dict(zip(_SAME_NAME, _same_values(tags), strict=True)) | {
        "title": name.title[:NAME_LENGTH],
        "artist_credit": name.artist[:NAME_LENGTH],
        "artist_id": credited[0].artist_id,
        "genres": list(tags.genres),
        "duration_ms": None if tags.duration is None else round(tags.duration * 1000),
        "isrc": tags.isrcs[0][:32] if tags.isrcs else None,
        "search_text": normalize_name(f"{name.title} {name.artist} {tags.album or ''}"),
        "tags": _without_column(tags, name, credited),
    }


def album_key_of(file: FoundFile, tags: TrackTags) -> str | None:
    """Return the identity of the album that the tags name; one without a release id belongs to its folder."""
    if not tags.album:
        return None
    artist = tags.album_artist[:NAME_LENGTH] if tags.album_artist else None
    name = album_name(tags.album[:NAME_LENGTH], artist, tags.date, compilation=tags.compilation)
    return album_key(file.root.id, file.path, name, tags.musicbrainz_album_id)


def album_columns(tags: TrackTags, identity_key: str | None, credited: Sequence[Credited]) -> dict[str, Any] | None:
    """Return the columns of `albums` that the tags say, None where they name no album."""
    if identity_key is None:
        return None
    title = tags.album or ""
    return {
        "identity_key": identity_key,
        "title": title[:NAME_LENGTH],
        "title_key": normalize_name(title)[:NAME_LENGTH],
        "artist_id": next((each.artist_id for each in credited if each.role == ALBUM_ARTIST), None),
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
        "failed_at": None,
        "attempts": 0,
        "parser_version": file.root.reading,
        "fingerprint": tags.fingerprint,
        "notes": notes,
    }


def changed(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, Any]:
    """Return the columns that differ, as they are after."""
    return {name: value for name, value in after.items() if before[name] != value}


def differences(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, Any]:
    """Return before and after of each column that differs; of `tags`, of each tag by its own name."""
    changes = {name: [before[name], value] for name, value in changed(before, after).items()}
    changes.pop("search_text", None)
    if "tags" in changes:
        old, new = changes.pop("tags")
        changes |= {
            f"tags.{name}": [old.get(name), new.get(name)]
            for name in sorted(old.keys() | new.keys())
            if old.get(name) != new.get(name)
        }
    return changes


def _without_column(tags: TrackTags, name: Named, credited: Sequence[Credited]) -> dict[str, Any]:
    kept = {
        field: value
        for (field, default), value in zip(_DEFAULTS.items(), _kept_values(tags), strict=True)
        if value is not default and value != default
    }
    if "pictures" in kept:
        kept["pictures"] = [asdict(picture) for picture in tags.pictures]
    if "other" in kept:  # as JSON gives it back, or each reading would differ from what is stored
        kept["other"] = {each: list(values) for each, values in tags.other.items()}
    texts = {"title": name.title, "artist": name.artist, "album": tags.album or ""}
    kept |= {field: text for field, text in texts.items() if len(text) > NAME_LENGTH}
    if tags.artists and tags.artists != _named_as(MAIN, credited):
        kept["artists"] = tags.artists
    by = _named_as(ALBUM_ARTIST, credited) if tags.album_artist else ()
    if tags.album_artists and tags.album_artists != by:
        kept["album_artists"] = tags.album_artists
    if tags.album_artist and tags.album_artist != ", ".join(by):
        kept["album_artist"] = tags.album_artist
    return {field: list(value) if isinstance(value, tuple) else value for field, value in kept.items()}


def _named_as(role: str, credited: Sequence[Credited]) -> tuple[str, ...]:
    return tuple([each.name for each in credited if each.role == role])
