"""Translates the tags of one file into the entry that the catalogue stores. Pure, and done before the transaction.

An entry depends on no other file. Which artist a name means, and whether its album exists, is decided in the
transaction.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from soulspot.infrastructure.tags import TrackTags
from soulspot.ingest.catalogue.columns import (
    CREDITS_CAPPED,
    Columns,
    album_columns,
    file_columns,
    track_columns,
    track_name,
)
from soulspot.ingest.catalogue.credits import AS_WRITTEN, MOST_CREDITS, Credit, CreditRules, credits_of


@dataclass(frozen=True, slots=True)
class TrackEntry:
    """Everything that one file's tags become.

    Attributes:
        track: columns of `tracks`, except its artist and album.
        credits: the names in the tags, the main artist first; there is at least one.
        album: columns of `albums`, except its artist; None if the tags name no album.
        file: columns of `files` that change when the file is read, the notes among them.
        artists: the artists as written; the track's `tags` keep them where its credits differ.
        album_artists: the same for the album artists.
        album_artist: the same for the album artist as one text.

    """

    track: Columns
    credits: tuple[Credit, ...]
    album: Columns | None
    file: Columns
    artists: tuple[str, ...]
    album_artists: tuple[str, ...]
    album_artist: str | None

    @property
    def album_key(self) -> str | None:
        return None if self.album is None else self.album["identity_key"]

    def keys(self) -> Iterator[str]:
        """Yield the keys of its artists and its album, in case some of them are new."""
        yield from (credit.key for credit in self.credits)
        if self.album_key is not None:
            yield self.album_key


def translate(tags: TrackTags, *, folder_id: str, path: str, rules: CreditRules = AS_WRITTEN) -> TrackEntry:
    """Return the entry of a file; `path` is below its watched folder."""
    name = track_name(tags, path)
    credits = credits_of(tags, name.artist, rules)
    notes = name.notes if len(credits) <= MOST_CREDITS else (*name.notes, CREDITS_CAPPED)
    return TrackEntry(
        track=track_columns(tags, name),
        credits=tuple(credits[:MOST_CREDITS]),
        album=album_columns(tags, folder_id, path),
        file=file_columns(tags, notes),
        artists=tags.artists,
        album_artists=tags.album_artists,
        album_artist=tags.album_artist,
    )
