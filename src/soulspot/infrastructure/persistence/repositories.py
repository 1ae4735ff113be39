"""The catalogue's repositories, one class per table.

A repository is built with a session factory and joins the transaction that it is called in; outside one it can only
read. It adds, queries, at most flushes, and never commits: the service that began the transaction does.

Each statement that runs per file is a Core statement, built once and executed with parameters: building one, finding it
in SQLAlchemy's cache of compiled statements, and turning rows into objects take several times as long as the database.
"""

import re
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from itertools import count
from operator import itemgetter
from typing import Any

from sqlalchemy import ColumnElement, Row, Select, false, func, or_, select, union_all, update
from sqlalchemy.orm import contains_eager, joinedload, selectinload

from soulspot.infrastructure.persistence.audit_actions import ACTIONS
from soulspot.infrastructure.persistence.identity import NAME_LENGTH, new_id, normalize_name
from soulspot.infrastructure.persistence.models import Album, Artist, File, Folder, Track, TrackArtist
from soulspot.infrastructure.persistence.records import Credited, FailureQuestion, Known, KnownFolder
from soulspot.infrastructure.persistence.statements import (
    AlbumStatements,
    ArtistStatements,
    FileStatements,
    FolderStatements,
    TrackStatements,
    locking,
    now,
    path_range,
)
from soulspot.infrastructure.persistence.table_access import CatalogueAccess, SessionFactory, TableRepository
from soulspot.infrastructure.persistence.tables import (
    ALBUMS,
    ARTISTS,
    CREDITS,
    ENTRIES,
    FILES,
    FOLDERS,
    KNOWN,
    KNOWN_FOLDER,
    PATH_AND_SIGNATURE,
    TRACKS,
)

_LIKE_WILDCARDS = re.compile(r"[%_^]")


class FolderRepository(TableRepository):
    table = FOLDERS

    async def all(self) -> list[KnownFolder]:
        rows = await self._rows(select(*KNOWN_FOLDER).order_by(FOLDERS.c.path))
        return [KnownFolder(*row) for row in rows]

    async def get(self, node: str, path: str) -> KnownFolder | None:
        query = select(*KNOWN_FOLDER).where(FOLDERS.c.node == node, FOLDERS.c.path == path)
        return next((KnownFolder(*row) for row in await self._rows(query)), None)

    async def add(self, folder: KnownFolder) -> None:
        await self._insert(FOLDERS, {**folder._asdict(), "created_at": now()})

    async def path_of(self, folder_id: str) -> str:
        return str((await self._existing_values(FolderStatements.PATH, folder_id))["path"])


class FileRepository(TableRepository):
    table = FILES

    async def known_between(self, folder_id: str, prefix: str, after: str, upto: str | None) -> dict[str, Known]:
        """Return the known files whose paths are in (after, upto] and begin with `prefix` ("" or "folder/"), by path.

        If a path has no present file, its value is the file that went missing there last.
        """
        return await self._known_by_path(*path_range(folder_id, prefix, after, upto))

    async def current_between(  # noqa: PLR0913 - a range, and by name what counts as current
        self, folder_id: str, prefix: str, after: str, upto: str | None, *, reading: int, failed: Collection[str]
    ) -> Sequence[Row[*tuple[Any, ...]]]:
        """Return path and signature of the files in the same range that need no check, in the order of their paths.

        Those are the present files that this version of the reader read, and that have none of these error codes.
        """
        of_code = FILES.c.error_code
        scope = [*path_range(folder_id, prefix, after, upto), FILES.c.missing_since.is_(None)]
        scope += [FILES.c.parser_version == reading, of_code.is_(None) | of_code.not_in(failed)]
        return await self._rows(select(*PATH_AND_SIGNATURE).where(*scope).order_by(FILES.c.path))

    async def known_at(self, folder_id: str, paths: Collection[str]) -> dict[str, Known]:
        """Return the known files at these paths, by path."""
        return await self._known_by_path(FILES.c.folder_id == folder_id, FILES.c.path.in_(paths)) if paths else {}

    async def known_in(self, folder_id: str, prefix: str) -> dict[str, Known]:
        """Return the known files directly in a folder ("" or "folder/"), not those in its subfolders, by path."""
        deeper = _LIKE_WILDCARDS.sub(r"^\g<0>", prefix) + "%/%"
        return await self._known_by_path(*path_range(folder_id, prefix), FILES.c.path.not_like(deeper, escape="^"))

    async def with_fingerprint(self, fingerprint: str, limit: int) -> list[Known]:
        """Return files of any folder that have this fingerprint, missing ones last."""
        query = select(*KNOWN).where(FILES.c.fingerprint == fingerprint, FILES.c.track_id.is_not(None))
        return await self._known(query.order_by(FILES.c.missing_since.is_not(None)).limit(limit))

    async def fingerprints_missing(self) -> Sequence[str]:
        """Return the fingerprints of the missing files."""
        return await self._fingerprints(FILES.c.missing_since.is_not(None))

    async def fingerprints_at(self, folder_id: str, paths: Collection[str]) -> Sequence[str]:
        """Return the fingerprints of the files that were last present at these paths."""
        present = FILES.c.missing_since.is_(None)  # the index of paths covers only these
        return await self._fingerprints(FILES.c.folder_id == folder_id, FILES.c.path.in_(paths), present)

    async def fingerprints_of(self, file_ids: Collection[str]) -> dict[str, str]:
        """Return the fingerprints of these files, by file id."""
        query = select(FILES.c.id, FILES.c.fingerprint).where(FILES.c.id.in_(file_ids))
        return {file_id: str(found) for file_id, found in await self._rows(query) if found is not None}

    async def later_copies_of(self, file_id: str, *, younger_by: timedelta, since: datetime) -> list[Known]:
        """Return present files with this one's fingerprint, added at least `younger_by` after it, and after `since`."""
        file = await self.get(file_id)
        if file is None or file.fingerprint is None:
            return []
        query = select(*KNOWN).where(FILES.c.fingerprint == file.fingerprint, FILES.c.id != file_id)
        query = query.where(FILES.c.created_at >= max(since, file.created_at + younger_by))
        return await self._known(query.where(FILES.c.missing_since.is_(None), FILES.c.track_id.is_not(None)).limit(10))

    async def missing_since(self, before: datetime) -> Sequence[File]:
        """Return the files that went missing before a moment, with their folders, in the order of their paths."""
        query = select(File).where(FILES.c.missing_since < before).order_by(FILES.c.folder_id, FILES.c.path)
        return await self._scalars(query.options(joinedload(File.folder)))

    async def present_below(self, folder_id: str, path: str) -> list[Known]:
        """Return the files that were last present at a path and, if it is a folder, below it."""
        below = (FILES.c.path > f"{path}/") & (FILES.c.path < f"{path}0")  # "0" follows "/"
        everything = below | (FILES.c.path == path) if path else FILES.c.path > ""
        scope = FILES.c.folder_id == folder_id, everything, FILES.c.missing_since.is_(None)
        return await self._known(select(*KNOWN).where(*scope))

    async def with_inodes(self, inodes: Collection[int]) -> list[Known]:
        """Return the files of any folder that had one of these inodes, missing ones included."""
        query = select(*KNOWN).where(FILES.c.inode.in_(inodes), FILES.c.track_id.is_not(None))
        return await self._known(query) if inodes else []

    async def get(self, file_id: str) -> File | None:
        return await self._get(File, file_id)

    async def values(self, file_id: str) -> dict[str, Any] | None:
        """Return the row of a file by column name, and lock it until the transaction ends."""
        return await self._values(FileStatements.ROW, file_id)

    async def standing(self, file_id: str) -> dict[str, Any] | None:
        """Return the columns that a move changes, and the `album_id` of the track; locks the file's row as well."""
        return await self._values(FileStatements.BEFORE_MOVE, file_id)

    async def add(self, **values: object) -> None:
        await self._insert(FILES, values)

    async def count_present(self, folder_id: str) -> int:
        present = FILES.c.folder_id == folder_id, FILES.c.missing_since.is_(None)
        return await self._scalar(select(func.count()).where(*present)) or 0

    async def some_present(self, folder_id: str, prefix: str = "", limit: int = 20) -> Sequence[str]:
        """Return the paths of a few files that were last present at and below `prefix` ("" or "folder/")."""
        query = select(FILES.c.path).where(*path_range(folder_id, prefix), FILES.c.missing_since.is_(None))
        return await self._scalars(query.order_by(FILES.c.path).limit(limit))

    async def counts(self) -> dict[tuple[str, str, str | None], int]:
        """Return the number of files by folder id, status and error code."""
        by = FILES.c.folder_id, FILES.c.status, FILES.c.error_code
        rows = await self._rows(select(*by, func.count()).group_by(*by))
        return {(folder_id, status, code): number for folder_id, status, code, number in rows}

    async def failed(self, question: FailureQuestion, limit: int | None = None) -> Sequence[File]:
        """Return the failures that match, with their folders, in the order of their paths."""
        conditions = (
            File.status == ("ignored" if question.ignored else "failed"),
            None if question.code is None else File.error_code == question.code,
            None if question.before is None else File.failed_at < question.before,
            None if question.since is None else File.failed_at >= question.since,
            None if question.path is None else await self._in_any_folder(_at_or_below, question.path),
        )
        query = select(File).join(File.folder).where(*(each for each in conditions if each is not None))
        query = query.order_by(Folder.path, File.path).limit(limit).options(contains_eager(File.folder))
        return await self._scalars(query)

    async def at(self, path: str) -> Sequence[File]:
        """Return the files at a full path, with their folders, a present one before missing ones."""
        query = select(File).where(await self._in_any_folder(_at, path)).options(joinedload(File.folder))
        return await self._scalars(query.order_by(File.missing_since.is_not(None), File.missing_since.desc()))

    async def failures(self, limit: int) -> Sequence[File]:
        """Return files that could not be read, with their folders, in the order of their paths."""
        query = select(File).where(File.status == "failed").order_by(File.path).limit(limit)
        return await self._scalars(query.options(joinedload(File.folder)))

    async def with_id(self, identity: str) -> File | None:
        """Return the file with this id, or of the track with this id, with its folder."""
        query = select(File).where((File.id == identity) | (File.track_id == identity))
        return next(iter(await self._scalars(query.options(joinedload(File.folder)))), None)

    async def _in_any_folder(
        self, condition: Callable[[str, str, str], ColumnElement[bool]], path: str
    ) -> ColumnElement[bool]:
        """Return whether a condition on a full path, folder id and folder path holds in any folder."""
        folders = await self._rows(select(FOLDERS.c.id, FOLDERS.c.path))
        return or_(false(), *(condition(path, folder_id, folder_path) for folder_id, folder_path in folders))

    async def _known(self, query: Select[*tuple[Any, ...]]) -> list[Known]:
        return [Known(*row) for row in await self._rows(query)]

    async def _fingerprints(self, *scope: ColumnElement[bool]) -> Sequence[str]:
        return await self._scalars(select(FILES.c.fingerprint).where(*scope, FILES.c.fingerprint.is_not(None)))

    async def _known_by_path(self, *scope: ColumnElement[bool]) -> dict[str, Known]:
        # Two halves, so that each can use its partial index, in one statement, so that both see the same moment: a file
        # that goes missing between two statements would be in neither.
        since = FILES.c.missing_since
        halves = [select(*KNOWN, since).where(*scope, half) for half in (since.is_not(None), since.is_(None))]
        rows = await self._rows(union_all(*halves))
        missing = sorted([row for row in rows if row[-1] is not None], key=itemgetter(-1))
        return {row[2]: Known(*row[:-1]) for row in (*missing, *[row for row in rows if row[-1] is None])}


class ArtistRepository(TableRepository):
    table = ARTISTS

    async def get_by_id(self, artist_id: str) -> Artist | None:
        return await self._get(Artist, artist_id)

    async def add(self, name: str, *, musicbrainz_id: str | None = None, sort_name: str | None = None) -> str:
        """Add an artist and return its id."""
        values = {
            "id": new_id(),
            "name": name[:NAME_LENGTH],
            "name_key": normalize_name(name)[:NAME_LENGTH],
            "sort_name": sort_name[:NAME_LENGTH] if sort_name else None,
            "musicbrainz_id": musicbrainz_id,
            "created_at": now(),
        }
        await self._insert(ARTISTS, values)
        return str(values["id"])

    async def with_musicbrainz_id(self, musicbrainz_id: str) -> str | None:
        """Return the id of the artist with this MusicBrainz id."""
        return await self._scalar(ArtistStatements.ID_BY_MUSICBRAINZ_ID, {"identity": musicbrainz_id})

    async def with_name(self, name: str) -> list[tuple[str, str | None]]:
        """Return id and MusicBrainz id of every artist with this name."""
        rows = await self._rows(ArtistStatements.IDS_BY_NAME, {"key": normalize_name(name)[:NAME_LENGTH]})
        return [(artist_id, musicbrainz_id) for artist_id, musicbrainz_id in rows]

    async def identify(self, artist_id: str, musicbrainz_id: str) -> bool:
        """Give a name-only artist its MusicBrainz id; false if another writer was faster."""
        unidentified = (ARTISTS.c.id == artist_id) & ARTISTS.c.musicbrainz_id.is_(None)
        return await self._change(update(ARTISTS).where(unidentified).values(musicbrainz_id=musicbrainz_id)) == 1

    async def on_album(self, identity_key: str, artist_ids: Collection[str]) -> Sequence[str]:
        """Return which of these artists the tracks of an album credit."""
        query = select(TrackArtist.artist_id).distinct().join(TrackArtist.track).join(Track.album)
        return await self._scalars(
            query.where(Album.identity_key == identity_key, TrackArtist.artist_id.in_(artist_ids))
        )

    async def respelt(self, artist_ids: Collection[str]) -> list[tuple[Artist, str]]:
        """Return which of these artists have a name that no credit uses, with the one that most credits use."""
        ours = select(TrackArtist.track_id).where(TrackArtist.artist_id == Artist.id)
        names = select(TrackArtist.credited_as).where(TrackArtist.artist_id == Artist.id)
        names = names.group_by(TrackArtist.credited_as).order_by(func.count().desc(), TrackArtist.credited_as).limit(1)
        query = select(Artist, names.correlate(Artist).scalar_subquery()).where(
            Artist.id.in_(artist_ids), ours.exists()
        )
        query = query.where(~ours.where(TrackArtist.credited_as == Artist.name).exists())
        return [(artist, name) for artist, name in await self._rows(query)]

    async def uncredited(self, artist_ids: Collection[str]) -> Sequence[Artist]:
        """Return which of these artists no track and no album names any more; locks their rows."""
        if not artist_ids:
            return []
        # If two writers each remove one of the last two credits, the second must see what the first did.
        named = select(ARTISTS.c.id).where(ARTISTS.c.id.in_(artist_ids)).order_by(ARTISTS.c.id)
        await self._rows(locking(named, ARTISTS))
        credited = or_(
            select(TrackArtist.track_id).where(TrackArtist.artist_id == Artist.id).exists(),
            select(Album.id).where(Album.artist_id == Artist.id).exists(),
            select(Track.id).where(Track.artist_id == Artist.id).exists(),
        )
        return await self._scalars(select(Artist).where(Artist.id.in_(artist_ids), ~credited))


class AlbumRepository(TableRepository):
    table = ALBUMS

    async def get_by_id(self, album_id: str) -> Album | None:
        return await self._get(Album, album_id)

    async def with_key(self, identity_key: str) -> str | None:
        return await self._scalar(AlbumStatements.ID_BY_KEY, {"key": identity_key})

    async def values(self, album_id: str) -> dict[str, Any]:
        """Return the row of an album by column name."""
        return await self._existing_values(AlbumStatements.ROW, album_id)

    async def add(self, **values: object) -> str:
        """Add an album and return its id."""
        album_id = new_id()
        await self._insert(ALBUMS, {"id": album_id, "created_at": now(), "split_from": None, **values})
        return album_id

    async def has_tracks_but(self, album_id: str, track_id: str | None) -> bool:
        """Whether an album has another track than this one; locks the album's row."""
        await self._rows(AlbumStatements.LOCK, {"id": album_id})  # as in `uncredited`
        other = await self._scalar(AlbumStatements.OTHER_TRACK, {"album": album_id, "but": track_id or ""})
        return other is not None

    async def present_paths(self, album_id: str, folder_id: str) -> list[str]:
        """Return the paths of an album's present files in one watched folder."""
        rows = await self._rows(AlbumStatements.PRESENT_FILES, {"album": album_id})
        return [path for folder, path in rows if folder == folder_id]

    async def take_tracks(self, album_id: str, other: str) -> int:
        """Move every track of another album to this one, and return how many there were."""
        theirs = update(TRACKS).where(TRACKS.c.album_id == other)
        return await self._change(theirs.values(album_id=album_id, updated_at=now()))


class TrackRepository(TableRepository):
    table = TRACKS

    async def get_by_id(self, track_id: str) -> Track | None:
        """Return a track with its artist, album and credits."""
        credits = selectinload(Track.credits).joinedload(TrackArtist.artist)
        return await self._get(Track, track_id, options=[joinedload(Track.artist), joinedload(Track.album), credits])

    async def add(self, **values: object) -> str:
        """Add a track, given every column but id and times, and return its id."""
        track_id, moment = new_id(), now()
        await self._insert(TRACKS, {"id": track_id, "created_at": moment, "updated_at": moment, **values})
        return track_id

    async def values(self, track_id: str) -> dict[str, Any]:
        """Return the row of a track by column name."""
        return await self._existing_values(TrackStatements.ROW, track_id)

    async def set(self, row_id: str, **values: object) -> None:
        await super().set(row_id, **{"updated_at": now(), **values})

    async def credits(self, track_id: str) -> list[Credited]:
        """Return the credits of a track, by role and position."""
        return [Credited(*row) for row in await self._rows(TrackStatements.CREDITS_OF, {"track": track_id})]

    async def credit(self, track_id: str, credited: Iterable[Credited]) -> None:
        """Write the credits of a track; their order gives the positions in each role."""
        positions: defaultdict[str, Iterator[int]] = defaultdict(count)
        rows = [
            {
                "track_id": track_id,
                "role": role,
                "position": next(positions[role]),
                "artist_id": artist_id,
                "credited_as": name,
                "instrument": instrument,
            }
            for role, artist_id, name, instrument in credited
        ]
        await self._insert(CREDITS, *rows)

    async def remove(self, row_id: str) -> None:
        """Remove a track and its credits."""
        await self.clear_credits(row_id)
        await super().remove(row_id)

    async def clear_credits(self, track_id: str) -> None:
        async with self._session_factory() as session:
            await session.execute(TrackStatements.CLEAR_CREDITS, {"track": track_id})

    async def count(self) -> int:
        return await self._scalar(select(func.count()).select_from(TRACKS)) or 0


class AuditRepository(CatalogueAccess):
    def __init__(self, session_factory: SessionFactory, *, run: str = "") -> None:
        super().__init__(session_factory)
        self._run = run

    async def log_action(
        self, action: str, entity_id: str, *, path: str | None = None, changes: Mapping[str, Any] | None = None
    ) -> None:
        """Write one entry. The action begins with the type of its entity: "track_added" concerns a track."""
        assert action in ACTIONS, action
        await self._insert(
            ENTRIES,
            {
                "at": now(),
                "action": action,
                "entity_type": action.partition("_")[0],
                "entity_id": entity_id,
                "path": path,
                "changes": changes,
                "run": self._run,
            },
        )


def _at(path: str, folder_id: str, folder_path: str) -> ColumnElement[bool]:
    """Whether a file of this folder is at a full path."""
    top = folder_path.rstrip("/") + "/"
    if not path.startswith(top):
        return false()
    here = (File.folder_id == folder_id) & (File.path == path[len(top) :])
    return (here & File.missing_since.is_(None)) | (here & File.missing_since.is_not(None))  # each has its own index


def _at_or_below(path: str, folder_id: str, folder_path: str) -> ColumnElement[bool]:
    """Whether a file of this folder is at a full path or, if that is a folder, below it."""
    if f"{folder_path}/".startswith(path.rstrip("/") + "/"):
        return File.folder_id == folder_id
    below = path.removeprefix(folder_path.rstrip("/") + "/")
    inside = (File.path > f"{below}/") & (File.path < f"{below}0")  # "0" follows "/"
    here = _at(path, folder_id, folder_path)
    return here | ((File.folder_id == folder_id) & inside) if below != path else false()
