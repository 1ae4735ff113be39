"""Writes changes of the watched folders and of the file systems mounted below them; each verb is one transaction."""

from collections.abc import Mapping

from soulspot.infrastructure.filesystem import FileSystem, path_to_text
from soulspot.infrastructure.persistence.database import Database
from soulspot.infrastructure.persistence.identity import new_id
from soulspot.infrastructure.persistence.models import MOUNT_STATES
from soulspot.infrastructure.persistence.records import KnownFolder
from soulspot.infrastructure.persistence.repositories import AuditRepository, FolderRepository
from soulspot.ingest.disk.walker import Root


class FolderService:
    """Owns the transactions that change folders.

    Args:
        run: the id of this start of soulspot, written into each audit entry.
        node: the name of this machine; a folder belongs to the machine that sees it.

    """

    def __init__(self, database: Database, *, run: str, node: str) -> None:
        self._database = database
        self._node = node
        self._folders = FolderRepository(database.session)
        self._audit = AuditRepository(database.session, run=run)

    async def adopt_folder(self, path: str, file_system: FileSystem, status: str = "online") -> KnownFolder:
        """Return the row of a watched folder, or of a file system mounted below one; add it if it is new."""
        text = path_to_text(path)
        if (folder := await self._folders.get(self._node, text)) is not None:
            return folder
        async with self._database.transaction():
            folder = KnownFolder(new_id(), self._node, text, file_system.kind, file_system.identity, status, None)
            await self._folders.add(folder)
            await self._audit.log_action(
                "folder_added",
                folder.id,
                path=text,
                changes={"file_system": file_system.kind, "file_system_id": file_system.identity},
            )
        return folder

    async def mounts_below(self, root: Root) -> list[KnownFolder]:
        """Return the known file systems below a watched folder, mounted now or not."""
        prefix = path_to_text(root.path).rstrip("/") + "/"
        here = [row for row in await self._folders.all() if row.node == self._node and row.status in MOUNT_STATES]
        return [row for row in here if row.path.startswith(prefix)]

    async def set_file_system(self, folder_id: str, file_system: FileSystem) -> None:
        """Write that a folder is on another file system now."""
        async with self._database.transaction():
            values = {"file_system": file_system.kind, "file_system_id": file_system.identity}
            await self._folders.set(folder_id, **values)
            await self._audit.log_action("folder_updated", folder_id, changes=values)

    async def set_folder_status(self, folder_id: str, path: str, status: str, reason: str | None) -> None:
        """Write that a folder went offline, and why, or that it is back."""
        async with self._database.transaction():
            await self._folders.set(folder_id, status=status, status_reason=reason)
            await self._audit.log_action(
                f"folder_{status}", folder_id, path=path, changes={"reason": reason} if reason else None
            )

    async def finish_scan(self, root: Root, counts: Mapping[str, int]) -> None:
        """Write the counts of a scan that changed something."""
        async with self._database.transaction():
            await self._audit.log_action("scan_finished", root.id, path=path_to_text(root.path), changes=dict(counts))
