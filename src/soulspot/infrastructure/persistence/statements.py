"""Core statements, built once: the hot path never builds one anew."""

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, Final, cast

from sqlalchemy import (
    ColumnElement,
    Select,
    Table,
    Update,
    bindparam,
    delete,
    insert,
    select,
    update,
)

from soulspot.infrastructure.filesystem import Signature
from soulspot.infrastructure.persistence.models import (
    Album,
    Artist,
    AuditEntry,
    File,
    Folder,
    Track,
    TrackArtist,
)
from soulspot.infrastructure.persistence.records import Known, KnownFolder

LOCKS: Final = "soulspot_locks"
"""The execution option of a query that locks what it finds, and so needs a transaction."""


def now() -> datetime:
    return datetime.now(UTC)


LIKE_SIGNS = re.compile(r"[%_^]")
ARTISTS, ALBUMS, TRACKS, CREDITS, FOLDERS, FILES, ENTRIES = (
    cast("Table", model.__table__) for model in (Artist, Album, Track, TrackArtist, Folder, File, AuditEntry)
)
THINGS = (
    (("track",), TRACKS),
    (("file",), FILES),
    (("artist",), ARTISTS),
    (("album",), ALBUMS),
    (("folder", "scan"), FOLDERS),
)
"""Where the things are that the history is of."""
KNOWN = tuple([FILES.c[name] for name in Known._fields])
CURRENT = tuple([FILES.c[name] for name in ("path", *Signature._fields)])
KNOWN_FOLDER = tuple([FOLDERS.c[name] for name in KnownFolder._fields])
_STANDING_OF_FILE = ("id", "folder_id", "path", *Signature._fields, "status", "missing_since", "error_code", "notes")
_STANDING_COLUMNS = (*[FILES.c[name] for name in _STANDING_OF_FILE], TRACKS.c.album_id)
STANDING_NAMES = [column.key for column in _STANDING_COLUMNS]
FILE_COLUMNS, TRACK_COLUMNS, ALBUM_COLUMNS = FILES.c.keys(), TRACKS.c.keys(), ALBUMS.c.keys()
ADD_ARTIST = insert(ARTISTS)
ADD_ALBUM = insert(ALBUMS)
ADD_TRACK = insert(TRACKS)
ADD_CREDITS = insert(CREDITS)
ADD_FOLDER = insert(FOLDERS)
ADD_FILE = insert(FILES)
ADD_ENTRY = insert(ENTRIES)


def locking(query: Select[*tuple[Any, ...]], table: Table) -> Select[*tuple[Any, ...]]:
    """Have what a query finds in a table kept as it is until this transaction ends; SQLite has one writer anyway.

    New rows may refer to it meanwhile (FOR NO KEY UPDATE): to remove it then fails, and is tried again. Were they kept
    waiting, those who add to an album and those who take from it would wait for each other.
    """
    return query.with_for_update(key_share=True, of=table).execution_options(**{LOCKS: True})


def path_range(folder_id: str, prefix: str, after: str = "", upto: str | None = None) -> list[ColumnElement[bool]]:
    """Whether a file's path begins with `prefix` ("" or "folder/") and is in (after, upto]."""
    scope = [FILES.c.folder_id == folder_id, FILES.c.path > max(after, prefix)]
    if prefix:
        scope.append(FILES.c.path < prefix[:-1] + "0")  # "0" follows "/"
    if upto is not None:
        scope.append(FILES.c.path <= upto)
    return scope


def _having_id(table: Table) -> Select[*tuple[Any, ...]]:
    return select(table).where(table.c.id == bindparam("its_id"))


@lru_cache(maxsize=256)
def _set(table: Table, *names: str) -> Update:
    """Return the statement that sets these columns of one row."""
    values: dict[str, object] = {name: bindparam(f"new_{name}") for name in names}
    return update(table).where(table.c.id == bindparam("its_id")).values(values)


def set_to(table: Table, its_id: str, values: Mapping[str, object]) -> tuple[Update, dict[str, object]]:
    """Return the statement that sets these columns of one row, and what it is given."""
    return _set(table, *values), {"its_id": its_id, **{f"new_{name}": value for name, value in values.items()}}


# Each of these is one object for as long as the process runs, because it is kept by identity.
FILE = locking(_having_id(FILES), FILES)
STANDING = locking(
    select(*_STANDING_COLUMNS).select_from(FILES.outerjoin(TRACKS)).where(FILES.c.id == bindparam("its_id")),
    FILES,
)
TRACK = _having_id(TRACKS)
ALBUM = _having_id(ALBUMS)
FOLDER_PATH = select(FOLDERS.c.path).where(FOLDERS.c.id == bindparam("its_id"))
ALBUM_WITH_KEY = select(ALBUMS.c.id).where(ALBUMS.c.identity_key == bindparam("key"))
ALBUM_LOCKED = locking(select(ALBUMS.c.id).where(ALBUMS.c.id == bindparam("its_id")), ALBUMS)
ANOTHER_ON_ALBUM = (
    select(TRACKS.c.id).where(TRACKS.c.album_id == bindparam("album"), TRACKS.c.id != bindparam("but")).limit(1)
)
# By the album alone: SQLite would take the folder for the narrower of the two, and read all of it.
PRESENT_ON_ALBUM = (
    select(FILES.c.folder_id, FILES.c.path)
    .select_from(FILES.join(TRACKS))
    .where(TRACKS.c.album_id == bindparam("album"), FILES.c.missing_since.is_(None))
)
CREDITS_OF_TRACK = (
    select(CREDITS.c.role, CREDITS.c.artist_id, CREDITS.c.credited_as, CREDITS.c.instrument)
    .where(CREDITS.c.track_id == bindparam("its_id"))
    .order_by(CREDITS.c.role, CREDITS.c.position)
)
CLEAR_CREDITS = delete(CREDITS).where(CREDITS.c.track_id == bindparam("its_id"))
ARTIST_WITH_ID = select(ARTISTS.c.id).where(ARTISTS.c.musicbrainz_id == bindparam("identity"))
ARTISTS_WITH_NAME = select(ARTISTS.c.id, ARTISTS.c.musicbrainz_id).where(ARTISTS.c.name_key == bindparam("key"))
