"""The tables as Core has them, and the columns that a value of `records.py` is made of."""

from typing import TYPE_CHECKING, Final, cast

from soulspot.infrastructure.filesystem import Signature
from soulspot.infrastructure.persistence.models import Album, Artist, AuditEntry, File, Folder, Track, TrackArtist
from soulspot.infrastructure.persistence.records import Known, KnownFolder

if TYPE_CHECKING:
    from sqlalchemy import Table

ARTISTS, ALBUMS, TRACKS, CREDITS, FOLDERS, FILES, ENTRIES = (
    cast("Table", model.__table__) for model in (Artist, Album, Track, TrackArtist, Folder, File, AuditEntry)
)
KNOWN: Final = tuple([FILES.c[name] for name in Known._fields])
"""The columns of `Known`."""
KNOWN_FOLDER: Final = tuple([FOLDERS.c[name] for name in KnownFolder._fields])
"""The columns of `KnownFolder`."""
PATH_AND_SIGNATURE: Final = tuple([FILES.c[name] for name in ("path", *Signature._fields)])
