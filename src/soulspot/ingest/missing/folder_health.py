"""Decides whether a folder, and each file system mounted below it, is healthy: only then is a missing file a fact.

An unmounted disk looks like a deleted library. So each watched folder, and each file system mounted below one, is
checked before anything in it goes missing; a file system that is unmounted or replaced takes no file along.
"""

import asyncio
import logging
import os
from collections.abc import Collection
from dataclasses import dataclass, replace

from soulspot.infrastructure.filesystem import FileSystem, file_system_of, file_systems_below, path_to_text
from soulspot.infrastructure.persistence.records import Known
from soulspot.infrastructure.persistence.repositories import FileRepository
from soulspot.ingest.catalogue.folder_service import FolderService
from soulspot.ingest.database_retry import retry_database
from soulspot.ingest.disk.scan_queue import ScanQueue
from soulspot.ingest.disk.walker import Root
from soulspot.ingest.missing.grace_period import GracePeriod
from soulspot.ingest.missing.loss_guard import LossGuard

logger = logging.getLogger(__name__)


@dataclass(slots=True)
class _Mount:
    """A file system mounted below a watched folder, in its last known state."""

    id: str
    path: str
    identity: str
    fault: str | None = None


class FolderHealth:
    """The watched folders, and whether each is healthy.

    Attributes:
        faults: why a folder is offline.

    """

    def __init__(
        self,
        folder_service: FolderService,
        files: FileRepository,
        guard: LossGuard,
        grace_period: GracePeriod,
        queue: ScanQueue,
    ) -> None:
        self._folder_service = folder_service
        self._files = files
        self._guard = guard
        self._grace_period = grace_period
        self._queue = queue
        self._roots: dict[str, Root] = {}
        self._identities: dict[Root, str] = {}
        self._mounts: dict[Root, dict[str, _Mount]] = {}
        self._checking = asyncio.Lock()
        self.faults: dict[Root, str] = {}

    def add_root(self, root: Root, file_system_id: str, status: str, reason: str | None) -> None:
        """Register a folder with its stored status."""
        self._roots[root.id] = root
        self._identities[root] = file_system_id
        if status == "offline":
            self.faults[root] = reason or ""

    def root_of(self, known: Known) -> Root | None:
        """Return the folder that a file of the catalogue is in; None if that folder is not watched."""
        return self._roots.get(known.folder_id)

    def is_unavailable(self, root: Root, path: str) -> bool:
        """Whether a path lies in a folder that is offline, or on a file system that is not mounted now."""
        lost = (prefix for prefix, mount in self._mounts.get(root, {}).items() if mount.fault is not None)
        return root in self.faults or any(f"{path}/".startswith(prefix) for prefix in lost)

    async def check(self, root: Root) -> bool:
        """Check a folder and what is mounted below; write its status if that changed; return whether it is healthy."""
        async with self._checking:
            some_known = await retry_database(self._files.some_present, root.id)
            fault = await asyncio.to_thread(fault_of, root, self._identities[root], some_known)
            if fault is not None:
                await self._set_offline(root, fault)
            elif root in self.faults:
                await self._set_online(root)
            if fault is None:
                await self._check_mounts(root)
            return fault is None

    async def _set_offline(self, root: Root, fault: str) -> None:
        self._grace_period.forget(root)
        is_new, self.faults[root] = root not in self.faults, fault
        if is_new:
            path = path_to_text(root.path)
            logger.error("folder %s is offline: %s; nothing in it is marked missing", path, fault)
            await retry_database(self._folder_service.set_folder_status, root.id, path, "offline", fault)

    async def _set_online(self, root: Root) -> None:
        del self.faults[root]
        path = path_to_text(root.path)
        logger.warning("folder %s is online again", path)
        await retry_database(self._folder_service.set_folder_status, root.id, path, "online", None)
        self._queue.enqueue(root, [""])

    async def _check_mounts(self, root: Root) -> None:
        found = await asyncio.to_thread(file_systems_below, root.path)
        mounted = {f"{path_to_text(path)}/": file_system for path, file_system in found.items()}
        root.remote.clear()
        root.remote.update(prefix for prefix, file_system in mounted.items() if file_system.is_remote)
        if root not in self._mounts:
            self._mounts[root] = await self._known_mounts(root)
        mounts = self._mounts[root]
        for prefix in sorted(mounted.keys() - mounts.keys()):
            mounts[prefix] = await self._new_mount(root, prefix, mounted[prefix])
        for prefix, mount in mounts.items():
            await self._check_mount(root, prefix, mount, mounted.get(prefix))

    async def _new_mount(self, root: Root, prefix: str, file_system: FileSystem) -> _Mount:
        """Store a new file system; if it hides known files, store the identity of the one that holds them."""
        hidden = [root.full(path) for path in await retry_database(self._files.some_present, root.id, prefix)]
        if hidden and not any(map(os.path.lexists, hidden)):
            file_system = replace(file_system, identity=self._identities[root])
        path = root.full(prefix.rstrip("/"))
        row = await retry_database(self._folder_service.adopt_folder, path, file_system, "mounted")
        return _Mount(row.id, row.path, row.file_system_id)

    async def _known_mounts(self, root: Root) -> dict[str, _Mount]:
        start = len(path_to_text(root.path).rstrip("/")) + 1
        return {
            f"{row.path[start:]}/": _Mount(
                row.id, row.path, row.file_system_id, row.status_reason if row.status == "unmounted" else None
            )
            for row in await retry_database(self._folder_service.mounts_below, root)
        }

    async def _check_mount(self, root: Root, prefix: str, mount: _Mount, now: FileSystem | None) -> None:
        is_confirmed = self._guard.is_confirmed(root, prefix)
        some_known = [] if is_confirmed else await retry_database(self._files.some_present, root.id, prefix)
        fault = await asyncio.to_thread(mount_fault_of, mount.identity, now, list(map(root.full, some_known)))
        if fault is None and now is not None and now.identity != mount.identity:
            mount.identity = now.identity
            await retry_database(self._folder_service.set_file_system, mount.id, now)
        if (fault is None) == (mount.fault is None):
            return
        mount.fault = fault
        status = "mounted" if fault is None else "unmounted"
        await retry_database(self._folder_service.set_folder_status, mount.id, mount.path, status, fault)
        if fault is None:
            logger.warning("%s is mounted again", mount.path)
            self._queue.enqueue(root, [prefix])
        else:
            logger.error("%s: %s; nothing in it is marked missing", mount.path, fault)


def fault_of(root: Root, known_identity: str, some_known_paths: Collection[str]) -> str | None:
    """Return why files that a folder lacks may not be gone; None if the folder is healthy. Blocks.

    A folder on another file system than before counts as the same library if a known file is still there.
    """
    try:
        with os.scandir(root.path) as entries:
            is_empty = next(entries, None) is None
    except FileNotFoundError:
        return "it does not exist: is its disk mounted?"
    except OSError as error:
        return f"it cannot be read: {error.strerror}"
    if not some_known_paths:
        return None
    if is_empty:
        return "it is empty, but the catalogue has files in it: is its disk mounted?"
    identity = file_system_of(root.path).identity
    if identity != known_identity and not any(os.path.lexists(root.full(path)) for path in some_known_paths):
        return f"it is on another file system ({identity}, before {known_identity}) that has none of its files"
    return None


def mount_fault_of(identity: str, now: FileSystem | None, some_known_files: Collection[str]) -> str | None:
    """Return why the missing files of a mounted file system may still exist; None if it is healthy. Blocks.

    `now` is what is mounted there; if some known files are found, it is the same library.
    """
    is_same = now is not None and now.identity == identity
    if is_same or not some_known_files or any(map(os.path.lexists, some_known_files)):
        return None
    if now is None:
        return f"the file system ({identity}) is not mounted"
    return f"another file system is mounted ({now.identity}, before {identity}) that has none of its files"
