"""What becomes of one file, each verb one transaction: all of it is in the catalogue, with its audit, or none of it.

ingest   the tags of a new, changed or returned file
reject   why a file could not be read
move     a known file at a new path
restore  a missing file that is back as it was
lose     a file that is not there any more
purge    a file that is to be forgotten, with its track
"""

import logging
from collections import ChainMap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from operator import attrgetter, itemgetter
from typing import Any, Final, NamedTuple

from sqlalchemy.exc import IntegrityError, NoResultFound

from soulspot.infrastructure.filesystem import FileSystem, path_to_text
from soulspot.infrastructure.persistence.database import Database
from soulspot.infrastructure.persistence.identity import album_folder, new_id, normalize_name
from soulspot.infrastructure.persistence.models import MOUNT_STATES, File
from soulspot.infrastructure.persistence.records import Credit, Credited, Known, KnownFolder
from soulspot.infrastructure.persistence.repositories import (
    AlbumRepository,
    ArtistRepository,
    AuditRepository,
    FileRepository,
    FolderRepository,
    TrackRepository,
)
from soulspot.infrastructure.persistence.statements import now
from soulspot.infrastructure.tags import Failure, TrackTags
from soulspot.ingest.catalogue import columns
from soulspot.ingest.catalogue.albums import Albums
from soulspot.ingest.catalogue.artists import Artists, Where
from soulspot.ingest.catalogue.credits import AS_WRITTEN, MOST_CREDITS, CreditRules, credits_of
from soulspot.ingest.catalogue.key_locks import Claims
from soulspot.ingest.disk.walker import FoundFile, Root
from soulspot.ingest.outcome import Outcome, StaleError

logger = logging.getLogger(__name__)

Columns = Mapping[str, Any]
"""A row, or a part of one, by column name."""

# What a decision about a file was made on: as it was known then, and as the catalogue has it now.
_DECISIVE: Final = ("folder_id", "path", "status", "inode", "size", "mtime_ns")
_decided_on, _decided_on_row = attrgetter(*_DECISIVE), itemgetter(*_DECISIVE)


class _Names(NamedTuple):
    """What a file's tags name: the track, who is credited on it, and the identity of its album."""

    track: columns.Named
    credits: list[Credit]
    album_key: str | None

    def keys(self) -> list[str]:
        """Return what the artists and the album are remembered by."""
        artists = [credit.musicbrainz_id or normalize_name(credit.name) for credit in self.credits]
        return [*artists, self.album_key] if self.album_key else artists


class IngestService:
    """Owns the transactions of the ingest.

    Args:
        run: the id of this start of soulspot, written into each audit entry.
        node: the name of this machine; a folder belongs to the machine that sees it.
        credit_rules: how names are read out of the tags' texts.

    """

    def __init__(self, database: Database, *, run: str, node: str, credit_rules: CreditRules = AS_WRITTEN) -> None:
        self._database = database
        self._node = node
        self._credit_rules = credit_rules
        self._tracks = TrackRepository(database.session)
        self._files = FileRepository(database.session)
        self._folders = FolderRepository(database.session)
        self._audit = AuditRepository(database.session, run=run)
        self._artists = Artists(ArtistRepository(database.session), self._audit, database.reserve)
        self._albums = Albums(AlbumRepository(database.session), self._audit)
        self._claims = Claims()
        self._paths: dict[str, str] = {}  # of the folders, by id: neither ever changes

    async def ingest(self, file: FoundFile, tags: TrackTags, known: Known | None) -> Outcome:
        """Write what a file's tags say: a new track, or what has changed of one that is known.

        Raises StaleError when `known` is not what the catalogue has any more.
        """
        names = self._names(file, tags)
        if not self._database.backend.has_concurrent_writers:
            return await self._ingest(file, tags, names, known)
        existing = ChainMap(self._artists.ids, self._albums.ids)
        async with self._claims.claimed(names.keys(), existing=existing):
            return await self._ingest(file, tags, names, known)

    async def _ingest(self, file: FoundFile, tags: TrackTags, names: _Names, known: Known | None) -> Outcome:
        with self._forgetting_on_rollback():
            async with self._database.transaction():
                if known is None or known.track_id is None:
                    return await self._add(file, tags, names, known)
                return await self._update(file, tags, names, known, known.track_id)

    async def reject(self, file: FoundFile, failure: Failure, known: Known | None) -> Outcome:
        """Write why a file could not be read; a track that it was before stays.

        One that a person ignores stays ignored for as long as it is what it was.
        """
        path = _whole(file)
        attempts = 1 if known is None or known.is_missing else known.attempts + 1
        ignored = known is not None and known.status == "ignored" and file.is_as(known.signature)
        values = columns.signature_columns(file) | {
            "status": "ignored" if ignored else "failed",
            "missing_since": None,
            "error_code": failure.code,
            "error_text": failure.message,
            "failed_at": now(),
            "attempts": attempts,
            "parser_version": file.root.reading,
        }
        with self._forgetting_on_rollback():
            async with self._database.transaction():
                file_id = await self._write_file(file, known, values)
                if ignored:
                    return Outcome("unchanged", path)
                changes = {"code": failure.code, "reason": failure.message, "attempts": attempts}
                await self._audit.log_action("file_failed", file_id, path=path, changes=changes)
        return Outcome("failed", path, known.track_id if known else None, failure.message, failure.code)

    async def move(
        self, file: FoundFile, origin: Known, occupant: Known | None, tags: TrackTags | None = None
    ) -> Outcome:
        """Write that a known file is at a new path; a file that was known at that path is missing from now on.

        With `tags`, those of a file that was tagged anew on its way.
        """
        if not self._database.backend.has_concurrent_writers:
            return await self._move(file, origin, occupant, tags)
        # One after the other out of one folder: of two at once, each would take the other for the last of its album.
        folder = f"{origin.folder_id}/{album_folder(origin.path)}"
        async with self._claims.claimed([folder], existing=()):
            return await self._move(file, origin, occupant, tags)

    async def _move(self, file: FoundFile, origin: Known, occupant: Known | None, tags: TrackTags | None) -> Outcome:
        path, track_id = _whole(file), str(origin.track_id)
        with self._forgetting_on_rollback():
            async with self._database.transaction():
                row = await self._standing(origin)
                before = await self._whole_path_of(origin)
                if occupant is not None and not occupant.is_missing:
                    await self._standing(occupant)
                    await self._mark_missing(occupant, path, {"replaced_by": track_id})
                changes: dict[str, Any] = {"path": [before, path]}
                if origin.is_missing:
                    changes["status"] = ["missing", "catalogued"]
                if tags is None and columns.TITLE_FROM_NAME in row["notes"]:
                    changes |= await self._retitle(track_id, columns.title_of(file.path))
                place = {"folder_id": file.root.id, "path": file.path, "status": _read_status(row)}
                await self._change_file(row, columns.signature_columns(file) | place | {"missing_since": None})
                has_left = (album_folder(origin.path), origin.folder_id) != (album_folder(file.path), file.root.id)
                if has_left and row["album_id"] is not None:
                    changes |= await self._follow_album(track_id, row["album_id"], origin, file)
                await self._audit.log_action("track_moved", track_id, path=path, changes=changes)
                if tags is not None:
                    here = origin._replace(**columns.signature_columns(file) | place)
                    await self._update(file, tags, self._names(file, tags), here, track_id)
        return Outcome("moved", path, track_id, f"from {before}")

    async def inherit(self, gone: Known, heir: Known) -> Outcome:
        """Write that a file that is gone is the one that was added under another path: its track goes on there."""
        track_id, added = str(gone.track_id), str(heir.track_id)
        with self._forgetting_on_rollback():
            async with self._database.transaction():
                await self._standing(gone)
                await self._standing(heir)
                before, path = await self._whole_path_of(gone), await self._whole_path_of(heir)
                old, new = await self._tracks.values(track_id), await self._tracks.values(added)
                values = {name: value for name, value in new.items() if name not in {"id", "created_at", "updated_at"}}
                credited, credits = await self._tracks.credits(track_id), await self._tracks.credits(added)
                changes = {"path": [before, path], "merged": added} | columns.differences(old, old | values)
                if _by_role(credited) != _by_role(credits):
                    changes["credits"] = [_by_role(credited), _by_role(credits)]
                self._albums.others_leave()
                await self._files.remove(gone.id)
                await self._files.set(heir.id, track_id=track_id)
                await self._tracks.remove(added)
                await self._tracks.clear_credits(track_id)
                await self._tracks.credit(track_id, credits)
                await self._tracks.set(track_id, **values)
                await self._audit.log_action("track_moved", track_id, path=path, changes=changes)
                await self._remove_orphans(old["album_id"], new["album_id"], credited, credits)
        return Outcome("moved", path, track_id, f"from {before}")

    async def purge(self, file: File) -> Outcome:
        """Remove what the catalogue remembers of a missing file: its track, and what only that one was credited on."""
        path = f"{file.folder.path.rstrip('/')}/{file.path}"
        with self._forgetting_on_rollback():
            async with self._database.transaction():
                row = await self._files.values(file.id)
                if row is None or row["missing_since"] is None:
                    msg = f"{path} is not missing any more"
                    raise StaleError(msg)
                await self._files.remove(file.id)
                if (track_id := row["track_id"]) is None:
                    await self._audit.log_action("file_purged", file.id, path=path)
                    return Outcome("purged", path)
                before, credited = await self._tracks.values(track_id), await self._tracks.credits(track_id)
                await self._tracks.remove(track_id)
                changes = {"title": before["title"], "artist": before["artist_credit"]}
                await self._audit.log_action("track_purged", track_id, path=path, changes=changes)
                await self._remove_orphans(before["album_id"], None, credited, ())
        return Outcome("purged", path, track_id)

    async def restore(self, file: FoundFile, known: Known) -> Outcome:
        """Write that a missing file is back as it was."""
        path = _whole(file)
        with self._forgetting_on_rollback():
            async with self._database.transaction():
                row = await self._standing(known)
                values = columns.signature_columns(file) | {"missing_since": None, "status": _read_status(row)}
                await self._change_file(row, values)
                await self._log_presence("restored", known, path, None)
        return Outcome("restored", path, known.track_id)

    async def lose(self, known: Known, reason: str | None = None) -> Outcome:
        """Write that a file is not there any more, or is none of ours any more; its track and its id stay."""
        async with self._database.transaction():
            await self._standing(known)
            path = await self._whole_path_of(known)
            await self._mark_missing(known, path, {"reason": reason} if reason else None)
        return Outcome("missing", path, known.track_id, reason or "")

    async def adopt_folder(self, path: str, file_system: FileSystem, status: str = "online") -> KnownFolder:
        """Return the row of a folder, made where there is none yet: a watched one, or a file system mounted below."""
        text = path_to_text(path)
        if (folder := await self._folders.get(self._node, text)) is not None:
            return folder
        async with self._database.transaction():
            folder = KnownFolder(new_id(), self._node, text, file_system.kind, file_system.identity, status, None)
            await self._folders.add(folder)
            changes = {"file_system": file_system.kind, "file_system_id": file_system.identity}
            await self._audit.log_action("folder_added", folder.id, path=text, changes=changes)
        return folder

    async def mounts_below(self, root: Root) -> list[KnownFolder]:
        """Return the file systems that were seen mounted below a watched folder."""
        prefix = path_to_text(root.path).rstrip("/") + "/"
        rows = await self._folders.all()
        below = (row for row in rows if row.node == self._node and row.path.startswith(prefix))
        return [row for row in below if row.status in MOUNT_STATES]

    async def set_file_system(self, folder_id: str, file_system: FileSystem) -> None:
        """Write that a folder lies on another file system now."""
        async with self._database.transaction():
            values = {"file_system": file_system.kind, "file_system_id": file_system.identity}
            await self._folders.set(folder_id, **values)
            await self._audit.log_action("folder_updated", folder_id, changes=values)

    async def set_folder_status(self, folder_id: str, path: str, status: str, reason: str | None) -> None:
        """Write that a folder went offline, and why, or that it is back."""
        async with self._database.transaction():
            await self._folders.set(folder_id, status=status, status_reason=reason)
            changes = {"reason": reason} if reason else None
            await self._audit.log_action(f"folder_{status}", folder_id, path=path, changes=changes)

    async def finish_scan(self, root: Root, counts: Mapping[str, int]) -> None:
        """Write what a scan did that changed something."""
        async with self._database.transaction():
            await self._audit.log_action("scan_finished", root.id, path=path_to_text(root.path), changes=dict(counts))

    async def _add(self, file: FoundFile, tags: TrackTags, names: _Names, known: Known | None) -> Outcome:
        path, name, album_key = _whole(file), names.track, names.album_key
        album_id = await self._albums.find(album_key)
        credits = await self._artists.credited(names.credits, Where(path, album_key))
        if album_id is None and (album := columns.album_columns(tags, album_key, credits)) is not None:
            album_id = await self._albums.add(album, path)
        values = columns.track_columns(tags, name, credits)
        track_id = await self._tracks.add(**values, album_id=album_id)
        await self._tracks.credit(track_id, credits)
        await self._write_file(file, known, columns.file_columns(file, tags, name.notes) | {"track_id": track_id})
        changes = {"title": values["title"], "artist": values["artist_credit"], "album": tags.album}
        await self._audit.log_action("track_added", track_id, path=path, changes=changes)
        return Outcome("added", path, track_id, f"{name.artist} – {name.title}")

    async def _update(self, file: FoundFile, tags: TrackTags, names: _Names, known: Known, track_id: str) -> Outcome:
        row = await self._row(known)
        path, name, album_key = _whole(file), names.track, names.album_key
        before, credited = await self._tracks.values(track_id), await self._tracks.credits(track_id)
        credits = await self._artists.credited(names.credits, Where(path, album_key, credited))
        album = columns.album_columns(tags, album_key, credits)
        album_id = await self._albums.of_changed_track(
            track_id, before["album_id"], album, path, is_retagged=not file.is_as(known.signature)
        )
        if album_id != before["album_id"]:
            self._albums.others_leave()
        values = columns.track_columns(tags, name, credits) | {"album_id": album_id}
        changes = columns.differences(before, values)
        if _by_role(credited) != _by_role(credits):
            changes["credits"] = [_by_role(credited), _by_role(credits)]
            await self._tracks.clear_credits(track_id)
            await self._tracks.credit(track_id, credits)
        if known.status != "catalogued":
            changes["status"] = [known.status, "catalogued"]
        await self._change_file(row, columns.file_columns(file, tags, name.notes))
        if not changes:
            return Outcome("unchanged", path, track_id)
        await self._tracks.set(track_id, **columns.changed(before, values))
        action = "restored" if known.is_missing else "updated"
        await self._audit.log_action(f"track_{action}", track_id, path=path, changes=changes)
        if "credits" in changes:
            await self._artists.respell(
                {each.artist_id for each in credited} & {each.artist_id for each in credits}, path
            )
        if "tags.artist_sort" in changes and (sort_name := names.credits[0].sort_name) is not None:
            await self._artists.change_sort_name(credits[0].artist_id, sort_name, path)
        await self._remove_orphans(before["album_id"], album_id, credited, credits)
        return Outcome(action, path, track_id, ", ".join(sorted(changes)))

    def _names(self, file: FoundFile, tags: TrackTags) -> _Names:
        track = columns.named(file, tags)
        credits = credits_of(tags, track.artist, self._credit_rules)
        if len(credits) > MOST_CREDITS:
            track.notes.append(columns.CREDITS_CAPPED)
        return _Names(track, credits[:MOST_CREDITS], columns.album_key_of(file, tags))

    async def _follow_album(self, track_id: str, current: str, origin: Known, file: FoundFile) -> dict[str, Any]:
        album_id = await self._albums.follow(current, origin, file)
        if album_id == current:
            return {}
        await self._tracks.set(track_id, album_id=album_id)
        await self._remove_orphans(current, album_id, (), ())
        return {"album_id": [current, album_id]}

    async def _write_file(self, file: FoundFile, known: Known | None, values: dict[str, Any]) -> str:
        """Write the file's row, new or as it was known, and return its id."""
        if known is not None:
            await self._change_file(await self._row(known), values)
            return known.id
        file_id = new_id()
        empty: dict[str, Any] = {
            "error_code": None,
            "error_text": None,
            "failed_at": None,
            "fingerprint": None,
            "notes": [],
            "track_id": None,
        }
        place = {"id": file_id, "folder_id": file.root.id, "path": file.path, "created_at": now()}
        await self._files.add(**(empty | place | values))
        return file_id

    async def _row(self, known: Known) -> Columns:
        """Return the row of a file that is as it was known."""
        return _as_known(await self._files.values(known.id), known)

    async def _standing(self, known: Known) -> Columns:
        """Return what a move changes of that row, and the album of its track."""
        return _as_known(await self._files.standing(known.id), known)

    async def _change_file(self, row: Columns, values: Columns) -> None:
        """Write what differs of a file's row: what stands in an index costs the most."""
        if changed := columns.changed(row, values):
            await self._files.set(row["id"], **changed)

    async def _retitle(self, track_id: str, title: str) -> dict[str, Any]:
        before = await self._tracks.values(track_id)
        if before["title"] == title:
            return {}
        search_text = before["search_text"].replace(normalize_name(before["title"]), normalize_name(title), 1)
        await self._tracks.set(track_id, title=title, search_text=search_text)
        return {"title": [before["title"], title]}

    async def _mark_missing(self, known: Known, path: str, changes: dict[str, Any] | None) -> None:
        self._albums.others_leave()
        await self._files.set(known.id, status="missing", missing_since=now())
        await self._log_presence("missing", known, path, changes)

    async def _log_presence(self, what: str, known: Known, path: str, changes: dict[str, Any] | None) -> None:
        kind, entity_id = ("track", known.track_id) if known.track_id else ("file", known.id)
        await self._audit.log_action(f"{kind}_{what}", entity_id, path=path, changes=changes)

    async def _whole_path_of(self, known: Known) -> str:
        if (folder := self._paths.get(known.folder_id)) is None:
            folder = self._paths[known.folder_id] = (await self._folders.path_of(known.folder_id)).rstrip("/")
        return f"{folder}/{known.path}"

    async def _remove_orphans(
        self, old_album: str | None, album: str | None, before: Sequence[Credited], after: Sequence[Credited]
    ) -> None:
        """Remove the album and the artists that have lost their last credit."""
        left = {each.artist_id for each in before} - {each.artist_id for each in after}
        if old_album is not None and old_album != album:
            left |= await self._albums.remove_if_empty(old_album)
        if left:
            await self._artists.remove_uncredited(left)

    @contextmanager
    def _forgetting_on_rollback(self) -> Iterator[None]:
        try:
            yield
        except BaseException as error:
            self._artists.forget()
            self._albums.forget()
            if isinstance(error, IntegrityError | NoResultFound):  # another writer added the same, or removed it
                raise StaleError(str(error)) from error
            raise


def _whole(file: FoundFile) -> str:
    return f"{path_to_text(file.root.path).rstrip('/')}/{file.path}"


def _as_known(row: Columns | None, known: Known) -> Columns:
    if row is None or _decided_on_row(row) != _decided_on(known):
        msg = f"{known.path} is not in the catalogue as it was"
        raise StaleError(msg)
    return row


def _read_status(row: Columns) -> str:
    return row["status"] if row["status"] == "ignored" else "failed" if row["error_code"] else "catalogued"


def _by_role(credits: Iterable[Credited]) -> list[list[str]]:
    return [[text for text in credit if text is not None] for credit in sorted(credits, key=lambda each: each.role)]
