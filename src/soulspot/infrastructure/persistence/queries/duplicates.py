"""Files that hold the same: the same recording by its MusicBrainz id, or the same sound by its fingerprint.

An index says which ids are there more than once; only the files of these are looked up, and come a group at a time, so
that no more than the largest group is in memory. The database puts the groups in the order of their first paths.
"""

from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Literal, cast

from sqlalchemy import Select, Table, func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from soulspot.infrastructure.persistence.database import Database
from soulspot.infrastructure.persistence.models import Album, File, Folder, Track

By = Literal["recording", "sound"]
BATCH: Final = 500

_FILES, _TRACKS, _FOLDERS, _ALBUMS = (cast("Table", model.__table__) for model in (File, Track, Folder, Album))
_KEYS: Final = {"recording": _TRACKS.c.musicbrainz_recording_id, "sound": _FILES.c.fingerprint}


@dataclass(frozen=True, slots=True)
class Copy:
    """One file of a group, as a person has to see it to choose."""

    key: str
    folder: str
    path: str
    node: str
    size: int
    mtime_ns: int
    inode: int
    fingerprint: str | None
    track_id: str
    title: str
    artist: str
    album: str | None
    duration_ms: int | None
    container: str | None
    codec: str | None
    lossless: bool | None
    bitrate: int | None
    sample_rate: int | None
    bits_per_sample: int | None
    channels: int | None
    has_cover: bool
    musicbrainz_recording_id: str | None
    added_at: datetime
    search_text: str

    @property
    def full_path(self) -> str:
        return f"{self.folder.rstrip('/')}/{self.path}"


async def duplicates(database: Database, by: By) -> AsyncGenerator[list[Copy], None]:
    """Yield the files of each group of two or more that are there and can be read, all of one moment."""
    group: list[Copy] = []
    async with database.snapshot() as connection:
        async for copy in _copies(connection, by):
            if group and group[0].key != copy.key:
                if len(group) > 1:
                    yield group
                group = []
            group.append(copy)
    if len(group) > 1:
        yield group


async def _copies(connection: AsyncConnection, by: By) -> AsyncIterator[Copy]:
    result = await connection.stream(copies_query(by), execution_options={"yield_per": BATCH})
    async for row in result:
        yield Copy(*row)


def copies_query(by: By) -> Select[*tuple[Any, ...]]:
    key = _KEYS[by]
    again = select(key).where(key.is_not(None)).group_by(key).having(func.count() > 1)
    place = (_FOLDERS.c.path, _FILES.c.path)
    first = func.min(_FOLDERS.c.path + "/" + _FILES.c.path).over(partition_by=key)
    file, track = _FILES.c, _TRACKS.c
    return (
        select(key, *place, _FOLDERS.c.node, file.size, file.mtime_ns, file.inode, file.fingerprint, track.id)
        .add_columns(track.title, track.artist_credit, _ALBUMS.c.title, track.duration_ms, track.container, track.codec)
        .add_columns(track.lossless, track.bitrate, track.sample_rate, track.bits_per_sample, track.channels)
        .add_columns(track.has_cover, track.musicbrainz_recording_id, track.created_at, track.search_text)
        .select_from(_FILES.join(_TRACKS, file.track_id == track.id).join(_FOLDERS, file.folder_id == _FOLDERS.c.id))
        .outerjoin(_ALBUMS, track.album_id == _ALBUMS.c.id)
        .where(file.status == "catalogued", key.in_(again))
        .order_by(first, key, *place, _FOLDERS.c.node)
    )
