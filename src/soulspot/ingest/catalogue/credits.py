"""Extracts the names from a file's tags, each with its role. Pure.

Nothing is guessed: several artists are several values of a tag. A text is split only at the separators in the
settings, never inside a name to keep whole, and never where each name has a MusicBrainz id of its own.
"""

import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
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
"""The field of `TrackTags` that holds the names in a role."""
ORDER: Final = (MAIN, FEATURED, ALBUM_ARTIST, *FIELDS)
"""The roles, in the order in which they are shown."""
MOST_CREDITS: Final = 500
"""The most names that one file credits: each may add an artist, and all in one transaction."""
_FEATURED: Final = re.compile(
    r"\s*[(\[]?(?<!\w)(?:feat\.?|ft\.?|featuring)\s+(?P<who>[^\s&,()\[\]][^()\[\]]*)[)\]]?", re.IGNORECASE
)


@dataclass(frozen=True, slots=True)
class Credit:
    """One name in the tags: its role, and the MusicBrainz id, sort name and instrument given with it."""

    role: str
    name: str
    musicbrainz_id: str | None = None
    sort_name: str | None = None
    instrument: str | None = None

    @property
    def key(self) -> str:
        """The identity of the artist: its MusicBrainz id, else its normalized name."""
        return self.musicbrainz_id or normalize_name(self.name)


@dataclass(frozen=True)
class CreditRules:
    """The rules that split texts into names: the settings `artists.*`."""

    separators: Sequence[str] = ()
    keep_whole: Collection[str] = ()
    featured: bool = False

    def reading(self) -> int:
        """Return the version of files read by these rules; it changes with the rules and with the parser."""
        if not (self.separators or self.featured):
            return PARSER_VERSION
        rules = repr((sorted(self.separators), sorted(self.keep_whole), self.featured))
        return PARSER_VERSION + crc32(rules.encode()) % 2_000_000 * 1_000

    def split(self, text: str) -> list[str]:
        """Return the names in a text."""
        if self._separator is None:
            return [text]
        # Every second part is a separator; a name to keep whole may span several.
        parts, names, start = self._separator.split(text), [], 0
        while start < len(parts):
            end = next((end for end in range(len(parts), start, -2) if self._is_whole(parts[start:end])), start + 1)
            names.append("".join(parts[start:end]).strip())
            start = end + 1
        return [name for name in names if name] or [text]

    def without_featured(self, text: str) -> tuple[str, list[str]]:
        """Return a text without its "feat. …", and the names in that part."""
        if not self.featured or (found := _FEATURED.search(text)) is None or normalize_name(text) in self._whole:
            return text, []
        return f"{text[: found.start()]} {text[found.end() :]}".strip(), self.split(found["who"].strip())

    def _is_whole(self, parts: list[str]) -> bool:
        return len(parts) > 1 and normalize_name("".join(parts)) in self._whole

    @cached_property
    def _separator(self) -> "re.Pattern[str] | None":
        longest_first = "|".join(map(re.escape, sorted(self.separators, key=len, reverse=True)))
        return re.compile(f"({longest_first})", re.IGNORECASE) if longest_first else None

    @cached_property
    def _whole(self) -> frozenset[str]:
        return frozenset(map(normalize_name, self.keep_whole))


AS_WRITTEN: Final = CreditRules()


def credits_of(tags: TrackTags, artist: str, rules: CreditRules = AS_WRITTEN) -> list[Credit]:
    """Return every name in the tags, by role, the main artist first.

    Ids are assigned to names only if a tag has equally many of both; a name without one gets the id that the same name
    has elsewhere in the file.
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
    credits[1:] = [
        replace(each, role=FEATURED) if normalize_name(each.name) in featured else each for each in credits[1:]
    ]
    return sorted(credits, key=lambda credit: credit.role == FEATURED)


def _paired(role: str, names: Sequence[str], ids: Sequence[str], sort: str | None, rules: CreditRules) -> list[Credit]:
    if len(names) != len(ids) and rules.separators:
        names = list(dict.fromkeys(name for text in names for name in rules.split(text)))
    if len(names) == 1:
        return [Credit(role, names[0], ids[0] if len(ids) == 1 else None, sort)]
    matching = ids if len(ids) == len(names) else (None,) * len(names)
    return [Credit(role, name, identity) for name, identity in zip(names, matching, strict=True)]


def _performers(tags: TrackTags, rules: CreditRules) -> list[Credit]:
    instruments = tags.performer_instruments or ("",) * len(tags.performers)
    return [
        replace(credit, instrument=instrument or None)
        for name, instrument in zip(tags.performers, instruments, strict=True)
        for credit in _paired(PERFORMER, (name,), (), None, rules)
    ]


def _completed(credits: list[Credit]) -> list[Credit]:
    """Give a name without an id the one that this name has in another credit of the same file, unless it has two."""
    identified = {(normalize_name(each.name), each.musicbrainz_id) for each in credits if each.musicbrainz_id}
    ids_of = Counter(name for name, _identity in identified)
    only_id = {name: identity for name, identity in identified if ids_of[name] == 1}
    return [
        each if each.musicbrainz_id else replace(each, musicbrainz_id=only_id.get(normalize_name(each.name)))
        for each in credits
    ]
