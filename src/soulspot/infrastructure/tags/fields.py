"""From names and texts, whatever format they came from, to `TrackTags`.

Every format is first turned into names as a Vorbis comment has them, folded to letters and digits ("Album Artist",
"ALBUM_ARTIST" and "albumartist" are one), each with its values; then one table says which field each name is.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from typing import Any, Final

from soulspot.infrastructure.tags.genres import genres_of
from soulspot.infrastructure.tags.model import TrackTags
from soulspot.infrastructure.tags.texts import cleaned, printable, settled

Names = dict[str, list[str]]

ONE: Final = {
    "title": "title", "titlesort": "title_sort", "subtitle": "subtitle", "artistsort": "artist_sort",
    "album": "album", "albumsort": "album_sort", "albumartistsort": "album_artist_sort",
    "composersort": "composer_sort", "barcode": "barcode", "upc": "barcode", "ean": "barcode", "asin": "asin",
    "discsubtitle": "disc_subtitle", "setsubtitle": "disc_subtitle", "key": "key", "initialkey": "key",
    "grouping": "grouping", "contentgroup": "grouping", "work": "work", "movement": "movement",
    "movementname": "movement", "comment": "comment", "description": "comment", "lyrics": "lyrics",
    "unsyncedlyrics": "lyrics", "syncedlyrics": "synced_lyrics", "copyright": "copyright", "license": "license",
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
# As Picard writes a performer. A number in brackets tells namesakes apart: it belongs to the name.
_WITH_INSTRUMENT = re.compile(r"(.*\S)\s*\((?!\d+\))([^()]+)\)", re.DOTALL)
_LRC_LINE = re.compile(r"\[\d+:\d\d(?:[.:]\d+)?\]")
_ROOM_FOR_OTHERS, _COST_OF_OTHER = 1 << 20, 100
"""Characters of all tags without a field that are kept of one file, and what each costs beside its own."""
_LOUDEST_GAIN = 200.0
_FASTEST = 10_000
_R128_TO_REPLAYGAIN = 5.0  # dB: R128 wants -23 LUFS, ReplayGain 2 -18


@lru_cache(maxsize=4096)
def folded(name: str) -> str:
    """Return a tag's name without case, spaces and punctuation; of a name without letters, the name itself."""
    return _PUNCTUATION.sub("", name.lower()) or name.lower()


def tags_from(
    names: Names, stream: Mapping[str, Any], notes: Iterable[str] = (), fingerprint: str | None = None
) -> TrackTags:
    """Build the tags of one file from its folded names and what its stream is."""
    noted = list(notes)
    settled(names, noted)
    clean = {name: cleaned(values, noted) for name, values in names.items()}
    found: dict[str, Any] = {}
    other: dict[str, tuple[str, ...]] = {}
    room = _ROOM_FOR_OTHERS
    for name, values in clean.items():
        if values and not _take(found, name, values):
            room -= sum(map(len, values)) + len(name) + _COST_OF_OTHER
            if room > 0:
                other[printable(name) or "unnamed"] = tuple(values)
            else:
                noted.append("value-capped")
    if "author" in other and "artist" not in clean and "artists" not in clean:  # as Speex's own tools write it
        clean["artist"] = list(other.pop("author"))
    _take_artists(found, clean)
    _take_gains(found, clean)
    for field, value in stream.items():  # what a person wrote beats what the stream knows of its encoder
        found.setdefault(field, value)
    return TrackTags(**found, other=other, fingerprint=fingerprint, notes=tuple(dict.fromkeys(noted)))


def _take(found: dict[str, Any], name: str, values: list[str]) -> bool:
    """Put the values of one name where they belong; False where there is no place for them."""
    taker = _TAKERS.get(name)
    return taker(found, values) if taker is not None else name in _ARTISTS or name in R128_GAINS


Taker = Callable[[dict[str, Any], list[str]], bool]


def _one(field: str) -> Taker:
    def take(found: dict[str, Any], values: list[str]) -> bool:
        found.setdefault(field, values[0])
        return len(values) == 1 or field not in {"comment", "lyrics"}

    return take


def _one_id(field: str) -> Taker:
    def take(found: dict[str, Any], values: list[str]) -> bool:
        if not _UUID.fullmatch(values[0]):
            return False
        found.setdefault(field, values[0].lower())
        return True

    return take


def _many(field: str, convert: Callable[[list[str]], list[str]]) -> Taker:
    def take(found: dict[str, Any], values: list[str]) -> bool:
        wanted = convert(values)
        found[field] = tuple(dict.fromkeys((*found.get(field, ()), *wanted)))
        return bool(wanted)

    return take


def _gain(field: str) -> Taker:
    def take(found: dict[str, Any], values: list[str]) -> bool:
        gain = _float(values[0])
        if gain is None or abs(gain) > _LOUDEST_GAIN:
            return False
        found.setdefault(field, gain)
        return True

    return take


def _number(number: str, total: str) -> Taker:
    def take(found: dict[str, Any], values: list[str]) -> bool:
        first, _slash, second = values[0].partition("/")
        _set(found, number, _whole(first))
        _set(found, total, _whole(second))
        return number in found or total in found or _float(first) is not None

    return take


def _total(field: str) -> Taker:
    def take(found: dict[str, Any], values: list[str]) -> bool:
        _set(found, field, _whole(values[0]))
        return _float(values[0]) is not None

    return take


def _date(field: str) -> Taker:
    def take(found: dict[str, Any], values: list[str]) -> bool:
        if (date := iso_date(values[0])) is None:
            return False
        if len(date) > len(found.get(field, "")):  # of a year and a date, the date
            found[field] = date
        return True

    return take


def _take_genres(found: dict[str, Any], values: list[str]) -> bool:
    genres = [genre for value in values for genre in ([value] if value.isdecimal() else genres_of(value))]
    found["genres"] = tuple(dict.fromkeys((*found.get("genres", ()), *genres)))
    return True


def _take_performers(found: dict[str, Any], values: list[str]) -> bool:
    """Take "Name (instrument)"; of a name that comes twice, the instruments are put together."""
    played: dict[str, list[str]] = {}
    for value in values:
        match = _WITH_INSTRUMENT.fullmatch(value)
        played.setdefault(match[1] if match else value, []).extend([match[2]] if match else [])
    found["performers"] = tuple(played)
    if any(played.values()):
        found["performer_instruments"] = tuple(", ".join(dict.fromkeys(each)) for each in played.values())
    return True


def _take_compilation(found: dict[str, Any], values: list[str]) -> bool:
    found["compilation"] = values[0].lower() in {"1", "true", "yes"}
    return True


def _take_bpm(found: dict[str, Any], values: list[str]) -> bool:
    bpm = _float(values[0])
    if bpm is not None and 0 < bpm < _FASTEST:
        found.setdefault("bpm", bpm)
    return bpm == 0 or "bpm" in found


def _take_lyrics(found: dict[str, Any], values: list[str]) -> bool:
    field = "synced_lyrics" if _LRC_LINE.match(values[0]) else "lyrics"
    found.setdefault(field, values[0])
    return len(values) == 1


def _take_artists(found: dict[str, Any], names: Mapping[str, list[str]]) -> None:
    for one, many, field in (("artist", "artists", "artist"), ("albumartist", "albumartists", "album_artist")):
        display = names.get(one, [])
        listed = names.get(many, []) or display
        if display or listed:
            found[field] = ", ".join(display or listed)
            found[f"{field}s"] = tuple(dict.fromkeys(listed))


def _take_gains(found: dict[str, Any], names: Mapping[str, list[str]]) -> None:
    """Convert what Opus has: 256ths of a dB, to another loudness."""
    for name, field in R128_GAINS.items():
        if name in names and names[name] and (gain := _float(names[name][0])) is not None and field not in found:
            found[field] = round(gain / 256 + _R128_TO_REPLAYGAIN, 2)


def iso_date(text: str) -> str | None:
    """Return a date as ISO, at the precision that was written; None where no year can be made out."""
    if (match := _YEAR_LAST.fullmatch(text)) is not None:
        return match[1]  # which of the others is the month, each country decides for itself
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
    """Split what version 2.3 of ID3 has to join; in a list of fixed words no separator is part of one."""
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


_TAKERS: Final[dict[str, Taker]] = (
    {name: _one(field) for name, field in ONE.items()}
    | {name: _one_id(field) for name, field in ONE_ID.items()}
    | {name: _many(field, list) for name, field in MANY.items()}
    | {name: _many(field, _ids) for name, field in MANY_IDS.items()}
    | {name: _many(field, _words) for name, field in RELEASE_TYPES.items()}
    | {name: _gain(field) for name, field in GAINS.items()}
    | {name: _number(*pair) for name, pair in NUMBERS.items()}
    | {name: _total(field) for name, field in TOTALS.items()}
    | {name: _date(field) for name, field in DATES.items()}
    | dict.fromkeys(("lyrics", "unsyncedlyrics"), _take_lyrics)
    | dict.fromkeys(("compilation", "iscompilation", "itunescompilation"), _take_compilation)
    | dict.fromkeys(("bpm", "beatsperminute", "tempo"), _take_bpm)
    | {"genre": _take_genres, "performer": _take_performers}
)
