"""From names and texts, whatever format they came from, to `TrackTags`.

Every format is first turned into names as a Vorbis comment has them, folded to letters and digits ("Album Artist",
"ALBUM_ARTIST" and "albumartist" are one), each with its values; then one table says which field each name is.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Any

from soulspot.infrastructure.tags.model import TrackTags

LONGEST_VALUE = 100_000
Names = dict[str, list[str]]

_ONE = {
    "title": "title", "subtitle": "subtitle", "artistsort": "artist_sort", "album": "album",
    "albumartistsort": "album_artist_sort", "barcode": "barcode", "discsubtitle": "disc_subtitle",
    "setsubtitle": "disc_subtitle", "key": "key", "initialkey": "key", "grouping": "grouping",
    "contentgroup": "grouping", "work": "work", "movement": "movement", "movementname": "movement",
    "comment": "comment", "description": "comment", "lyrics": "lyrics", "unsyncedlyrics": "lyrics",
    "releasestatus": "release_status", "musicbrainzalbumstatus": "release_status", "media": "media",
    "releasecountry": "release_country", "musicbrainzalbumreleasecountry": "release_country",
    "musicbrainzrecordingid": "musicbrainz_recording_id", "musicbrainztrackid": "musicbrainz_recording_id",
    "musicbrainzreleasetrackid": "musicbrainz_track_id", "musicbrainzalbumid": "musicbrainz_album_id",
    "musicbrainzreleasegroupid": "musicbrainz_release_group_id", "musicbrainzworkid": "musicbrainz_work_id",
    "acoustidid": "acoustid_id", "encoder": "encoder", "encodersettings": "encoder", "encodedby": "encoder",
}  # fmt: skip
_MANY = {
    "composer": "composers", "lyricist": "lyricists", "conductor": "conductors", "arranger": "arrangers",
    "performer": "performers", "remixer": "remixers", "mixartist": "remixers", "producer": "producers",
    "label": "labels", "publisher": "labels", "organization": "labels", "catalognumber": "catalog_numbers",
    "isrc": "isrcs", "genre": "genres", "mood": "moods", "language": "languages",
    "releasetype": "release_types", "musicbrainzalbumtype": "release_types",
    "musicbrainzartistid": "musicbrainz_artist_ids", "musicbrainzalbumartistid": "musicbrainz_album_artist_ids",
}  # fmt: skip
_GAINS = {
    "replaygaintrackgain": "replaygain_track_gain", "replaygaintrackpeak": "replaygain_track_peak",
    "replaygainalbumgain": "replaygain_album_gain", "replaygainalbumpeak": "replaygain_album_peak",
}  # fmt: skip
_NUMBERS = {
    "tracknumber": ("track_number", "track_total"), "track": ("track_number", "track_total"),
    "discnumber": ("disc_number", "disc_total"), "disc": ("disc_number", "disc_total"),
    "disk": ("disc_number", "disc_total"),
}  # fmt: skip
_TOTALS = {
    "tracktotal": "track_total", "totaltracks": "track_total", "trackc": "track_total", "discc": "disc_total",
    "disctotal": "disc_total", "totaldiscs": "disc_total", "discs": "disc_total",
}  # fmt: skip
_DATES = {"date": "date", "year": "date", "originaldate": "original_date", "originalyear": "original_date"}
_DATE = re.compile(r"\s*(\d{4})(?:[-./](\d{1,2})(?:[-./](\d{1,2}))?)?(?!\d)")
_US_DATE = re.compile(r"\s*(\d{1,2})/(\d{1,2})/(\d{4})\s*")
_NUMBER = re.compile(r"\s*([+-]?\d+(?:[.,]\d+)?)")
_UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)
_FOLDED = re.compile(r"[^a-z0-9]")
_GENRE_NUMBERS = re.compile(r"\((\d+|RX|CR)\)|^(\d+)$")


def folded(name: str) -> str:
    """Return a tag's name without case, spaces and punctuation; of a name without letters, the name itself."""
    return _FOLDED.sub("", name.lower()) or name.lower()


def tags_from(names: Mapping[str, list[str]], stream: Mapping[str, Any]) -> TrackTags:
    """Build the tags of one file from its folded names and what its stream is."""
    notes: list[str] = []
    clean = {name: _cleaned(values, notes) for name, values in names.items()}
    found: dict[str, Any] = {}
    other: dict[str, tuple[str, ...]] = {}
    for name, values in clean.items():
        if values and not _take(found, name, values):
            other[name] = tuple(values)
    _take_artists(found, clean)
    return TrackTags(**found, **stream, other=other, notes=tuple(dict.fromkeys(notes)))


def _take(found: dict[str, Any], name: str, values: list[str]) -> bool:
    """Put the values of one name where they belong; False where there is no place for them."""
    if (field := _ONE.get(name)) is not None:
        if field.startswith("musicbrainz") and not _UUID.fullmatch(values[0].strip()):
            return False
        value = values[0].strip().lower() if field.startswith("musicbrainz") else values[0]
        found.setdefault(field, value)
    elif (field := _MANY.get(name)) is not None:
        wanted = [each.lower() for each in _ids(values)] if field.startswith("musicbrainz") else values
        found[field] = tuple(dict.fromkeys((*found.get(field, ()), *wanted)))
    elif (field := _GAINS.get(name)) is not None:
        found.setdefault(field, _float(values[0]))
    elif (pair := _NUMBERS.get(name)) is not None:
        number, _, total = values[0].partition("/")
        _set(found, pair[0], _whole(number))
        _set(found, pair[1], _whole(total))
    elif (field := _TOTALS.get(name)) is not None:
        _set(found, field, _whole(values[0]))
    elif (field := _DATES.get(name)) is not None:
        date = iso_date(values[0])
        if date is None:
            return False
        if len(date) > len(found.get(field, "")):
            found[field] = date
    elif name in {"compilation", "iscompilation"}:
        found["compilation"] = values[0].strip().lower() in {"1", "true", "yes"}
    elif name in {"bpm", "beatsperminute", "tempo"}:
        _set(found, "bpm", _float(values[0]))
    else:
        return name in {"artist", "artists", "albumartist", "albumartists", "ensemble"}
    return True


def _take_artists(found: dict[str, Any], names: Mapping[str, list[str]]) -> None:
    for one, many in (("artist", "artists"), ("albumartist", "albumartists")):
        display = names.get(one, [])
        listed = names.get(many, []) or display
        field = "artist" if one == "artist" else "album_artist"
        if display or listed:
            found[field] = ", ".join(display or listed)
            found[f"{field}s"] = tuple(dict.fromkeys(listed))


def iso_date(text: str) -> str | None:
    """Return a date as ISO, at the precision that was written; None where no year can be made out."""
    if (match := _US_DATE.fullmatch(text)) is not None:
        return match[3]
    if (match := _DATE.match(text)) is None or match[1] == "0000":
        return None
    year, month, day = match[1], int(match[2] or 0), int(match[3] or 0)
    if not 1 <= month <= 12:  # noqa: PLR2004
        return year
    return f"{year}-{month:02d}-{day:02d}" if 1 <= day <= 31 else f"{year}-{month:02d}"  # noqa: PLR2004


def _cleaned(values: Iterable[str], notes: list[str]) -> list[str]:
    """Return values that every database takes: no NUL, no lone surrogate, none that is empty or a megabyte."""
    kept = []
    for value in values:
        text = value.replace("\0", " ").strip() if "\0" in value else value.strip()
        try:
            text.encode()
        except UnicodeEncodeError:
            text = text.encode("utf-8", "replace").decode()
            notes.append("invalid-text")
        if len(text) > LONGEST_VALUE:
            text = text[:LONGEST_VALUE]
            notes.append("value-capped")
        if text:
            kept.append(text)
    return kept


def _ids(values: Iterable[str]) -> list[str]:
    return [each for value in values for each in _UUID.findall(value)]


def _set(found: dict[str, Any], field: str, value: float | None) -> None:
    if value is not None:
        found.setdefault(field, value)


def _whole(text: str) -> int | None:
    number = _float(text)
    return int(number) if number is not None and 0 < number < 1_000_000 else None  # noqa: PLR2004


def _float(text: str) -> float | None:
    match = _NUMBER.match(text)
    return float(match[1].replace(",", ".")) if match else None
