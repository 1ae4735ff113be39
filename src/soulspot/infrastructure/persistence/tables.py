"""The tables for Core statements, and the columns of the values in `records.py`."""

from typing import Final

from soulspot.infrastructure.filesystem import Signature
from soulspot.infrastructure.persistence.models import Album, Artist, AuditEntry, Base, File, Folder, Track, TrackArtist
from soulspot.infrastructure.persistence.records import Known, KnownFolder

ARTISTS, ALBUMS, TRACKS, CREDITS, FOLDERS, FILES, ENTRIES = (
    Base.metadata.tables[model.__tablename__] for model in (Artist, Album, Track, TrackArtist, Folder, File, AuditEntry)
)
KNOWN: Final = tuple([FILES.c[name] for name in Known._fields])
"""The columns of `Known`."""
KNOWN_FOLDER: Final = tuple([FOLDERS.c[name] for name in KnownFolder._fields])
"""The columns of `KnownFolder`."""
PATH_AND_SIGNATURE: Final = tuple([FILES.c[name] for name in ("path", *Signature._fields)])
