"""Turns the names and values of any tag format into `TrackTags`.

The parser of each format maps its tags to the names of Vorbis comments, folded to letters and digits ("Album Artist",
"ALBUM_ARTIST" and "albumartist" are the same). The tables here map each name to a field.

To add a tag field: add it to `TrackTags` in `model.py`, add its names here, map the tags of ID3 and MP4 to such a name
in `formats/id3.py` and `formats/mp4.py`, and raise `PARSER_VERSION` in `model.py`, so that known files are read again.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from typing import Any, Final

from soulspot.infrastructure.tags.genres import genres_of
from soulspot.infrastructure.tags.model import TrackTags
from soulspot.infrastructure.tags.texts import clean_values, printable, resolve_encodings

Names = dict[str, list[str]]

ONE: Final = {
    "title": "title", "titlesort": "title_sort", "subtitle": "subtitle", "artistsort": "artist_sort",
    "album": "album", "albumsort": "album_sort", "albumartistsort": "album_artist_sort",
    "composersort": "composer_sort", "barcode": "barcode", "upc": "barcode", "ean": "barcode", "asin": "asin",
    "discsubtitle": "disc_subtitle", "setsubtitle": "disc_subtitle", "key": "key", "initialkey": "key",
    "grouping": "grouping", "contentgroup": "grouping", "work": "work", "movement": "movement",
    "movementname": "movement", "comment": "comment", "description": "comment",
    "syncedlyrics": "synced_lyrics", "copyright": "copyright", "license": "license",
    "website": "website", "weblink": "website", "script": "script", "originalalbum": "original_album",
    "originalartist": "original_artist", "releasestatus": "release_status",
    "musicbrainzalbumstatus": "release_status", "media": "media", "releasecountry": "release_country",
    "musicbrainzalbumreleasecountry": "release_country", "acoustidid": "acoustid_id",
    "acoustidfingerprint": "acoustid_fingerprint", "musicbrainzdiscid": "musicbrainz_disc_id",
    "encoder": "encoder", "encodersettings": "encoder_settings", "encoding": "encoder_settings",
    "encodedby": "encoded_by", "encodedusing": "encoder",
}  # fmt: skip
ONE_ID: Final = {
    "musicbrainzrecordingid": "musicbrainz_recording_id", "musicbrainztrackid": "musicbrainz_recording_id",
    "musicbrainzreleasetrackid": "musicbrainz_track_id", "musicbrainzalbumid": "musicbrainz_album_id",
    "musicbrainzreleaseid": "musicbrainz_album_id", "musicbrainzreleasegroupid": "musicbrainz_release_group_id",
    "musicbrainzworkid": "musicbrainz_work_id", "musicbrainzoriginalalbumid": "musicbrainz_original_album_id",
}  # fmt: skip
MANY: Final = {
    "composer": "composers", "lyricist": "lyricists", "writer": "writers", "conductor": "conductors",
    "arranger": "arrangers", "remixer": "remixers", "mixartist": "remixers", "producer": "producers",
    "engineer": "engineers", "mixer": "mixers", "djmixer": "dj_mixers", "director": "directors", "label": "labels",
    "publisher": "labels", "organization": "labels", "catalognumber": "catalog_numbers", "isrc": "isrcs",
    "mood": "moods", "language": "languages",
}  # fmt: skip
MANY_IDS: Final = {
    "musicbrainzartistid": "musicbrainz_artist_ids", "musicbrainzalbumartistid": "musicbrainz_album_artist_ids",
    "musicbrainzoriginalartistid": "musicbrainz_original_artist_ids",
}  # fmt: skip
GAINS: Final = {
    "replaygaintrackgain": "replaygain_track_gain", "replaygaintrackpeak": "replaygain_track_peak",
    "replaygainalbumgain": "replaygain_album_gain", "replaygainalbumpeak": "replaygain_album_peak",
}  # fmt: skip
RELEASE_TYPES: Final = {"releasetype": "release_types", "musicbrainzalbumtype": "release_types"}
R128_GAINS: Final = {"r128trackgain": "replaygain_track_gain", "r128albumgain": "replaygain_album_gain"}
NUMBERS: Final = {
    "tracknumber": ("track_number", "track_total"), "track": ("track_number", "track_total"),
    "discnumber": ("disc_number", "disc_total"), "disc": ("disc_number", "disc_total"),
    "disk": ("disc_number", "disc_total"), "movementnumber": ("movement_number", "movement_total"),
}  # fmt: skip
TOTALS: Final = {
    "tracktotal": "track_total", "totaltracks": "track_total", "trackc": "track_total", "discc": "disc_total",
    "disctotal": "disc_total", "totaldiscs": "disc_total", "discs": "disc_total", "movementtotal": "movement_total",
}  # fmt: skip
DATES: Final = {
    "date": "date", "year": "date", "originaldate": "original_date", "originalyear": "original_date",
    "releasedate": "release_date",
}  # fmt: skip
_ARTISTS: Final = frozenset(("artist", "artists", "albumartist", "albumartists"))

_DATE = re.compile(r"\s*(\d{4})(?:([-./])(\d{1,2})(?:\2(\d{1,2}))?)?(?!\d)")
_COMPACT_DATE = re.compile(r"\s*(\d{4})(\d\d)(\d\d)\s*")
_YEAR_LAST = re.compile(r"\s*\d{1,2}[-./]\d{1,2}[-./](\d{4})\s*")
_NUMBER = re.compile(r"\s*([+-]?\d+(?:[.,]\d+)?)")
_UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)
_PUNCTUATION = re.compile(r"[\W_]+")
# "Name (instrument)", as Picard writes a performer; a number in brackets is part of the name.
_WITH_INSTRUMENT = re.compile(r"(.*\S)\s*\((?!\d+\))([^()]+)\)", re.DOTALL)
_LRC_LINE = re.compile(r"\[\d+:\d\d(?:[.:]\d+)?\]")
_MAX_OTHER_SIZE, _OTHER_OVERHEAD = 1 << 20, 100
"""Characters that a file's tags without a field may take together, and those charged for each besides its text."""
_MAX_GAIN = 200.0
_MAX_BPM = 10_000
_R128_TO_REPLAYGAIN = 5.0  # dB: R128 targets -23 LUFS, ReplayGain 2 -18


@lru_cache(maxsize=4096)
def tag_key(name: str) -> str:
    """Return the name of a tag in lower case, without spaces and punctuation unless it has nothing else."""
    return _PUNCTUATION.sub("", name.lower()) or name.lower()


def tags_from(
    names: Names, stream: Mapping[str, Any], notes: Iterable[str] = (), fingerprint: str | None = None
) -> TrackTags:
    """Build the tags of one file from its folded names and the fields of its stream."""
    all_notes = list(notes)
    resolve_encodings(names, all_notes)
    clean = {name: clean_values(values, all_notes) for name, values in names.items()}
    found: dict[str, Any] = {}
    other: dict[str, tuple[str, ...]] = {}
    space = _MAX_OTHER_SIZE
    for name, values in clean.items():
        if values and not _set_fields(found, name, values):
            space -= sum(map(len, values)) + len(name) + _OTHER_OVERHEAD
            if space > 0:
                other[printable(name) or "unnamed"] = tuple(values)
            else:
                all_notes.append("value-capped")
    if "author" in other and "artist" not in clean and "artists" not in clean:  # the Speex tools write it
        clean["artist"] = list(other.pop("author"))
    _set_artists(found, clean)
    _set_r128_gains(found, clean)
    for field, value in stream.items():  # a tag beats what the stream says about its encoder
        found.setdefault(field, value)
    return TrackTags(**found, other=other, fingerprint=fingerprint, notes=tuple(dict.fromkeys(all_notes)))


def _set_fields(found: dict[str, Any], name: str, values: list[str]) -> bool:
    """Set the fields of one name; False if the values do not fit into any."""
    setter = _SETTERS.get(name)
    return setter(found, values) if setter is not None else name in _ARTISTS or name in R128_GAINS


Setter = Callable[[dict[str, Any], list[str]], bool]
"""Sets fields from the values of one name; returns False to keep the values in `other` too."""


def _one(field: str) -> Setter:
    def store(found: dict[str, Any], values: list[str]) -> bool:
        found.setdefault(field, values[0])
        return len(values) == 1 or field != "comment"

    return store


def _one_id(field: str) -> Setter:
    def store(found: dict[str, Any], values: list[str]) -> bool:
        if not _UUID.fullmatch(values[0]):
            return False
        found.setdefault(field, values[0].lower())
        return True

    return store


def _many(field: str, convert: Callable[[list[str]], list[str]]) -> Setter:
    def store(found: dict[str, Any], values: list[str]) -> bool:
        wanted = convert(values)
        found[field] = tuple(dict.fromkeys((*found.get(field, ()), *wanted)))
        return bool(wanted)

    return store


def _gain(field: str) -> Setter:
    def store(found: dict[str, Any], values: list[str]) -> bool:
        gain = _float(values[0])
        if gain is None or abs(gain) > _MAX_GAIN:
            return False
        found.setdefault(field, gain)
        return True

    return store


def _number(number: str, total: str) -> Setter:
    def store(found: dict[str, Any], values: list[str]) -> bool:
        first, _slash, second = values[0].partition("/")
        _set(found, number, _whole(first))
        _set(found, total, _whole(second))
        return number in found or total in found or _float(first) is not None

    return store


def _total(field: str) -> Setter:
    def store(found: dict[str, Any], values: list[str]) -> bool:
        _set(found, field, _whole(values[0]))
        return _float(values[0]) is not None

    return store


def _date(field: str) -> Setter:
    def store(found: dict[str, Any], values: list[str]) -> bool:
        if (date := iso_date(values[0])) is None:
            return False
        if len(date) > len(found.get(field, "")):  # a date beats a year
            found[field] = date
        return True

    return store


def _set_genres(found: dict[str, Any], values: list[str]) -> bool:
    genres = [genre for value in values for genre in ([value] if value.isdecimal() else genres_of(value))]
    found["genres"] = tuple(dict.fromkeys((*found.get("genres", ()), *genres)))
    return True


def _set_performers(found: dict[str, Any], values: list[str]) -> bool:
    """Split "Name (instrument)", and join the instruments of a name that occurs twice."""
    played: dict[str, list[str]] = {}
    for value in values:
        match = _WITH_INSTRUMENT.fullmatch(value)
        played.setdefault(match[1] if match else value, []).extend([match[2]] if match else [])
    found["performers"] = tuple(played)
    if any(played.values()):
        found["performer_instruments"] = tuple(", ".join(dict.fromkeys(each)) for each in played.values())
    return True


def _set_compilation(found: dict[str, Any], values: list[str]) -> bool:
    found["compilation"] = values[0].lower() in {"1", "true", "yes"}
    return True


def _set_bpm(found: dict[str, Any], values: list[str]) -> bool:
    bpm = _float(values[0])
    if bpm is not None and 0 < bpm < _MAX_BPM:
        found.setdefault("bpm", bpm)
    return bpm == 0 or "bpm" in found


def _set_lyrics(found: dict[str, Any], values: list[str]) -> bool:
    field = "synced_lyrics" if _LRC_LINE.match(values[0]) else "lyrics"
    found.setdefault(field, values[0])
    return len(values) == 1


def _set_artists(found: dict[str, Any], names: Mapping[str, list[str]]) -> None:
    for one, many, field in (("artist", "artists", "artist"), ("albumartist", "albumartists", "album_artist")):
        display = names.get(one, [])
        listed = names.get(many, []) or display
        if display or listed:
            found[field] = ", ".join(display or listed)
            found[f"{field}s"] = tuple(dict.fromkeys(listed))


def _set_r128_gains(found: dict[str, Any], names: Mapping[str, list[str]]) -> None:
    """Convert the gains of Opus: 256ths of a dB, for another target loudness."""
    for name, field in R128_GAINS.items():
        if name in names and names[name] and (gain := _float(names[name][0])) is not None and field not in found:
            found[field] = round(gain / 256 + _R128_TO_REPLAYGAIN, 2)


def iso_date(text: str) -> str | None:
    """Return a date as ISO, at the precision of the text; None if it has no recognizable year."""
    if (match := _YEAR_LAST.fullmatch(text)) is not None:
        return match[1]  # day and month are ambiguous
    if (match := _COMPACT_DATE.fullmatch(text)) is not None:
        year, month, day = match[1], int(match[2]), int(match[3])
    elif (match := _DATE.match(text)) is not None:
        year, month, day = match[1], int(match[3] or 0), int(match[4] or 0)
    else:
        return None
    if year == "0000":
        return None
    if not 1 <= month <= 12:  # noqa: PLR2004
        return year
    return f"{year}-{month:02d}-{day:02d}" if 1 <= day <= 31 else f"{year}-{month:02d}"  # noqa: PLR2004


def _ids(values: Iterable[str]) -> list[str]:
    return [each.lower() for value in values for each in _UUID.findall(value)]


def _words(values: Iterable[str]) -> list[str]:
    """Split values that ID3v2.3 joins; release types are fixed words that contain no separator."""
    return [word for value in values for word in re.split(r"\s*[/;,]\s*", value) if word]


def _set(found: dict[str, Any], field: str, value: float | None) -> None:
    if value is not None:
        found.setdefault(field, value)


def _whole(text: str) -> int | None:
    number = _float(text)
    return int(number) if number is not None and 0 < number < 1_000_000 else None  # noqa: PLR2004


def _float(text: str) -> float | None:
    match = _NUMBER.match(text)
    return float(match[1].replace(",", ".")) if match else None


_SETTERS: Final[dict[str, Setter]] = (
    {name: _one(field) for name, field in ONE.items()}
    | {name: _one_id(field) for name, field in ONE_ID.items()}
    | {name: _many(field, list) for name, field in MANY.items()}
    | {name: _many(field, _ids) for name, field in MANY_IDS.items()}
    | {name: _many(field, _words) for name, field in RELEASE_TYPES.items()}
    | {name: _gain(field) for name, field in GAINS.items()}
    | {name: _number(*pair) for name, pair in NUMBERS.items()}
    | {name: _total(field) for name, field in TOTALS.items()}
    | {name: _date(field) for name, field in DATES.items()}
    | dict.fromkeys(("lyrics", "unsyncedlyrics"), _set_lyrics)
    | dict.fromkeys(("compilation", "iscompilation", "itunescompilation"), _set_compilation)
    | dict.fromkeys(("bpm", "beatsperminute", "tempo"), _set_bpm)
    | {"genre": _set_genres, "performer": _set_performers}
)
