"""Assigns tracks to albums; an album keeps its id while its tracks are retagged or moved one after the other.

A retag of a whole album arrives file by file: the first one splits a new album off the old one (`split_from`), and
when the last one follows, the old album takes the others back and gets the columns that their tags give.
A file that is moved stays on its album until the new folder holds that album already, or the old folder does not.
"""

from math import inf

from soulspot.infrastructure.persistence.identity import album_folder, album_key, album_name
from soulspot.infrastructure.persistence.records import Known
from soulspot.infrastructure.persistence.repositories import AlbumRepository, AuditRepository
from soulspot.ingest.catalogue.columns import Columns
from soulspot.ingest.catalogue.rows import changed
from soulspot.ingest.disk.walker import FoundFile


class Albums:
    """Finds, creates and changes albums, inside the caller's transaction.

    Attributes:
        ids: the albums found or created, by identity key.

    """

    def __init__(self, albums: AlbumRepository, audit: AuditRepository) -> None:
        self._albums = albums
        self._audit = audit
        self.ids: dict[str, str] = {}
        self._leaving: dict[str, tuple[tuple[str, ...], float]] = {}  # by id: from and to where, and files yet to move

    def forget(self) -> None:
        """Forget the cached albums: a rollback, a change or a removal has made them stale."""
        self.ids.clear()
        self._leaving.clear()

    async def find(self, key: str | None) -> str | None:
        """Return the album with this identity."""
        found = None if key is None else self.ids.get(key) or await self._albums.with_key(key)
        if key is not None and found is not None:
            self.ids[key] = found
        return found

    async def add(self, wanted: Columns, path: str, *, split_from: str | None = None) -> str:
        """Add the album that a track's tags name."""
        added = self.ids[wanted["identity_key"]] = await self._albums.add(**wanted, split_from=split_from)
        await self._audit.log_action(
            "album_added", added, path=path, changes={"title": wanted["title"], "artist": wanted["artist_credit"]}
        )
        return added

    async def of_changed_track(
        self, track_id: str, current: str | None, wanted: Columns | None, path: str, *, is_retagged: bool
    ) -> str | None:
        """Return the album that a track is on from now on; it may be the same with other columns.

        A file that is read again without a change only fills columns that are empty: tracks may disagree, and none is
        right.
        """
        if wanted is None:
            return None
        if current is None:
            return await self.find(wanted["identity_key"]) or await self.add(wanted, path)
        before = await self._albums.values(current)
        if _name(before) != _name(wanted):
            return await self._of_parting_track(track_id, before, wanted, path)
        given = {
            column: value
            for column, value in wanted.items()
            if value is not None and (is_retagged or before[column] is None)
        }
        await self._change(before, given | {"identity_key": before["identity_key"]}, path)
        return current

    async def follow(self, album_id: str, origin: Known, file: FoundFile) -> str:
        """Return the album of a moved track: the one of its new folder if there is one, else its own, `album_id`.

        While others of it are in the old folder, each file of a renamed folder gives the same answer: their number is
        remembered, and the catalogue is queried again when the last of them has left.
        """
        way = origin.folder_id, album_folder(origin.path), file.root.id, album_folder(file.path)
        if way[:2] == way[2:]:
            return album_id
        remembered, left = self._leaving.pop(album_id, (way, 0))
        if remembered != way or left <= 1:
            target, left = await self._target_of(album_id, origin, file)
            if target is not None:
                return target
        else:
            left -= 1
        self._leaving[album_id] = way, left
        return album_id

    def forget_moves(self) -> None:
        """Forget how many files have yet to move: files leave their folders, or albums, in another way."""
        self._leaving.clear()

    async def _target_of(self, album_id: str, origin: Known, file: FoundFile) -> tuple[str | None, float]:
        """Return the album that a moved track joins, None for its own, and how many files of that have yet to move."""
        before = await self._albums.values(album_id)
        key = album_key(file.root.id, file.path, _name(before), None)
        if before["musicbrainz_id"] is not None or key == before["identity_key"]:
            return None, inf
        if (target := await self._albums.with_key(key)) is not None:
            return target, 0
        present, folder = await self._albums.present_paths(album_id, origin.folder_id), album_folder(origin.path)
        left = sum(path.startswith(folder) and album_folder(path) == folder for path in present)
        if not left:
            await self._albums.set(album_id, identity_key=key)
            self.forget()
        return None, left

    async def remove_if_empty(self, album_id: str) -> set[str]:
        """Remove an album that has lost its last track, and return the artist that it named."""
        if await self._albums.has_tracks_but(album_id, None):
            return set()
        row = await self._albums.values(album_id)
        await self._albums.remove(album_id)
        self.forget()
        await self._audit.log_action("album_removed", album_id, changes={"title": row["title"]})
        return {row["artist_id"]} if row["artist_id"] else set()

    async def _of_parting_track(self, track_id: str, before: Columns, wanted: Columns, path: str) -> str:
        """Return the album of a track whose tags name another album than the one that it is on."""
        current: str = before["id"]
        target = await self._albums.with_key(wanted["identity_key"])
        if await self._albums.has_tracks_but(current, track_id):
            return target or await self.add(wanted, path, split_from=current)
        if target is not None:
            if (await self._albums.values(target))["split_from"] != current:
                return target
            count = await self._albums.take_tracks(current, target)
            await self._albums.remove(target)
            await self._audit.log_action("album_removed", target, path=path, changes={"tracks_to": [current, count]})
        await self._change(before, wanted, path)
        return current

    async def _change(self, before: Columns, values: Columns, path: str) -> None:
        if different := changed(before, values):
            await self._albums.set(before["id"], **different)
            self.forget()
        changes = {
            column: [before[column], value] for column, value in different.items() if not column.endswith("_key")
        }
        if changes:
            await self._audit.log_action("album_updated", before["id"], path=path, changes=changes)


def leaving_key(origin: Known) -> str:
    """Return the key of the lock that moves out of one album's folder share."""
    return f"{origin.folder_id}/{album_folder(origin.path)}"


def _name(album: Columns) -> str:
    """Return the identity of an album, without its folder."""
    if album["musicbrainz_id"] is not None:
        return f"mbid:{album['musicbrainz_id']}"
    return album_name(album["title"], album["artist_credit"], album["date"], compilation=album["compilation"])
