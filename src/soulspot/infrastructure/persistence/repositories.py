"""What the catalogue is asked and told, one class a table.

A repository is built with a session factory and joins the transaction that it is called in; outside one it can only
read. It adds, queries, at most flushes, and never commits: the service that began the transaction does.

What runs for each file is a plain Core statement, made once and given its values beside it: to build one anew, to find
it among those that SQLAlchemy has compiled, and to make objects of rows costs several times what the database takes.
"""

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from functools import cache
from operator import itemgetter
from typing import Any, cast

from sqlalchemy import (
    ColumnElement,
    CursorResult,
    Row,
    Select,
    delete,
    false,
    func,
    or_,
    select,
    union_all,
    update,
)
from sqlalchemy.orm import contains_eager, joinedload, selectinload

from soulspot.infrastructure.persistence.audit_actions import ACTIONS
from soulspot.infrastructure.persistence.database import SessionFactory
from soulspot.infrastructure.persistence.identity import NAME_LENGTH, new_id, normalize_name
from soulspot.infrastructure.persistence.models import (
    Album,
    Artist,
    File,
    Folder,
    Track,
    TrackArtist,
)
from soulspot.infrastructure.persistence.records import Credited, FailureQuestion, Known, KnownFolder
from soulspot.infrastructure.persistence.row_changes import RowUpdate, insert_rows, update_row
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

_LIKE_SIGNS = re.compile(r"[%_^]")


class FolderRepository:
    def __init__(self, session_factory: SessionFactory) -> None:
        self._session_factory = session_factory

    async def all(self) -> list[KnownFolder]:
        async with self._session_factory() as session:
            rows = await session.execute(select(*KNOWN_FOLDER).order_by(FOLDERS.c.path))
            return [KnownFolder(*row) for row in rows]

    async def get(self, node: str, path: str) -> KnownFolder | None:
        query = select(*KNOWN_FOLDER).where(FOLDERS.c.node == node, FOLDERS.c.path == path)
        async with self._session_factory() as session:
            row = (await session.execute(query)).one_or_none()
            return None if row is None else KnownFolder(*row)

    async def add(self, folder: KnownFolder) -> None:
        async with self._session_factory() as session:
            await insert_rows(session, FOLDERS, {**folder._asdict(), "created_at": now()})

    async def set(self, folder_id: str, **values: object) -> None:
        async with self._session_factory() as session:
            await update_row(session, RowUpdate(FOLDERS, folder_id, values))

    async def path_of(self, folder_id: str) -> str:
        async with self._session_factory() as session:
            return str((await session.execute(FolderStatements.PATH, {"id": folder_id})).scalar_one())


class FileRepository:
    def __init__(self, session_factory: SessionFactory) -> None:
        self._session_factory = session_factory

    async def known_between(self, folder_id: str, prefix: str, after: str, upto: str | None) -> dict[str, Known]:
        """Return what is known of the paths in (after, upto] that begin with `prefix` ("" or "folder/"), by path.

        Of a path where no file is, it is the file that went missing there last.
        """
        return await self._known_where(*path_range(folder_id, prefix, after, upto))

    async def current_between(  # noqa: PLR0913 - a range, and by name what counts as current
        self, folder_id: str, prefix: str, after: str, upto: str | None, *, reading: int, failed: Collection[str]
    ) -> Sequence[Row[*tuple[Any, ...]]]:
        """Return path and signature of what needs no other look in the same range, in the order of the paths.

        That is what is there, was read in this way, and has not failed with one of these codes.
        """
        of_code = FILES.c.error_code
        scope = [*path_range(folder_id, prefix, after, upto), FILES.c.missing_since.is_(None)]
        scope += [FILES.c.parser_version == reading, of_code.is_(None) | of_code.not_in(failed)]
        async with self._session_factory() as session:
            return (await session.execute(select(*PATH_AND_SIGNATURE).where(*scope).order_by(FILES.c.path))).all()

    async def known_at(self, folder_id: str, paths: Collection[str]) -> dict[str, Known]:
        """Return what is known of these paths, by path."""
        return await self._known_where(FILES.c.folder_id == folder_id, FILES.c.path.in_(paths)) if paths else {}

    async def known_in(self, folder_id: str, prefix: str) -> dict[str, Known]:
        """Return what is known of the files that lie in a folder itself ("" or "folder/"), by path."""
        deeper = _LIKE_SIGNS.sub(r"^\g<0>", prefix) + "%/%"
        in_folder_itself = FILES.c.path.not_like(deeper, escape="^")
        return await self._known_where(*path_range(folder_id, prefix), in_folder_itself)

    async def with_fingerprint(self, fingerprint: str, limit: int) -> list[Known]:
        """Return files of any folder that have this fingerprint, missing ones last."""
        async with self._session_factory() as session:
            query = select(*KNOWN).where(FILES.c.fingerprint == fingerprint, FILES.c.track_id.is_not(None))
            rows = await session.execute(query.order_by(FILES.c.missing_since.is_not(None)).limit(limit))
            return [Known(*row) for row in rows]

    async def fingerprints_missing(self) -> list[str]:
        """Return the fingerprints of the files that are missing."""
        async with self._session_factory() as session:
            query = select(FILES.c.fingerprint).where(
                FILES.c.missing_since.is_not(None), FILES.c.fingerprint.is_not(None)
            )
            return list(await session.scalars(query))

    async def fingerprints_at(self, folder_id: str, paths: Collection[str]) -> list[str]:
        """Return the fingerprints of the files that were there last at these paths."""
        async with self._session_factory() as session:
            query = select(FILES.c.fingerprint).where(FILES.c.folder_id == folder_id, FILES.c.path.in_(paths))
            query = query.where(FILES.c.missing_since.is_(None))  # it is by this that the paths have an index
            return list(await session.scalars(query.where(FILES.c.fingerprint.is_not(None))))

    async def fingerprints_of(self, file_ids: Collection[str]) -> dict[str, str]:
        """Return the fingerprints of these files, by file id."""
        async with self._session_factory() as session:
            query = select(FILES.c.id, FILES.c.fingerprint).where(
                FILES.c.id.in_(file_ids), FILES.c.fingerprint.is_not(None)
            )
            return {file_id: str(fingerprint) for file_id, fingerprint in await session.execute(query)}

    async def later_copies_of(self, file_id: str, *, younger_by: timedelta, since: datetime) -> list[Known]:
        """Return files that are there, sound as this one did, and were added so much later than it, and since then."""
        async with self._session_factory() as session:
            file = await session.get(File, file_id)
            if file is None or file.fingerprint is None:
                return []
            query = select(*KNOWN).where(FILES.c.fingerprint == file.fingerprint, FILES.c.id != file_id)
            query = query.where(FILES.c.created_at >= max(since, file.created_at + younger_by))
            query = query.where(FILES.c.missing_since.is_(None), FILES.c.track_id.is_not(None)).limit(10)
            return [Known(*row) for row in await session.execute(query)]

    async def missing_since(self, before: datetime) -> Sequence[File]:
        """Return the files that went missing before a moment, with their folders, in the order of their paths."""
        query = select(File).where(FILES.c.missing_since < before).order_by(FILES.c.folder_id, FILES.c.path)
        async with self._session_factory() as session:
            return (await session.scalars(query.options(joinedload(File.folder)))).all()

    async def present_below(self, folder_id: str, path: str) -> list[Known]:
        """Return the files that were there last at a path and, were it a folder, below it."""
        below = (FILES.c.path > f"{path}/") & (FILES.c.path < f"{path}0")  # "0" follows "/"
        everything = below | (FILES.c.path == path) if path else FILES.c.path > ""
        async with self._session_factory() as session:
            rows = await session.execute(
                select(*KNOWN).where(FILES.c.folder_id == folder_id, everything, FILES.c.missing_since.is_(None))
            )
            return [Known(*row) for row in rows]

    async def with_inodes(self, inodes: Collection[int]) -> list[Known]:
        """Return the files of any folder that had one of these inodes, missing ones included."""
        if not inodes:
            return []
        async with self._session_factory() as session:
            rows = await session.execute(select(*KNOWN).where(FILES.c.inode.in_(inodes), FILES.c.track_id.is_not(None)))
            return [Known(*row) for row in rows]

    async def get(self, file_id: str) -> File | None:
        async with self._session_factory() as session:
            return await session.get(File, file_id)

    async def values(self, file_id: str) -> dict[str, Any] | None:
        """Return the row of a file by column name; nobody else changes it before this transaction ends."""
        async with self._session_factory() as session:
            row = (await session.execute(FileStatements.ROW, {"id": file_id})).one_or_none()
            return None if row is None else _by_column(FileStatements.ROW, row)

    async def standing(self, file_id: str) -> dict[str, Any] | None:
        """Return what a move changes of a row, and the `album_id` of its track; nobody else changes the row either."""
        async with self._session_factory() as session:
            row = (await session.execute(FileStatements.BEFORE_MOVE, {"id": file_id})).one_or_none()
            return None if row is None else _by_column(FileStatements.BEFORE_MOVE, row)

    async def add(self, **values: object) -> None:
        async with self._session_factory() as session:
            await insert_rows(session, FILES, values)

    async def set(self, file_id: str, **values: object) -> None:
        async with self._session_factory() as session:
            await update_row(session, RowUpdate(FILES, file_id, values))

    async def remove(self, file_id: str) -> None:
        async with self._session_factory() as session:
            await session.execute(delete(FILES).where(FILES.c.id == file_id))

    async def count_present(self, folder_id: str) -> int:
        async with self._session_factory() as session:
            counted = select(func.count()).where(FILES.c.folder_id == folder_id, FILES.c.missing_since.is_(None))
            return (await session.scalar(counted)) or 0

    async def some_present(self, folder_id: str, prefix: str = "", limit: int = 20) -> list[str]:
        """Return the paths of a few files that were there last, at and below `prefix` ("" or "folder/")."""
        query = select(FILES.c.path).where(*path_range(folder_id, prefix), FILES.c.missing_since.is_(None))
        async with self._session_factory() as session:
            return list(await session.scalars(query.order_by(FILES.c.path).limit(limit)))

    async def counts(self) -> dict[tuple[str, str, str | None], int]:
        """Return the number of files by folder id, status and error code."""
        async with self._session_factory() as session:
            rows = await session.execute(
                select(File.folder_id, File.status, File.error_code, func.count()).group_by(
                    File.folder_id, File.status, File.error_code
                )
            )
            return {(folder_id, status, code): count for folder_id, status, code, count in rows}

    async def failed(self, question: FailureQuestion, limit: int | None = None) -> Sequence[File]:
        """Return the files that a question about failures is of, with their folders, in the order of their paths."""
        query = select(File).join(File.folder).where(File.status == ("ignored" if question.ignored else "failed"))
        if question.code is not None:
            query = query.where(File.error_code == question.code)
        if question.before is not None:
            query = query.where(File.failed_at < question.before)
        if question.since is not None:
            query = query.where(File.failed_at >= question.since)
        async with self._session_factory() as session:
            if question.path is not None:
                folders = [KnownFolder(*row) for row in await session.execute(select(*KNOWN_FOLDER))]
                query = query.where(or_(false(), *(_at_or_below(question.path, folder) for folder in folders)))
            query = query.order_by(Folder.path, File.path).limit(limit).options(contains_eager(File.folder))
            return (await session.scalars(query)).all()

    async def at(self, path: str) -> Sequence[File]:
        """Return the files at a whole path, with their folders, one that is there before those that went missing."""
        async with self._session_factory() as session:
            folders = [KnownFolder(*row) for row in await session.execute(select(*KNOWN_FOLDER))]
            here = [_at(path, folder) for folder in folders]
            query = select(File).where(or_(false(), *here)).options(joinedload(File.folder))
            return (
                await session.scalars(query.order_by(File.missing_since.is_not(None), File.missing_since.desc()))
            ).all()

    async def failures(self, limit: int) -> Sequence[File]:
        """Return files that could not be read, with their folders, in the order of their paths."""
        async with self._session_factory() as session:
            query = select(File).where(File.status == "failed").order_by(File.path).limit(limit)
            return (await session.scalars(query.options(joinedload(File.folder)))).all()

    async def with_id(self, identity: str) -> File | None:
        """Return the file with this id, or of the track with this id, with its folder."""
        async with self._session_factory() as session:
            query = select(File).where((File.id == identity) | (File.track_id == identity))
            return await session.scalar(query.options(joinedload(File.folder)))

    async def _known_where(self, *scope: ColumnElement[bool]) -> dict[str, Known]:
        # Two halves, so that each can use the index that was made for it, and one statement, so that both are of one
        # moment: a file that goes missing between two would be in neither.
        since = FILES.c.missing_since
        halves = [select(*KNOWN, since).where(*scope, half) for half in (since.is_not(None), since.is_(None))]
        async with self._session_factory() as session:
            rows = (await session.execute(union_all(*halves))).all()
        missing = sorted([row for row in rows if row[-1] is not None], key=itemgetter(-1))
        return {row[2]: Known(*row[:-1]) for row in (*missing, *[row for row in rows if row[-1] is None])}


class ArtistRepository:
    def __init__(self, session_factory: SessionFactory) -> None:
        self._session_factory = session_factory

    async def get_by_id(self, artist_id: str) -> Artist | None:
        async with self._session_factory() as session:
            return await session.get(Artist, artist_id)

    async def add(self, name: str, *, musicbrainz_id: str | None = None, sort_name: str | None = None) -> str:
        """Add an artist and return its id."""
        artist_id = new_id()
        values = {
            "id": artist_id,
            "name": name[:NAME_LENGTH],
            "name_key": normalize_name(name)[:NAME_LENGTH],
            "sort_name": sort_name[:NAME_LENGTH] if sort_name else None,
            "musicbrainz_id": musicbrainz_id,
            "created_at": now(),
        }
        async with self._session_factory() as session:
            await insert_rows(session, ARTISTS, values)
        return artist_id

    async def with_musicbrainz_id(self, musicbrainz_id: str) -> str | None:
        """Return the id of the artist with this MusicBrainz id."""
        async with self._session_factory() as session:
            return (await session.execute(ArtistStatements.ID_BY_MUSICBRAINZ_ID, {"identity": musicbrainz_id})).scalar()

    async def with_name(self, name: str) -> list[tuple[str, str | None]]:
        """Return id and MusicBrainz id of every artist of this name."""
        async with self._session_factory() as session:
            key = normalize_name(name)[:NAME_LENGTH]
            rows = await session.execute(ArtistStatements.IDS_BY_NAME, {"key": key})
            return [(artist_id, musicbrainz_id) for artist_id, musicbrainz_id in rows]

    async def identify(self, artist_id: str, musicbrainz_id: str) -> bool:
        """Give a name-only artist its MusicBrainz id; false where another writer was faster."""
        nameless = (ARTISTS.c.id == artist_id) & ARTISTS.c.musicbrainz_id.is_(None)
        async with self._session_factory() as session:
            result = await session.execute(update(ARTISTS).where(nameless).values(musicbrainz_id=musicbrainz_id))
            return cast("CursorResult[Any]", result).rowcount == 1

    async def on_album(self, identity_key: str, artist_ids: Collection[str]) -> list[str]:
        """Return those of these artists that tracks of an album credit."""
        async with self._session_factory() as session:
            query = select(TrackArtist.artist_id).distinct().join(TrackArtist.track).join(Track.album)
            query = query.where(Album.identity_key == identity_key, TrackArtist.artist_id.in_(artist_ids))
            return list(await session.scalars(query))

    async def set(self, artist_id: str, **values: object) -> None:
        async with self._session_factory() as session:
            await update_row(session, RowUpdate(ARTISTS, artist_id, values))

    async def respelt(self, artist_ids: Collection[str]) -> list[tuple[Artist, str]]:
        """Return those of these artists whose name no credit gives any more, with the name that most credits give."""
        ours = select(TrackArtist.track_id).where(TrackArtist.artist_id == Artist.id)
        query = select(Artist).where(Artist.id.in_(artist_ids), ours.exists())
        query = query.where(~ours.where(TrackArtist.credited_as == Artist.name).exists())
        respelt = []
        async with self._session_factory() as session:
            for artist in (await session.scalars(query)).all():
                names = select(TrackArtist.credited_as).where(TrackArtist.artist_id == artist.id)
                names = names.group_by(TrackArtist.credited_as).order_by(func.count().desc(), TrackArtist.credited_as)
                respelt.append((artist, (await session.scalars(names.limit(1))).one()))
        return respelt

    async def uncredited(self, artist_ids: Collection[str]) -> Sequence[Artist]:
        """Return those of these artists that no track and no album names any more."""
        if not artist_ids:
            return []
        async with self._session_factory() as session:
            # Two writers that each take away one of the last two credits: the second has to see what the first did.
            named = select(ARTISTS.c.id).where(ARTISTS.c.id.in_(artist_ids)).order_by(ARTISTS.c.id)
            await session.execute(locking(named, ARTISTS))
            credited = or_(
                select(TrackArtist.track_id).where(TrackArtist.artist_id == Artist.id).exists(),
                select(Album.id).where(Album.artist_id == Artist.id).exists(),
                select(Track.id).where(Track.artist_id == Artist.id).exists(),
            )
            return (await session.scalars(select(Artist).where(Artist.id.in_(artist_ids), ~credited))).all()

    async def remove(self, artist_id: str) -> None:
        async with self._session_factory() as session:
            await session.execute(delete(ARTISTS).where(ARTISTS.c.id == artist_id))


class AlbumRepository:
    def __init__(self, session_factory: SessionFactory) -> None:
        self._session_factory = session_factory

    async def get_by_id(self, album_id: str) -> Album | None:
        async with self._session_factory() as session:
            return await session.get(Album, album_id)

    async def with_key(self, identity_key: str) -> str | None:
        async with self._session_factory() as session:
            return (await session.execute(AlbumStatements.ID_BY_KEY, {"key": identity_key})).scalar()

    async def values(self, album_id: str) -> dict[str, Any]:
        """Return the row of an album by column name."""
        async with self._session_factory() as session:
            row = (await session.execute(AlbumStatements.ROW, {"id": album_id})).one()
            return _by_column(AlbumStatements.ROW, row)

    async def add(self, **values: object) -> str:
        """Add an album and return its id."""
        album_id = new_id()
        async with self._session_factory() as session:
            await insert_rows(session, ALBUMS, {"id": album_id, "created_at": now(), "split_from": None, **values})
        return album_id

    async def set(self, album_id: str, **values: object) -> None:
        async with self._session_factory() as session:
            await update_row(session, RowUpdate(ALBUMS, album_id, values))

    async def has_tracks_but(self, album_id: str, track_id: str | None) -> bool:
        """Whether an album has another track than this one."""
        async with self._session_factory() as session:
            await session.execute(AlbumStatements.LOCK, {"id": album_id})  # as in `uncredited`
            found = await session.execute(AlbumStatements.OTHER_TRACK, {"album": album_id, "but": track_id or ""})
            return found.scalar() is not None

    async def present_paths(self, album_id: str, folder_id: str) -> list[str]:
        """Return the paths of an album's files that are there, in one watched folder."""
        async with self._session_factory() as session:
            rows = await session.execute(AlbumStatements.PRESENT_FILES, {"album": album_id})
            return [path for folder, path in rows if folder == folder_id]

    async def take_tracks(self, album_id: str, other: str) -> int:
        """Put every track of another album on this one, and return how many there were."""
        async with self._session_factory() as session:
            result = await session.execute(
                update(TRACKS).where(TRACKS.c.album_id == other).values(album_id=album_id, updated_at=now())
            )
            return cast("CursorResult[Any]", result).rowcount

    async def remove(self, album_id: str) -> None:
        async with self._session_factory() as session:
            await session.execute(delete(ALBUMS).where(ALBUMS.c.id == album_id))


class TrackRepository:
    def __init__(self, session_factory: SessionFactory) -> None:
        self._session_factory = session_factory

    async def get_by_id(self, track_id: str) -> Track | None:
        """Return a track with its artist, album and credits."""
        async with self._session_factory() as session:
            credits = selectinload(Track.credits).joinedload(TrackArtist.artist)
            wanted = [joinedload(Track.artist), joinedload(Track.album), credits]
            return await session.get(Track, track_id, options=wanted)

    async def add(self, **values: object) -> str:
        """Add a track, every column given but id and times, and return its id."""
        track_id, moment = new_id(), now()
        async with self._session_factory() as session:
            await insert_rows(session, TRACKS, {"id": track_id, "created_at": moment, "updated_at": moment, **values})
        return track_id

    async def values(self, track_id: str) -> dict[str, Any]:
        """Return the row of a track by column name."""
        async with self._session_factory() as session:
            row = (await session.execute(TrackStatements.ROW, {"id": track_id})).one()
            return _by_column(TrackStatements.ROW, row)

    async def set(self, track_id: str, **values: object) -> None:
        async with self._session_factory() as session:
            await update_row(session, RowUpdate(TRACKS, track_id, {"updated_at": now(), **values}))

    async def credits(self, track_id: str) -> list[Credited]:
        """Return the credits of a track, by role, each role in its order."""
        async with self._session_factory() as session:
            rows = await session.execute(TrackStatements.CREDITS_OF, {"track": track_id})
            return [Credited(*row) for row in rows]

    async def credit(self, track_id: str, credited: Iterable[Credited]) -> None:
        """Write a track's credits, each role in its order."""
        positions: dict[str, int] = {}
        rows = []
        for role, artist_id, name, instrument in credited:
            position = positions[role] = positions.get(role, -1) + 1
            rows.append(
                {
                    "track_id": track_id,
                    "role": role,
                    "position": position,
                    "artist_id": artist_id,
                    "credited_as": name,
                    "instrument": instrument,
                }
            )
        async with self._session_factory() as session:
            await insert_rows(session, CREDITS, *rows)

    async def remove(self, track_id: str) -> None:
        """Remove a track and its credits."""
        await self.clear_credits(track_id)
        async with self._session_factory() as session:
            await session.execute(delete(TRACKS).where(TRACKS.c.id == track_id))

    async def clear_credits(self, track_id: str) -> None:
        async with self._session_factory() as session:
            await session.execute(TrackStatements.CLEAR_CREDITS, {"track": track_id})

    async def count(self) -> int:
        async with self._session_factory() as session:
            return (await session.scalar(select(func.count()).select_from(Track))) or 0


class AuditRepository:
    def __init__(self, session_factory: SessionFactory, *, run: str = "") -> None:
        self._session_factory = session_factory
        self._run = run

    async def log_action(
        self, action: str, entity_id: str, *, path: str | None = None, changes: Mapping[str, Any] | None = None
    ) -> None:
        """Write one entry. The action names the entity's type first: "track_added" is of a track."""
        assert action in ACTIONS, action
        entry = {
            "at": now(),
            "action": action,
            "entity_type": action.partition("_")[0],
            "entity_id": entity_id,
            "path": path,
            "changes": changes,
            "run": self._run,
        }
        async with self._session_factory() as session:
            await insert_rows(session, ENTRIES, entry)


def _by_column(statement: Select[*tuple[Any, ...]], row: Row[*tuple[Any, ...]]) -> dict[str, Any]:
    return dict(zip(_names(statement), row, strict=True))


@cache
def _names(statement: Select[*tuple[Any, ...]]) -> Sequence[str]:
    return statement.selected_columns.keys()  # to ask each row costs three times as much


def _at(path: str, folder: KnownFolder) -> ColumnElement[bool]:
    """Whether a file of this folder is at a whole path."""
    top = folder.path.rstrip("/") + "/"
    if not path.startswith(top):
        return false()
    here = (File.folder_id == folder.id) & (File.path == path[len(top) :])
    return (here & File.missing_since.is_(None)) | (here & File.missing_since.is_not(None))  # each has its own index


def _at_or_below(path: str, folder: KnownFolder) -> ColumnElement[bool]:
    """Whether a file of this folder is at a whole path or, were it a folder, below it."""
    if f"{folder.path}/".startswith(path.rstrip("/") + "/"):
        return File.folder_id == folder.id
    below = path.removeprefix(folder.path.rstrip("/") + "/")
    inside = (File.path > f"{below}/") & (File.path < f"{below}0")  # "0" follows "/"
    return _at(path, folder) | ((File.folder_id == folder.id) & inside) if below != path else false()
