"""Finds duplicates: files with one MusicBrainz recording id, or with one fingerprint.

An index finds the ids that occur more than once. Only their files are read, one group at a time, so that only the
largest group has to fit in memory. The database sorts the groups by their first paths.
"""

from collections.abc import AsyncGenerator
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Literal

from sqlalchemy import Select, func, select

from soulspot.infrastructure.filesystem import full_path
from soulspot.infrastructure.persistence.database import Database
from soulspot.infrastructure.persistence.tables import ALBUMS, FILES, FOLDERS, TRACKS

By = Literal["recording", "sound"]
BATCH: Final = 500
_KEYS: Final = {"recording": TRACKS.c.musicbrainz_recording_id, "sound": FILES.c.fingerprint}


@dataclass(frozen=True, slots=True)
class Copy:
    """One file of a group, with what a person needs to choose which to keep."""

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
        return full_path(self.folder, self.path)


async def duplicates(database: Database, by: By) -> AsyncGenerator[list[Copy], None]:
    """Yield each group of two or more catalogued files, all as of one moment."""
    group: list[Copy] = []
    async with database.backend.snapshot() as connection:
        async for row in await connection.stream(copies_query(by), execution_options={"yield_per": BATCH}):
            copy = Copy(*row)
            if group and group[0].key != copy.key:
                if len(group) > 1:  # one that is alone has a missing or failed duplicate
                    yield group
                group = []
            group.append(copy)
    if len(group) > 1:
        yield group


def copies_query(by: By) -> Select[*tuple[Any, ...]]:
    key, file, track = _KEYS[by], FILES.c, TRACKS.c
    again = select(key).where(key.is_not(None)).group_by(key).having(func.count() > 1)
    place = (FOLDERS.c.path, file.path)
    first = func.min(FOLDERS.c.path + "/" + file.path).over(partition_by=key)
    return (
        select(key, *place, FOLDERS.c.node, file.size, file.mtime_ns, file.inode, file.fingerprint, track.id)
        .add_columns(track.title, track.artist_credit, ALBUMS.c.title, track.duration_ms, track.container, track.codec)
        .add_columns(track.lossless, track.bitrate, track.sample_rate, track.bits_per_sample, track.channels)
        .add_columns(track.has_cover, track.musicbrainz_recording_id, track.created_at, track.search_text)
        .select_from(FILES.join(TRACKS, file.track_id == track.id).join(FOLDERS, file.folder_id == FOLDERS.c.id))
        .outerjoin(ALBUMS, track.album_id == ALBUMS.c.id)
        .where(file.status == "catalogued", key.in_(again))
        .order_by(first, key, *place, FOLDERS.c.node)
    )
