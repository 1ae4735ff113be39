"""Completes an entry with the artists that its names resolved to, and compares rows with earlier ones. Pure."""

from collections.abc import Iterable, Sequence
from typing import Any

from soulspot.infrastructure.persistence.records import Credited
from soulspot.ingest.catalogue.columns import Columns
from soulspot.ingest.catalogue.credits import ALBUM_ARTIST, MAIN
from soulspot.ingest.catalogue.entry import TrackEntry


def track_row(entry: TrackEntry, credits: Sequence[Credited]) -> dict[str, Any]:
    """Return the columns of `tracks`, except its album."""
    return {
        **entry.track,
        "artist_id": credits[0].artist_id,
        "tags": entry.track["tags"] | _names_not_credited(entry, credits),
    }


def album_row(entry: TrackEntry, credits: Sequence[Credited]) -> dict[str, Any] | None:
    """Return the columns of `albums`; None if the tags name no album."""
    if entry.album is None:
        return None
    artist_id = next((each.artist_id for each in credits if each.role == ALBUM_ARTIST), None)
    return {**entry.album, "artist_id": artist_id}


def changed(before: Columns, after: Columns) -> dict[str, Any]:
    """Return the new values of the columns that differ."""
    return {name: value for name, value in after.items() if before[name] != value}


def differences(before: Columns, after: Columns) -> dict[str, Any]:
    """Return before and after of each column that differs; `tags` tag by tag."""
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


def credit_differences(before: Iterable[Credited], after: Iterable[Credited]) -> dict[str, Any]:
    """Return before and after of the credits, by role, where they differ."""
    old, new = _by_role(before), _by_role(after)
    return {} if old == new else {"credits": [old, new]}


def _by_role(credits: Iterable[Credited]) -> list[list[str]]:
    return [[text for text in credit if text is not None] for credit in sorted(credits, key=lambda each: each.role)]


def _names_not_credited(entry: TrackEntry, credits: Sequence[Credited]) -> dict[str, Any]:
    """Return the names of the artists as written, if the credits differ from them."""
    kept: dict[str, Any] = {}
    if entry.artists and entry.artists != _names(MAIN, credits):
        kept["artists"] = list(entry.artists)
    by = _names(ALBUM_ARTIST, credits) if entry.album_artist else ()
    if entry.album_artists and entry.album_artists != by:
        kept["album_artists"] = list(entry.album_artists)
    if entry.album_artist and entry.album_artist != ", ".join(by):
        kept["album_artist"] = entry.album_artist
    return kept


def _names(role: str, credits: Sequence[Credited]) -> tuple[str, ...]:
    return tuple([each.name for each in credits if each.role == role])
