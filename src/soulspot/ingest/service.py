"""What becomes of one file, each verb one transaction: all of it is in the catalogue, with its audit, or none of it.

ingest   the tags of a new, changed or returned file
reject   why a file could not be read
move     a known file at a new path
restore  a missing file that is back as it was
lose     a file that is not there any more
"""

import logging
from collections import ChainMap
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy.exc import IntegrityError

from soulspot.infrastructure.filesystem import FileSystem, path_to_text
from soulspot.infrastructure.persistence.database import Database
from soulspot.infrastructure.persistence.identity import fold, new_id
from soulspot.infrastructure.persistence.models import File, Folder
from soulspot.infrastructure.persistence.repositories import (
    AlbumRepository,
    ArtistRepository,
    AuditRepository,
    Credit,
    FileRepository,
    FolderRepository,
    Known,
    TrackRepository,
    known_of,
    now,
)
from soulspot.infrastructure.tags import PARSER_VERSION, Failure, TrackTags
from soulspot.ingest import columns
from soulspot.ingest.claims import Claims
from soulspot.ingest.scanner import FoundFile, Root

logger = logging.getLogger(__name__)

_REMEMBERED: Final = 20_000
Credits = list[tuple[str, str, str]]
"""Role, artist id and credited name of each, in order."""


class StaleError(Exception):
    """The catalogue changed between the look at a file and its transaction: look again."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a file: added, updated, moved, missing, restored, failed or unchanged."""

    kind: str
    path: str  # the whole path, escaped as the catalogue writes it
    track_id: str | None = None
    detail: str = ""


class IngestService:
    """Owns the transactions of the ingest.

    Args:
        run: the id of this start of soulspot, written into each audit entry.
        node: the name of this machine; a folder belongs to the machine that sees it.

    """

    def __init__(self, database: Database, *, run: str, node: str) -> None:
        self._database = database
        self._node = node
        self._artists = ArtistRepository(database.session)
        self._albums = AlbumRepository(database.session)
        self._tracks = TrackRepository(database.session)
        self._files = FileRepository(database.session)
        self._folders = FolderRepository(database.session)
        self._audit = AuditRepository(database.session, run=run)
        # Ids found or made, so that an album's second track asks for none of them; forgotten when a rollback may have
        # taken them back.
        self._artist_ids: dict[str, str] = {}
        self._album_ids: dict[str, str] = {}
        self._claims = Claims()

    async def ingest(self, file: FoundFile, tags: TrackTags, known: Known | None) -> Outcome:
        """Write what a file's tags say: a new track, or what has changed of one that is known.

        Raises StaleError when `known` is not what the catalogue has any more.
        """
        async with self._claims.claimed(_identities(file, tags), existing=ChainMap(self._artist_ids, self._album_ids)):
            return await self._ingest(file, tags, known)

    async def _ingest(self, file: FoundFile, tags: TrackTags, known: Known | None) -> Outcome:
        with self._forgetting_on_rollback():
            async with self._database.transaction():
                if known is None or known.track_id is None:
                    return await self._add(file, tags, known)
                return await self._update(file, tags, known, known.track_id)

    async def reject(self, file: FoundFile, failure: Failure, known: Known | None) -> Outcome:
        """Write why a file could not be read; a track that it was before stays."""
        path = _whole(file)
        attempts = 1 if known is None or known.is_missing else known.attempts + 1
        values = columns.signature_columns(file) | {
            "status": "failed",
            "missing_since": None,
            "error_code": failure.code,
            "error_text": failure.message,
            "attempts": attempts,
            "parser_version": PARSER_VERSION,
        }
        with self._forgetting_on_rollback():
            async with self._database.transaction():
                file_id = await self._write_file(file, known, values)
                changes = {"code": failure.code, "reason": failure.message, "attempts": attempts}
                await self._audit.log_action("file_failed", file_id, path=path, changes=changes)
        return Outcome("failed", path, detail=f"{failure.code}: {failure.message}")

    async def move(self, file: FoundFile, origin: Known, occupant: Known | None) -> Outcome:
        """Write that a known file is at a new path; a file that was known at that path is missing from now on."""
        path, track_id = _whole(file), str(origin.track_id)
        with self._forgetting_on_rollback():
            async with self._database.transaction():
                row = await self._unchanged_row(origin)
                before = await self._whole_path_of(origin)
                if occupant is not None and not occupant.is_missing:
                    await self._unchanged_row(occupant)
                    await self._mark_missing(occupant, path, {"replaced_by": track_id})
                changes: dict[str, Any] = {"path": [before, path]}
                if origin.is_missing:
                    changes["status"] = ["missing", "catalogued"]
                if columns.TITLE_FROM_NAME in row.notes:
                    changes |= await self._retitle(track_id, columns.title_of(file.path))
                place = {
                    "folder_id": file.root.id,
                    "path": file.path,
                    "missing_since": None,
                    "status": _read_status(row),
                }
                await self._files.set(origin.id, **columns.signature_columns(file), **place)
                await self._audit.log_action("track_moved", track_id, path=path, changes=changes)
        return Outcome("moved", path, track_id, f"from {before}")

    async def restore(self, file: FoundFile, known: Known) -> Outcome:
        """Write that a missing file is back as it was."""
        path = _whole(file)
        with self._forgetting_on_rollback():
            async with self._database.transaction():
                row = await self._unchanged_row(known)
                values = columns.signature_columns(file) | {"missing_since": None, "status": _read_status(row)}
                await self._files.set(known.id, **values)
                await self._log_presence("restored", known, path, None)
        return Outcome("restored", path, known.track_id)

    async def lose(self, known: Known) -> Outcome:
        """Write that a file is not there any more; its track and its id stay."""
        async with self._database.transaction():
            await self._unchanged_row(known)
            path = await self._whole_path_of(known)
            await self._mark_missing(known, path, None)
        return Outcome("missing", path, known.track_id)

    async def adopt_folder(self, path: str, file_system: FileSystem) -> Folder:
        """Return the row of a watched folder, made where there is none yet."""
        text = path_to_text(path)
        if (folder := await self._folders.get(self._node, text)) is not None:
            return folder
        async with self._database.transaction():
            folder = Folder(
                id=new_id(),
                node=self._node,
                path=text,
                file_system=file_system.kind,
                file_system_id=file_system.identity,
                status="online",
                created_at=now(),
            )
            await self._folders.add(folder)
            changes = {"file_system": file_system.kind, "file_system_id": file_system.identity}
            await self._audit.log_action("folder_added", folder.id, path=text, changes=changes)
        return folder

    async def set_folder_status(self, root: Root, status: str, reason: str | None) -> None:
        """Write that a folder went offline, and why, or that it is back."""
        async with self._database.transaction():
            await self._folders.set(root.id, status=status, status_reason=reason)
            changes = {"reason": reason} if reason else None
            await self._audit.log_action(f"folder_{status}", root.id, path=path_to_text(root.path), changes=changes)

    async def finish_scan(self, root: Root, counts: Mapping[str, int]) -> None:
        """Write what a scan did that changed something."""
        async with self._database.transaction():
            await self._audit.log_action("scan_finished", root.id, path=path_to_text(root.path), changes=dict(counts))

    async def _add(self, file: FoundFile, tags: TrackTags, known: Known | None) -> Outcome:
        path, name = _whole(file), columns.named(file, tags)
        await self._look_up(file, tags, name.artist)
        credits = await self._credits(tags, name.artist, path)
        values = columns.track_columns(tags, name)
        track_id = await self._tracks.add(
            **values, artist_id=credits[0][1], album_id=await self._album(file, tags, credits)
        )
        await self._tracks.credit(track_id, credits)
        await self._write_file(file, known, columns.file_columns(file, tags, name.notes) | {"track_id": track_id})
        changes = {"title": values["title"], "artist": values["artist_credit"], "album": tags.album}
        await self._audit.log_action("track_added", track_id, path=path, changes=changes)
        return Outcome("added", path, track_id, f"{name.artist} – {name.title}")

    async def _update(self, file: FoundFile, tags: TrackTags, known: Known, track_id: str) -> Outcome:
        await self._unchanged_row(known)
        path, name = _whole(file), columns.named(file, tags)
        before, credited = await self._tracks.values(track_id), await self._tracks.credits(track_id)
        await self._look_up(file, tags, name.artist)
        credits = await self._credits(tags, name.artist, path)
        album_id = await self._album(file, tags, credits, current=before["album_id"])
        values = columns.track_columns(tags, name) | {"artist_id": credits[0][1], "album_id": album_id}
        changes = columns.differences(before, values)
        if _by_role(credited) != _by_role(credits):
            changes["credits"] = [_by_role(credited), _by_role(credits)]
            await self._tracks.clear_credits(track_id)
            await self._tracks.credit(track_id, credits)
        if known.status != "catalogued":
            changes["status"] = [known.status, "catalogued"]
        await self._files.set(known.id, **columns.file_columns(file, tags, name.notes))
        if not changes:
            return Outcome("unchanged", path, track_id)
        await self._tracks.set(track_id, **values)
        action = "restored" if known.is_missing else "updated"
        await self._audit.log_action(f"track_{action}", track_id, path=path, changes=changes)
        await self._remove_uncredited(before["album_id"], album_id, credited, credits)
        return Outcome(action, path, track_id, ", ".join(sorted(changes)))

    async def _credits(self, tags: TrackTags, artist: str, path: str) -> Credits:
        """Return everyone that the tags name, with artists made where they are new; the main artist first."""
        named = columns.credits_of(tags, artist)
        identified_first = sorted(named, key=lambda credit: credit.musicbrainz_id is None)
        ids = {credit: await self._artist(credit, path) for credit in identified_first}
        return [(credit.role, ids[credit], credit.name) for credit in named]

    async def _look_up(self, file: FoundFile, tags: TrackTags, artist: str) -> None:
        """Remember which of the artists and the album that the tags name exist.

        Before the first is added: what is added next to each other costs PostgreSQL one round trip.
        """
        for credit in columns.credits_of(tags, artist):
            key = _identity(credit)
            if key not in self._artist_ids:
                found = await (
                    self._artist_by_id(credit) if credit.musicbrainz_id else self._artist_by_name(credit.name)
                )
                if found is not None:
                    _remember(self._artist_ids, key, found)
        if tags.album and (key := columns.album_key_of(file, tags)) not in self._album_ids:
            found = await self._albums.with_key(key)
            if found is not None:
                _remember(self._album_ids, key, found)

    async def _artist(self, credit: Credit, path: str) -> str:
        """Return the artist's id: by MusicBrainz id first, else by name."""
        key = _identity(credit)
        if (remembered := self._artist_ids.get(key)) is not None:
            return remembered
        added = await self._artists.add(credit.name, musicbrainz_id=credit.musicbrainz_id)
        changes = {"name": credit.name, "musicbrainz_id": credit.musicbrainz_id}
        await self._audit.log_action("artist_added", added, path=path, changes=changes)
        _remember(self._artist_ids, key, added)
        self._artist_ids.setdefault(fold(credit.name), added)  # the same file may name it without its id
        return added

    async def _artist_by_id(self, credit: Credit) -> str | None:
        assert credit.musicbrainz_id is not None
        if (found := await self._artists.with_musicbrainz_id(credit.musicbrainz_id)) is not None:
            return found
        namesakes = await self._artists.with_name(credit.name)
        unidentified = next((artist_id for artist_id, musicbrainz_id in namesakes if musicbrainz_id is None), None)
        if unidentified is not None:
            if not await self._artists.identify(unidentified, credit.musicbrainz_id):
                msg = f"{credit.name} was identified by another writer"
                raise StaleError(msg)
            changes = {"musicbrainz_id": [None, credit.musicbrainz_id]}
            await self._audit.log_action("artist_updated", unidentified, changes=changes)
        return unidentified

    async def _artist_by_name(self, name: str) -> str | None:
        namesakes = await self._artists.with_name(name)
        unidentified = [artist_id for artist_id, musicbrainz_id in namesakes if musicbrainz_id is None]
        if unidentified or len(namesakes) == 1:
            return (unidentified or [namesakes[0][0]])[0]
        return None  # nobody of this name, or several with ids: then it is one more, until an id says who

    async def _album(
        self, file: FoundFile, tags: TrackTags, credits: Credits, *, current: str | None = None
    ) -> str | None:
        """Return the id of the tags' album, made where it is new; one that a track is on and that fits is kept."""
        if not tags.album:
            return None
        key = columns.album_key_of(file, tags)
        if current is not None and await self._albums.fits(current, columns.album_columns(tags, key, None)):
            return current
        if (remembered := self._album_ids.get(key)) is not None:
            return remembered
        artist_id = next((artist_id for role, artist_id, _name in credits if role == "album artist"), None)
        added = await self._albums.add(**columns.album_columns(tags, key, artist_id))
        changes = {"title": tags.album, "artist": tags.album_artist}
        await self._audit.log_action("album_added", added, path=_whole(file), changes=changes)
        _remember(self._album_ids, key, added)
        return added

    async def _write_file(self, file: FoundFile, known: Known | None, values: dict[str, Any]) -> str:
        """Write the file's row, new or as it was known, and return its id."""
        if known is not None:
            await self._unchanged_row(known)
            await self._files.set(known.id, **values)
            return known.id
        file_id = new_id()
        empty: dict[str, Any] = {
            "error_code": None,
            "error_text": None,
            "fingerprint": None,
            "notes": [],
            "track_id": None,
        }
        place = {"id": file_id, "folder_id": file.root.id, "path": file.path, "created_at": now()}
        await self._files.add(**(empty | place | values))
        return file_id

    async def _unchanged_row(self, known: Known) -> File:
        row = await self._files.get(known.id)
        if row is None or known_of(row) != known:
            msg = f"{known.path} is not in the catalogue as it was"
            raise StaleError(msg)
        return row

    async def _retitle(self, track_id: str, title: str) -> dict[str, Any]:
        before = await self._tracks.values(track_id)
        if before["title"] == title:
            return {}
        search_text = before["search_text"].replace(fold(before["title"]), fold(title), 1)
        await self._tracks.set(track_id, title=title, search_text=search_text)
        return {"title": [before["title"], title]}

    async def _mark_missing(self, known: Known, path: str, changes: dict[str, Any] | None) -> None:
        await self._files.set(known.id, status="missing", missing_since=now())
        await self._log_presence("missing", known, path, changes)

    async def _log_presence(self, what: str, known: Known, path: str, changes: dict[str, Any] | None) -> None:
        kind, entity_id = ("track", known.track_id) if known.track_id else ("file", known.id)
        await self._audit.log_action(f"{kind}_{what}", entity_id, path=path, changes=changes)

    async def _whole_path_of(self, known: Known) -> str:
        folders = {folder.id: folder.path for folder in await self._folders.all()}
        return f"{folders[known.folder_id].rstrip('/')}/{known.path}"

    async def _remove_uncredited(
        self, old_album: str | None, album: str | None, credited: Credits, credits: Credits
    ) -> None:
        """Remove the album and the artists that have lost their last credit."""
        left = {artist_id for _role, artist_id, _name in credited} - {artist_id for _role, artist_id, _name in credits}
        if old_album is not None and old_album != album and await self._albums.is_empty(old_album):
            row = await self._albums.get_by_id(old_album)
            if row is None:
                msg = f"album {old_album} was removed by another writer"
                raise StaleError(msg)
            left |= {row.artist_id} if row.artist_id else set()
            await self._albums.remove(old_album)
            self._album_ids.clear()
            await self._audit.log_action("album_removed", old_album, changes={"title": row.title})
        for artist in await self._artists.uncredited(left):
            await self._artists.remove(artist.id)
            self._artist_ids.clear()
            changes = {"name": artist.name, "musicbrainz_id": artist.musicbrainz_id}
            await self._audit.log_action("artist_removed", artist.id, changes=changes)

    @contextmanager
    def _forgetting_on_rollback(self) -> Iterator[None]:
        try:
            yield
        except BaseException as error:
            self._artist_ids.clear()
            self._album_ids.clear()
            if isinstance(error, IntegrityError):
                raise StaleError(str(error.orig)) from error
            raise


def _whole(file: FoundFile) -> str:
    return f"{path_to_text(file.root.path).rstrip('/')}/{file.path}"


def _identity(credit: Credit) -> str:
    return credit.musicbrainz_id or fold(credit.name)


def _identities(file: FoundFile, tags: TrackTags) -> list[str]:
    """Return the keys of the artists and the album that a file names."""
    credits = columns.credits_of(tags, columns.named(file, tags).artist)
    album = [columns.album_key_of(file, tags)] if tags.album else []
    return [_identity(credit) for credit in credits] + album


def _read_status(row: File) -> str:
    return "failed" if row.error_code else "catalogued"


def _by_role(credits: Credits) -> list[list[str]]:
    return [list(credit) for credit in sorted(credits, key=lambda credit: credit[0])]


def _remember(ids: dict[str, str], key: str, identity: str) -> None:
    if len(ids) >= _REMEMBERED:
        ids.clear()
    ids[key] = identity
