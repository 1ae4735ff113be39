"""Translates a file's tags into columns of its track, album and file. Pure; `credits.py` translates the names.

One field of `TrackTags` goes to one column. A field without a column is kept as JSON in the track's `tags`, so nothing
that a person wrote is lost. A text longer than its column is cut there and kept whole in `tags`.
"""

from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, fields
from operator import attrgetter
from typing import Any, Final

from soulspot.infrastructure.persistence.identity import NAME_LENGTH, album_key, album_name, is_various, normalize_name
from soulspot.infrastructure.tags import TrackTags

Columns = Mapping[str, Any]
"""A row, or a part of one, by column name."""

UNKNOWN_ARTIST: Final = "[unknown]"  # MusicBrainz's name for an unknown artist
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
# Fields whose columns have another name, or belong to the album, the file or the credits.
_ELSEWHERE: Final = frozenset(
    ("title", "artist", "artists", "album", "album_artist", "album_artists", "performer_instruments", "genres")
    + ("duration", "fingerprint", "notes", "musicbrainz_artist_ids", "musicbrainz_album_id")
    + ("musicbrainz_release_group_id",)
)
_DEFAULTS: Final = {
    field.name: field.default if field.default_factory is MISSING else field.default_factory()
    for field in fields(TrackTags)
    if field.name not in _ELSEWHERE and field.name not in _SAME_NAME
}
# One call gets all of them: these run for every file.
_same_values: Final = attrgetter(*_SAME_NAME)
_kept_values: Final = attrgetter(*_DEFAULTS)


@dataclass(frozen=True, slots=True)
class TrackName:
    """Title and artist of a track, uncut; one that the tags lack is guessed, and `notes` record that."""

    title: str
    artist: str
    notes: tuple[str, ...]


def track_name(tags: TrackTags, path: str) -> TrackName:
    """Return title and artist; without them, the name of the file, and the album artist or "[unknown]"."""
    notes = tags.notes if tags.title else (*tags.notes, TITLE_FROM_NAME)
    title, artist = tags.title or title_of(path), tags.artist or ", ".join(tags.artists)
    if artist:
        return TrackName(title, artist, notes)
    if tags.album_artist and not is_various(tags.album_artist):
        return TrackName(title, tags.album_artist, (*notes, ARTIST_FROM_ALBUM))
    return TrackName(title, UNKNOWN_ARTIST, (*notes, ARTIST_UNKNOWN))


def title_of(path: str) -> str:
    """Return a title for a file without one: its name without the extension."""
    name = path.rpartition("/")[2]
    return name.rpartition(".")[0] or name


def retitled(track: Columns, title: str) -> dict[str, Any]:
    """Return the columns of a track that a new title changes."""
    search_text = track["search_text"].replace(normalize_name(track["title"]), normalize_name(title), 1)
    return {} if track["title"] == title else {"title": title, "search_text": search_text}


def track_columns(tags: TrackTags, name: TrackName) -> dict[str, Any]:
    """Return the columns of `tracks`, except its artist and album."""
    return dict(zip(_SAME_NAME, _same_values(tags), strict=True)) | {
        "title": name.title[:NAME_LENGTH],
        "artist_credit": name.artist[:NAME_LENGTH],
        "genres": list(tags.genres),
        "duration_ms": None if tags.duration is None else round(tags.duration * 1000),
        "isrc": tags.isrcs[0][:32] if tags.isrcs else None,
        "search_text": normalize_name(f"{name.title} {name.artist} {tags.album or ''}"),
        "tags": _tags_without_column(tags, name),
    }


def album_columns(tags: TrackTags, folder_id: str, path: str) -> dict[str, Any] | None:
    """Return the columns of `albums`, except its artist; None if the tags name no album.

    Without a MusicBrainz release id, the folder is part of an album's identity.
    """
    if not tags.album:
        return None
    title, artist = tags.album[:NAME_LENGTH], tags.album_artist[:NAME_LENGTH] if tags.album_artist else None
    name = album_name(title, artist, tags.date, compilation=tags.compilation)
    return {
        "identity_key": album_key(folder_id, path, name, tags.musicbrainz_album_id),
        "title": title,
        "title_key": normalize_name(tags.album)[:NAME_LENGTH],
        "artist_credit": artist,
        "date": tags.date,
        "original_date": tags.original_date,
        "disc_total": tags.disc_total,
        "compilation": tags.compilation,
        "musicbrainz_id": tags.musicbrainz_album_id,
        "musicbrainz_release_group_id": tags.musicbrainz_release_group_id,
    }


def file_columns(tags: TrackTags, notes: tuple[str, ...]) -> dict[str, Any]:
    """Return the columns of `files` that change when a file is read."""
    return {
        "status": "catalogued",
        "error_code": None,
        "error_text": None,
        "failed_at": None,
        "attempts": 0,
        "fingerprint": tags.fingerprint,
        "notes": list(notes),
    }


def _tags_without_column(tags: TrackTags, name: TrackName) -> dict[str, Any]:
    kept = {
        field: value
        for (field, default), value in zip(_DEFAULTS.items(), _kept_values(tags), strict=True)
        if value is not default and value != default
    }
    if "pictures" in kept:
        kept["pictures"] = [asdict(picture) for picture in tags.pictures]
    if "other" in kept:  # lists, as JSON returns them, or each reading would differ from what is stored
        kept["other"] = {each: list(values) for each, values in tags.other.items()}
    texts = {"title": name.title, "artist": name.artist, "album": tags.album or ""}
    kept |= {field: text for field, text in texts.items() if len(text) > NAME_LENGTH}
    return {field: list(value) if isinstance(value, tuple) else value for field, value in kept.items()}
