"""`soulspot albums`: lists the albums and the tracks that each is missing."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

from soulspot.cli.actions.open_catalogue import query_catalogue
from soulspot.cli.output.text import Row, print_rows
from soulspot.infrastructure.persistence.identity import is_various
from soulspot.infrastructure.persistence.models import Album
from soulspot.infrastructure.persistence.queries.search import OnAlbum, SearchQueries

VARIOUS_ARTISTS: Final = "Various Artists"
Range = tuple[int, int]
"""First and last of consecutive numbers."""


@dataclass(frozen=True, slots=True)
class Disc:
    """One disc of an album.

    Attributes:
        tracks: how many tracks are present.
        total: how many there should be, None if no tag says so.
        missing: the missing track numbers; none for a disc without tracks and without a total.

    """

    number: int
    tracks: int
    total: int | None
    missing: tuple[Range, ...]


@dataclass(frozen=True, slots=True)
class Contents:
    """The discs of an album, and the numbers of discs without any track."""

    discs: tuple[Disc, ...]
    missing_discs: tuple[Range, ...]

    @property
    def is_complete(self) -> bool | None:
        """Whether nothing is missing; None if no tag says how many tracks there should be."""
        if self.missing_discs or any(disc.missing for disc in self.discs):
            return False
        return True if self.discs and all(disc.total for disc in self.discs) else None


def print_albums(
    words: Sequence[str], config: Path | None, *, incomplete: bool, limit: int | None, as_json: bool
) -> None:
    found = query_catalogue(config, lambda database: SearchQueries(database.session).albums(words))
    listed = [
        _as_json(album, tracks, contents_of(tracks))
        for album, tracks in found
        if any(track.is_present for track in tracks)
    ]
    if incomplete:
        listed = [each for each in listed if each["complete"] is False]
    print_rows(
        listed[:limit],
        {"artist": "artist", "album": "title", "date": "date", "tracks": "tracks", "missing": _missing},
        as_json=as_json,
    )


def is_compilation(album: Album, tracks: Sequence[OnAlbum]) -> bool:
    """Whether an album is by various artists: by tag, by its artist, or as no artist has over half of its tracks."""
    if album.compilation or is_various(album.artist_credit) or any(track.compilation for track in tracks):
        return True
    if album.artist_credit is not None or not tracks:
        return False
    return 2 * max(Counter(track.artist for track in tracks).values()) <= len(tracks)


def artist_of(album: Album, tracks: Sequence[OnAlbum]) -> str:
    if album.artist_credit is not None:
        return album.artist_credit
    if is_compilation(album, tracks) or not tracks:
        return VARIOUS_ARTISTS
    return Counter(track.artist for track in tracks).most_common(1)[0][0]


def contents_of(tracks: Iterable[OnAlbum]) -> Contents:
    """Return which tracks of an album are present and missing, by the numbers and totals in its tags.

    A missing file counts for the totals, but not as present.
    """
    by_disc: dict[int, list[OnAlbum]] = {}
    for track in tracks:
        by_disc.setdefault(track.disc_number or 1, []).append(track)
    numbers, discs, before = sorted(by_disc), [], 0
    is_continuous = _is_continuous(by_disc)
    for number in numbers:
        discs.append(_disc(number, by_disc[number], before, is_last=number == numbers[-1] or not is_continuous))
        before = max(_numbers(by_disc[number]), default=before) if is_continuous else 0
    last = max([*numbers, *(track.disc_total or 0 for some in by_disc.values() for track in some)], default=0)
    return Contents(tuple(discs), tuple(_gaps(numbers, 1, last)))


def _is_continuous(by_disc: dict[int, list[OnAlbum]]) -> bool:
    """Whether the track numbers of each disc continue those of the disc before."""
    spans = [(min(numbers), max(numbers)) for _disc, some in sorted(by_disc.items()) if (numbers := _numbers(some))]
    adjacent = all(first == last + 1 for (_, last), (first, _) in pairwise(spans))
    return len(spans) > 1 and len(spans) == len(by_disc) and adjacent


def _disc(number: int, tracks: list[OnAlbum], before: int, *, is_last: bool) -> Disc:
    present = [track for track in tracks if track.is_present]
    numbers = _numbers(present)
    total = max((track.track_total for track in tracks if track.track_total), default=None)
    upto = max([*_numbers(tracks), total or 0]) if is_last else max(_numbers(tracks), default=0)
    missing = tuple(_gaps(sorted(numbers), before + 1, upto))
    unnumbered = sum(track.track_number is None for track in present)
    if unnumbered >= sum(last - first + 1 for first, last in missing):
        missing = ()  # the tracks without a number may be these
    return Disc(number, len(numbers) + unnumbered, total, missing)


def _numbers(tracks: Iterable[OnAlbum]) -> set[int]:
    return {track.track_number for track in tracks if track.track_number is not None}


def _gaps(numbers: Sequence[int], first: int, last: int) -> Iterator[Range]:
    """Yield the ranges from first to last that are not in these sorted numbers."""
    for number in numbers:
        if number > first:
            yield first, number - 1
        first = max(first, number + 1)
    if first <= last:
        yield first, last


def _as_json(album: Album, tracks: Sequence[OnAlbum], contents: Contents) -> dict[str, Any]:
    return {
        "id": album.id,
        "title": album.title,
        "artist": artist_of(album, tracks),
        "artist_id": album.artist_id,
        "date": album.date,
        "original_date": album.original_date,
        "compilation": is_compilation(album, tracks),
        "musicbrainz_id": album.musicbrainz_id,
        "tracks": sum(disc.tracks for disc in contents.discs),
        "discs": [
            {"disc": disc.number, "tracks": disc.tracks, "total": disc.total, "missing": disc.missing}
            for disc in contents.discs
        ],
        "missing_discs": contents.missing_discs,
        "complete": contents.is_complete,
    }


def _missing(album: Row) -> str:
    """Return what is missing as "3, 7-9; disc 2: 1"."""
    discs, missing_discs = album["discs"], album["missing_discs"]
    several = len(discs) > 1 or missing_discs
    parts = [
        f"disc {each['disc']}: {_listed(each['missing'])}" if several else _listed(each["missing"])
        for each in discs
        if each["missing"]
    ]
    return "; ".join(parts + [f"disc {_listed([some])}" for some in missing_discs])


def _listed(ranges: Iterable[Range]) -> str:
    return ", ".join(str(first) if first == last else f"{first}-{last}" for first, last in ranges)
