"""Writes the outcome of one file. Each verb is one transaction: all of it is committed, with its audit, or nothing.

ingest             writes the tags of a new, changed or returned file
reject             writes why a file could not be read
move               gives a known file its new path
merge_moved_copy   merges a file that is gone with the copy of it that was added under another path
restore            brings back a missing file that is as it was
lose               marks a file missing
purge              removes a missing file and its track
"""

from collections import ChainMap
from collections.abc import AsyncIterator, Container, Iterable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from typing import Any, Final

from sqlalchemy.exc import IntegrityError, NoResultFound

from soulspot.infrastructure.persistence.database import Database
from soulspot.infrastructure.persistence.models import File
from soulspot.infrastructure.persistence.records import Credited, Known
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
from soulspot.ingest.catalogue.albums import Albums, leaving_key
from soulspot.ingest.catalogue.artists import Artists, CreditContext
from soulspot.ingest.catalogue.columns import TITLE_FROM_NAME, retitled, title_of
from soulspot.ingest.catalogue.credits import AS_WRITTEN, CreditRules
from soulspot.ingest.catalogue.entry import TrackEntry, translate
from soulspot.ingest.catalogue.file_rows import FileRows, found_columns, read_status
from soulspot.ingest.catalogue.key_locks import KeyLocks
from soulspot.ingest.catalogue.rows import album_row, changed, credit_differences, differences, track_row
from soulspot.ingest.disk.walker import FoundFile
from soulspot.ingest.outcome import Outcome, StaleError

MOST_CACHED: Final = 40_000
"""Artists and albums whose ids are kept between transactions."""


class IngestService:
    """Owns the transactions that change files.

    Args:
        run: the id of this start of soulspot, written into each audit entry.
        credit_rules: how the tags' texts become names.

    """

    def __init__(self, database: Database, *, run: str, credit_rules: CreditRules = AS_WRITTEN) -> None:
        session = database.session
        self._database = database
        self._translate = partial(translate, rules=credit_rules)
        self._tracks = TrackRepository(session)
        self._audit = AuditRepository(session, run=run)
        self._files = FileRows(FileRepository(session), FolderRepository(session), self._audit)
        self._artists = Artists(ArtistRepository(session), self._audit, database.reserve)
        self._albums = Albums(AlbumRepository(session), self._audit)
        self._locks = KeyLocks()
        self._existing = ChainMap(self._artists.ids, self._albums.ids)

    async def ingest(self, file: FoundFile, tags: TrackTags, known: Known | None) -> Outcome:
        """Write a new track from a file's tags, or the changes of a known one.

        Raises StaleError if the catalogue's row is not `known` any more.
        """
        entry = self._translate(tags, folder_id=file.root.id, path=file.path)
        async with self._locked(entry.keys(), self._existing), self._transaction():
            if known is None or known.track_id is None:
                return await self._add(file, entry, known)
            return await self._update(file, entry, known, known.track_id)

    async def reject(self, file: FoundFile, failure: Failure, known: Known | None) -> Outcome:
        """Write why a file could not be read; the track that it had before stays.

        A file that a person ignores stays ignored until it changes.
        """
        path = file.catalogue_path
        attempts = 1 if known is None or known.is_missing else known.attempts + 1
        ignored = known is not None and known.status == "ignored" and file.is_as(known.signature)
        values = {
            "status": "ignored" if ignored else "failed",
            "error_code": failure.code,
            "error_text": failure.message,
            "failed_at": now(),
            "attempts": attempts,
        }
        async with self._transaction():
            file_id = await self._files.write(file, known, values)
            if ignored:
                return Outcome("unchanged", path)
            changes = {"code": failure.code, "reason": failure.message, "attempts": attempts}
            await self._audit.log_action("file_failed", file_id, path=path, changes=changes)
        return Outcome("failed", path, known.track_id if known else None, failure.message, failure.code)

    async def move(
        self, file: FoundFile, origin: Known, occupant: Known | None, tags: TrackTags | None = None
    ) -> Outcome:
        """Write that a known file is at a new path; the file that was known at that path becomes missing.

        `tags` are given if the file was also retagged.
        """
        path, track_id = file.catalogue_path, str(origin.track_id)
        entry = None if tags is None else self._translate(tags, folder_id=file.root.id, path=file.path)
        # One at a time out of a folder: of two at once, neither would see that it is the last file of its album.
        async with self._locked([leaving_key(origin)], ()), self._transaction():
            row = await self._files.standing(origin)
            before = await self._files.full_path(origin)
            if occupant is not None and not occupant.is_missing:
                await self._files.standing(occupant)
                await self._mark_missing(occupant, path, {"replaced_by": track_id})
            changes: dict[str, Any] = {"path": [before, path]}
            if origin.is_missing:
                changes["status"] = ["missing", "catalogued"]
            if entry is None and TITLE_FROM_NAME in row["notes"]:
                changes |= await self._retitle(track_id, title_of(file.path))
            place = {"folder_id": file.root.id, "path": file.path, "status": read_status(row)}
            await self._files.change(row, {**found_columns(file), **place})
            changes |= await self._follow_album(track_id, row["album_id"], origin, file)
            await self._audit.log_action("track_moved", track_id, path=path, changes=changes)
            if entry is not None:
                here = origin._replace(**(file.signature._asdict() | place))
                await self._update(file, entry, here, track_id)
        return Outcome("moved", path, track_id, f"from {before}")

    async def merge_moved_copy(self, gone: Known, copy: Known) -> Outcome:
        """Write that a file that is gone was added again under another path: its track continues there."""
        track_id, added = str(gone.track_id), str(copy.track_id)
        async with self._transaction():
            await self._files.standing(gone)
            await self._files.standing(copy)
            before, path = await self._files.full_path(gone), await self._files.full_path(copy)
            old, new = await self._tracks.values(track_id), await self._tracks.values(added)
            values = {name: value for name, value in new.items() if name not in {"id", "created_at", "updated_at"}}
            old_credits, credits = await self._tracks.credits(track_id), await self._tracks.credits(added)
            changes = {"path": [before, path], "merged": added}
            changes |= differences(old, old | values) | credit_differences(old_credits, credits)
            self._albums.forget_moves()
            await self._files.hand_over(gone, copy, track_id)
            await self._tracks.remove(added)
            await self._tracks.clear_credits(track_id)
            await self._tracks.credit(track_id, credits)
            await self._tracks.set(track_id, **values)
            await self._audit.log_action("track_moved", track_id, path=path, changes=changes)
            await self._remove_orphans(old["album_id"], new["album_id"], old_credits, credits)
        return Outcome("moved", path, track_id, f"from {before}")

    async def restore(self, file: FoundFile, known: Known) -> Outcome:
        """Write that a missing file is back unchanged."""
        path = file.catalogue_path
        async with self._transaction():
            row = await self._files.standing(known)
            await self._files.change(row, {**found_columns(file), "status": read_status(row)})
            await self._files.log(known, "restored", path)
        return Outcome("restored", path, known.track_id)

    async def lose(self, known: Known, reason: str | None = None) -> Outcome:
        """Write that a file is gone, or is now ignored by a rule; its track and its id stay."""
        async with self._transaction():
            await self._files.standing(known)
            path = await self._files.full_path(known)
            await self._mark_missing(known, path, {"reason": reason} if reason else None)
        return Outcome("missing", path, known.track_id, reason or "")

    async def purge(self, file: File) -> Outcome:
        """Remove a missing file, its track, and the album and artists that no other track has."""
        path = file.full_path
        async with self._transaction():
            row = await self._files.missing_row(file.id, path)
            await self._files.remove(file.id)
            if (track_id := row["track_id"]) is None:
                await self._audit.log_action("file_purged", file.id, path=path)
                return Outcome("purged", path)
            track, credits = await self._tracks.values(track_id), await self._tracks.credits(track_id)
            await self._tracks.remove(track_id)
            changes = {"title": track["title"], "artist": track["artist_credit"]}
            await self._audit.log_action("track_purged", track_id, path=path, changes=changes)
            await self._remove_orphans(track["album_id"], None, credits, ())
        return Outcome("purged", path, track_id)

    async def _add(self, file: FoundFile, entry: TrackEntry, known: Known | None) -> Outcome:
        path = file.catalogue_path
        album_id = await self._albums.find(entry.album_key)
        credits = await self._artists.credited(entry.credits, CreditContext(path, entry.album_key))
        if album_id is None and (album := album_row(entry, credits)) is not None:
            album_id = await self._albums.add(album, path)
        track_id = await self._tracks.add(**track_row(entry, credits), album_id=album_id)
        await self._tracks.credit(track_id, credits)
        await self._files.write(file, known, {**entry.file, "track_id": track_id})
        title, artist = entry.track["title"], entry.track["artist_credit"]
        changes = {"title": title, "artist": artist, "album": entry.album["title"] if entry.album else None}
        await self._audit.log_action("track_added", track_id, path=path, changes=changes)
        return Outcome("added", path, track_id, f"{artist} – {title}")

    async def _update(self, file: FoundFile, entry: TrackEntry, known: Known, track_id: str) -> Outcome:
        row, path = await self._files.row(known), file.catalogue_path
        before, old_credits = await self._tracks.values(track_id), await self._tracks.credits(track_id)
        credits = await self._artists.credited(entry.credits, CreditContext(path, entry.album_key, old_credits))
        album_id = await self._albums.of_changed_track(
            track_id, before["album_id"], album_row(entry, credits), path, is_retagged=not file.is_as(known.signature)
        )
        if album_id != before["album_id"]:
            self._albums.forget_moves()
        after = track_row(entry, credits) | {"album_id": album_id}
        changes = differences(before, after) | credit_differences(old_credits, credits)
        if known.status != "catalogued":
            changes["status"] = [known.status, "catalogued"]
        if "credits" in changes:
            await self._tracks.clear_credits(track_id)
            await self._tracks.credit(track_id, credits)
        await self._files.change(row, {**found_columns(file), "parser_version": file.root.reading, **entry.file})
        if not changes:
            return Outcome("unchanged", path, track_id)
        await self._tracks.set(track_id, **changed(before, after))
        action = "restored" if known.is_missing else "updated"
        await self._audit.log_action(f"track_{action}", track_id, path=path, changes=changes)
        if "credits" in changes:
            both = {each.artist_id for each in old_credits} & {each.artist_id for each in credits}
            await self._artists.respell(both, path)
        if "tags.artist_sort" in changes and (sort_name := entry.credits[0].sort_name) is not None:
            await self._artists.set_sort_name(credits[0].artist_id, sort_name, path, replace=True)
        await self._remove_orphans(before["album_id"], album_id, old_credits, credits)
        return Outcome(action, path, track_id, ", ".join(sorted(changes)))

    async def _follow_album(self, track_id: str, current: str | None, origin: Known, file: FoundFile) -> dict[str, Any]:
        """Put a moved track on the album of its new folder; return the changes."""
        album_id = None if current is None else await self._albums.follow(current, origin, file)
        if album_id == current:
            return {}
        await self._tracks.set(track_id, album_id=album_id)
        await self._remove_orphans(current, album_id, (), ())
        return {"album_id": [current, album_id]}

    async def _retitle(self, track_id: str, title: str) -> dict[str, Any]:
        """Give a track a new title; return the changes."""
        before = await self._tracks.values(track_id)
        if values := retitled(before, title):
            await self._tracks.set(track_id, **values)
        return differences(before, values)

    async def _mark_missing(self, known: Known, path: str, changes: dict[str, Any] | None) -> None:
        self._albums.forget_moves()
        await self._files.mark_missing(known, path, changes)

    async def _remove_orphans(
        self, old_album: str | None, album: str | None, before: Sequence[Credited], after: Sequence[Credited]
    ) -> None:
        """Remove the album and the artists that have lost their last credit."""
        left = {each.artist_id for each in before} - {each.artist_id for each in after}
        if old_album is not None and old_album != album:
            left |= await self._albums.remove_if_empty(old_album)
        if left:
            await self._artists.remove_uncredited(left)

    def _locked(self, keys: Iterable[str], existing: Container[str]) -> AbstractAsyncContextManager[None]:
        """Hold the locks of what a transaction may create; SQLite has a single writer and needs none."""
        needed = keys if self._database.backend.has_concurrent_writers else ()
        return self._locks.held(needed, existing=existing)

    @asynccontextmanager
    async def _transaction(self) -> AsyncIterator[None]:
        """Run the block in one transaction; if it fails, forget the ids that the rollback may have taken back."""
        if len(self._artists.ids) + len(self._albums.ids) > MOST_CACHED:
            self._forget()
        try:
            async with self._database.transaction():
                yield
        except BaseException as error:
            self._forget()
            if isinstance(error, IntegrityError | NoResultFound):  # another writer added the same, or removed it
                raise StaleError(str(error)) from error
            raise

    def _forget(self) -> None:
        self._artists.forget()
        self._albums.forget()
