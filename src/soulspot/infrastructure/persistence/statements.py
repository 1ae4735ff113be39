"""The Core statements of the hot path, each built once, by table.

A writer caches a statement by its identity, so each of these is one object for the life of the process.
"""

from datetime import UTC, datetime
from typing import Any, Final

from sqlalchemy import ColumnElement, Select, Table, bindparam, delete, select

from soulspot.infrastructure.filesystem import Signature
from soulspot.infrastructure.persistence.tables import ALBUMS, ARTISTS, CREDITS, FILES, FOLDERS, TRACKS

LOCKS: Final = "soulspot_locks"
"""The execution option of a query that locks the rows it finds, and so needs a transaction."""


def now() -> datetime:
    return datetime.now(UTC)


def locking(query: Select[*tuple[Any, ...]], table: Table) -> Select[*tuple[Any, ...]]:
    """Lock the rows of a table that a query finds until the transaction ends; SQLite has one writer anyway.

    New rows may refer to the locked ones meanwhile (FOR NO KEY UPDATE): removing one then fails, and is retried. If new
    rows had to wait, a transaction that adds to an album and one that removes from it could deadlock.
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


def _with_id(query: Select[*tuple[Any, ...]], table: Table) -> Select[*tuple[Any, ...]]:
    return query.where(table.c.id == bindparam("id"))


class FolderStatements:
    PATH: Final = _with_id(select(FOLDERS.c.path), FOLDERS)


_MOVED: Final = [
    FILES.c[name]
    for name in ("id", "folder_id", "path", *Signature._fields, "status", "missing_since", "error_code", "notes")
]


class FileStatements:
    """Each locks the row that it finds."""

    ROW: Final = locking(_with_id(select(FILES), FILES), FILES)
    BEFORE_MOVE: Final = locking(
        _with_id(select(*_MOVED, TRACKS.c.album_id).select_from(FILES.outerjoin(TRACKS)), FILES), FILES
    )
    """The columns that a move changes, and the album of the track."""


class AlbumStatements:
    ROW: Final = _with_id(select(ALBUMS), ALBUMS)
    LOCK: Final = locking(_with_id(select(ALBUMS.c.id), ALBUMS), ALBUMS)
    ID_BY_KEY: Final = select(ALBUMS.c.id).where(ALBUMS.c.identity_key == bindparam("key"))
    OTHER_TRACK: Final = (
        select(TRACKS.c.id).where(TRACKS.c.album_id == bindparam("album"), TRACKS.c.id != bindparam("but")).limit(1)
    )
    # By the album alone: with the folder as well, SQLite would choose the index of the folder, and read all of it.
    PRESENT_FILES: Final = (
        select(FILES.c.folder_id, FILES.c.path)
        .select_from(FILES.join(TRACKS))
        .where(TRACKS.c.album_id == bindparam("album"), FILES.c.missing_since.is_(None))
    )


class TrackStatements:
    ROW: Final = _with_id(select(TRACKS), TRACKS)
    CREDITS_OF: Final = (
        select(CREDITS.c.role, CREDITS.c.artist_id, CREDITS.c.credited_as, CREDITS.c.instrument)
        .where(CREDITS.c.track_id == bindparam("track"))
        .order_by(CREDITS.c.role, CREDITS.c.position)
    )
    CLEAR_CREDITS: Final = delete(CREDITS).where(CREDITS.c.track_id == bindparam("track"))


class ArtistStatements:
    ID_BY_MUSICBRAINZ_ID: Final = select(ARTISTS.c.id).where(ARTISTS.c.musicbrainz_id == bindparam("identity"))
    IDS_BY_NAME: Final = select(ARTISTS.c.id, ARTISTS.c.musicbrainz_id).where(ARTISTS.c.name_key == bindparam("key"))
