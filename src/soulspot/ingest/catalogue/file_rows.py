"""The rows of `files`: compared with what the decision to change them was based on, then written."""

from operator import attrgetter, itemgetter
from typing import Any, Final

from soulspot.infrastructure.filesystem import full_path
from soulspot.infrastructure.persistence.identity import new_id
from soulspot.infrastructure.persistence.records import Known
from soulspot.infrastructure.persistence.repositories import AuditRepository, FileRepository, FolderRepository
from soulspot.infrastructure.persistence.statements import now
from soulspot.ingest.catalogue.columns import Columns
from soulspot.ingest.catalogue.rows import changed
from soulspot.ingest.disk.walker import FoundFile
from soulspot.ingest.outcome import StaleError

# What a decision about a file is based on.
_DECISIVE: Final = ("folder_id", "path", "status", "inode", "size", "mtime_ns")
_decisive_values, _decisive_columns = attrgetter(*_DECISIVE), itemgetter(*_DECISIVE)
_EMPTY: Final[Columns] = {
    "error_code": None,
    "error_text": None,
    "failed_at": None,
    "fingerprint": None,
    "track_id": None,
}


class FileRows:
    """Checks and writes rows of `files`, inside the caller's transaction."""

    def __init__(self, files: FileRepository, folders: FolderRepository, audit: AuditRepository) -> None:
        self._files = files
        self._folders = folders
        self._audit = audit
        self._folder_paths: dict[str, str] = {}  # by id: neither ever changes

    async def row(self, known: Known) -> Columns:
        """Return the row of a known file; raises StaleError if it has changed."""
        return _unchanged(await self._files.values(known.id), known)

    async def standing(self, known: Known) -> Columns:
        """Return the part of the row that a move changes, and the track's album; raises StaleError as `row` does."""
        return _unchanged(await self._files.standing(known.id), known)

    async def missing_row(self, file_id: str, path: str) -> Columns:
        """Return the row of a missing file; raises StaleError if the file is back."""
        row = await self._files.values(file_id)
        if row is None or row["missing_since"] is None:
            raise StaleError(f"{path} is not missing any more")
        return row

    async def write(self, file: FoundFile, known: Known | None, values: Columns) -> str:
        """Write a file that has been read into a new row or the known one, and return the row's id."""
        read = {**found_columns(file), "parser_version": file.root.reading, **values}
        if known is not None:
            await self.change(await self.row(known), read)
            return known.id
        file_id = new_id()
        place = {"id": file_id, "folder_id": file.root.id, "path": file.path, "created_at": now()}
        await self._files.add(**{**_EMPTY, "notes": [], **place, **read})
        return file_id

    async def change(self, row: Columns, values: Columns) -> None:
        """Write only the columns that differ: an indexed one costs the most."""
        if different := changed(row, values):
            await self._files.set(row["id"], **different)

    async def hand_over(self, gone: Known, copy: Known, track_id: str) -> None:
        """Give the track of a file that is gone to its copy, and remove the row of the gone one."""
        await self._files.remove(gone.id)
        await self._files.set(copy.id, track_id=track_id)

    async def remove(self, file_id: str) -> None:
        await self._files.remove(file_id)

    async def mark_missing(self, known: Known, path: str, changes: dict[str, Any] | None) -> None:
        await self._files.set(known.id, status="missing", missing_since=now())
        await self.log(known, "missing", path, changes)

    async def log(self, known: Known, what: str, path: str, changes: dict[str, Any] | None = None) -> None:
        """Write an audit entry of the file's track, or of the file if it has no track."""
        kind, entity_id = ("track", known.track_id) if known.track_id else ("file", known.id)
        await self._audit.log_action(f"{kind}_{what}", entity_id, path=path, changes=changes)

    async def full_path(self, known: Known) -> str:
        if (folder := self._folder_paths.get(known.folder_id)) is None:
            folder = self._folder_paths[known.folder_id] = await self._folders.path_of(known.folder_id)
        return full_path(folder, known.path)


def found_columns(file: FoundFile) -> dict[str, Any]:
    """Return the columns of a present file that its signature sets."""
    return {**file.signature._asdict(), "missing_since": None}


def read_status(row: Columns) -> str:
    """Return the status of a file that is present and was not read again."""
    return row["status"] if row["status"] == "ignored" else "failed" if row["error_code"] else "catalogued"


def _unchanged(row: Columns | None, known: Known) -> Columns:
    if row is None or _decisive_columns(row) != _decisive_values(known):
        raise StaleError(f"the catalogue's row of {known.path} has changed")
    return row
