"""Reads the names out of a file's tags, and the role of each. Pure.

Nothing is guessed: several artists are the several values of a tag. A text is split only at the separators in the
settings, never inside a name to keep whole, and never where each name has a MusicBrainz id of its own.
"""

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Final
from zlib import crc32

from soulspot.infrastructure.persistence.identity import normalize_name
from soulspot.infrastructure.tags import PARSER_VERSION, TrackTags

MAIN: Final = "main"
FEATURED: Final = "featured"
ALBUM_ARTIST: Final = "album artist"
COMPOSER: Final = "composer"
PERFORMER: Final = "performer"

FIELDS: Final[Mapping[str, str]] = {
    COMPOSER: "composers",
    "lyricist": "lyricists",
    "writer": "writers",
    "conductor": "conductors",
    "arranger": "arrangers",
    PERFORMER: "performers",
    "remixer": "remixers",
    "producer": "producers",
    "mixer": "mixers",
    "dj mixer": "dj_mixers",
    "engineer": "engineers",
    "director": "directors",
}
"""The field of `TrackTags` that names those in a role."""
ORDER: Final = (MAIN, FEATURED, ALBUM_ARTIST, *FIELDS)
"""The roles, in the order in which a person wants to read them."""
MOST_CREDITS: Final = 500
"""Names that one file credits at most: each may be an artist of its own, in one transaction."""
_FEATURED: Final = re.compile(
    r"\s*[(\[]?(?<!\w)(?:feat\.?|ft\.?|featuring)\s+(?P<who>[^\s&,()\[\]][^()\[\]]*)[)\]]?", re.IGNORECASE
)


@dataclass(frozen=True, slots=True)
class Credit:
    """One name in the tags: its role, and the MusicBrainz id, sort name and instrument that they give with it."""

    role: str
    name: str
    musicbrainz_id: str | None = None
    sort_name: str | None = None
    instrument: str | None = None

    @property
    def key(self) -> str:
        """What the same artist has in common in all tags: its MusicBrainz id, else its name however it is spelled."""
        return self.musicbrainz_id or normalize_name(self.name)


@dataclass(frozen=True)
class CreditRules:
    """How names are read out of texts: the settings `artists.*`."""

    separators: Sequence[str] = ()
    keep_whole: Collection[str] = ()
    featured: bool = False

    def reading(self) -> int:
        """Return a number for what is read by these rules; it is another one when the rules or the parser change."""
        if not (self.separators or self.featured):
            return PARSER_VERSION
        rules = repr((sorted(self.separators), sorted(self.keep_whole), self.featured))
        return PARSER_VERSION + crc32(rules.encode()) % 2_000_000 * 1_000

    def split(self, text: str) -> list[str]:
        """Return the names in a text."""
        if self._separator is None:
            return [text]
        # Every second part is a separator; a name to keep whole may reach over several.
        parts = self._separator.split(text)
        names, start = [], 0
        while start < len(parts):
            end = next((end for end in range(len(parts), start, -2) if self._is_whole(parts[start:end])), start + 1)
            names.append("".join(parts[start:end]).strip())
            start = end + 1
        return [name for name in names if name] or [text]

    def without_featured(self, text: str) -> tuple[str, list[str]]:
        """Return a text without its "feat. …", and the names in that."""
        if not self.featured or (found := _FEATURED.search(text)) is None or normalize_name(text) in self._whole:
            return text, []
        return f"{text[: found.start()]} {text[found.end() :]}".strip(), self.split(found["who"].strip())

    def _is_whole(self, parts: list[str]) -> bool:
        return len(parts) > 1 and normalize_name("".join(parts)) in self._whole

    @cached_property
    def _separator(self) -> "re.Pattern[str] | None":
        if not self.separators:
            return None
        longest_first = sorted(self.separators, key=len, reverse=True)
        return re.compile(f"({'|'.join(map(re.escape, longest_first))})", re.IGNORECASE)

    @cached_property
    def _whole(self) -> frozenset[str]:
        return frozenset(map(normalize_name, self.keep_whole))


AS_WRITTEN: Final = CreditRules()


def credits_of(tags: TrackTags, artist: str, rules: CreditRules = AS_WRITTEN) -> list[Credit]:
    """Return everyone that the tags name, by role, the main artist first.

    An id belongs to a name only where there are as many of both; a name without one has the id that the same name has
    elsewhere in the file.
    """
    credits = _artists(tags, artist, rules)
    names = tags.album_artists or ((tags.album_artist,) if tags.album_artist else ())
    credits += _paired(ALBUM_ARTIST, names, tags.musicbrainz_album_artist_ids, tags.album_artist_sort, rules)
    for role, field in FIELDS.items():
        if role == PERFORMER:
            credits += _performers(tags, rules)
        elif names := getattr(tags, field):
            credits += _paired(role, names, (), tags.composer_sort if role == COMPOSER else None, rules)
    return _completed(credits) if any(credit.musicbrainz_id for credit in credits) else credits


def _artists(tags: TrackTags, artist: str, rules: CreditRules) -> list[Credit]:
    names, ids = list(tags.artists) or [artist], tags.musicbrainz_artist_ids
    if not rules.featured:
        return _paired(MAIN, names, ids, tags.artist_sort, rules)
    guests = [*rules.without_featured(artist)[1], *rules.without_featured(tags.title or "")[1]]
    names = [kept for name in names if (kept := rules.without_featured(name)[0])] or [artist]
    listed = {normalize_name(each) for name in names for each in rules.split(name)}
    unlisted = list(dict.fromkeys(guest for guest in guests if normalize_name(guest) not in listed))
    if len(names) == len(ids):
        credits = _paired(MAIN, names, ids, tags.artist_sort, rules) + _paired(MAIN, unlisted, (), None, rules)
    else:
        credits = _paired(MAIN, [*names, *unlisted], ids, tags.artist_sort, rules)
    featured = set(map(normalize_name, guests))
    guests_last = [credits[0], *(_as_guest(credit, featured) for credit in credits[1:])]
    return sorted(guests_last, key=lambda credit: credit.role == FEATURED)


def _as_guest(credit: Credit, featured: Collection[str]) -> Credit:
    return replace(credit, role=FEATURED) if normalize_name(credit.name) in featured else credit


def _paired(role: str, names: Sequence[str], ids: Sequence[str], sort: str | None, rules: CreditRules) -> list[Credit]:
    if len(names) != len(ids) and rules.separators:
        names = list(dict.fromkeys(name for text in names for name in rules.split(text)))
    if len(names) == 1:
        return [Credit(role, names[0], ids[0] if len(ids) == 1 else None, sort)]
    if len(names) != len(ids):
        return [Credit(role, name) for name in names]
    return [Credit(role, name, identity) for name, identity in zip(names, ids, strict=True)]


def _performers(tags: TrackTags, rules: CreditRules) -> list[Credit]:
    instruments = tags.performer_instruments or ("",) * len(tags.performers)
    return [
        replace(credit, instrument=instrument or None)
        for name, instrument in zip(tags.performers, instruments, strict=True)
        for credit in _paired(PERFORMER, (name,), (), None, rules)
    ]


def _completed(credits: list[Credit]) -> list[Credit]:
    """Give a name without an id the one that this name has in another credit of the same file, unless there are two."""
    ids: dict[str, set[str]] = {}
    for credit in credits:
        if credit.musicbrainz_id is not None:
            ids.setdefault(normalize_name(credit.name), set()).add(credit.musicbrainz_id)
    return [_with_id(credit, ids.get(normalize_name(credit.name), ())) for credit in credits]


def _with_id(credit: Credit, ids: Iterable[str]) -> Credit:
    known = list(ids)
    return replace(credit, musicbrainz_id=known[0]) if credit.musicbrainz_id is None and len(known) == 1 else credit
