"""Decides whether a folder, and each file system mounted below it, is well: only then is a missing file a fact.

A disk that is unmounted looks like a library that somebody deleted. So each watched folder, and each file system that
is mounted below one, is checked before anything in it goes missing; a file system that was there and is not, or is
another, takes no file along.
"""

import asyncio
import logging
import os
from collections.abc import Iterable
from dataclasses import dataclass, replace

from soulspot.infrastructure.filesystem import FileSystem, file_system_of, file_systems_below, path_to_text
from soulspot.infrastructure.persistence.records import Known
from soulspot.infrastructure.persistence.repositories import FileRepository
from soulspot.ingest.catalogue.folder_service import FolderService
from soulspot.ingest.disk.scan_queue import ScanQueue
from soulspot.ingest.disk.walker import Root
from soulspot.ingest.missing.grace_period import GracePeriod
from soulspot.ingest.missing.loss_guard import LossGuard
from soulspot.ingest.retry import retry_database

logger = logging.getLogger(__name__)


@dataclass(slots=True)
class _Mount:
    """A file system mounted below a watched folder, at `prefix` ("folder/"), as it was when we last knew it."""

    id: str
    path: str
    identity: str
    fault: str | None = None


class FolderHealth:
    """The watched folders, and whether each is well.

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
        """Return the folder that a file of the catalogue is in; None if that one is not watched."""
        return self._roots.get(known.folder_id)

    def is_unavailable(self, root: Root, path: str) -> bool:
        """Whether a path lies in a folder that is offline, or on a file system that is not mounted now."""
        lost = (prefix for prefix, mount in self._mounts.get(root, {}).items() if mount.fault is not None)
        return root in self.faults or any(path.startswith(prefix) or f"{path}/" == prefix for prefix in lost)

    async def check(self, root: Root) -> bool:
        """Check a folder and what is mounted below; write its status if that changed; return whether it is well."""
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
        mounts = self._mounts.get(root)
        if mounts is None:
            mounts = self._mounts[root] = await self._known_mounts(root)
        for prefix, file_system in mounted.items():
            if prefix not in mounts:
                mounts[prefix] = await self._new_mount(root, prefix, file_system)
        for prefix, mount in list(mounts.items()):
            await self._check_mount(root, prefix, mount, mounted.get(prefix))

    async def _new_mount(self, root: Root, prefix: str, file_system: FileSystem) -> _Mount:
        """Remember a file system; if it hides known files, remember the one that these were on."""
        hidden = [root.full(path) for path in await retry_database(self._files.some_present, root.id, prefix)]
        if hidden and not any(map(os.path.lexists, hidden)):
            file_system = replace(file_system, identity=self._identities[root])
        path = root.full(prefix.rstrip("/"))
        row = await retry_database(self._folder_service.adopt_folder, path, file_system, "mounted")
        return _Mount(row.id, row.path, row.file_system_id)

    async def _known_mounts(self, root: Root) -> dict[str, _Mount]:
        rows = await retry_database(self._folder_service.mounts_below, root)
        start = len(path_to_text(root.path).rstrip("/")) + 1
        known = {}
        for row in rows:
            fault = row.status_reason if row.status == "unmounted" else None
            known[f"{row.path[start:]}/"] = _Mount(row.id, row.path, row.file_system_id, fault)
        return known

    async def _check_mount(self, root: Root, prefix: str, mount: _Mount, now: FileSystem | None) -> None:
        some_known = await retry_database(self._files.some_present, root.id, prefix)
        paths = [root.full(path) for path in some_known]
        fault = None
        if not self._guard.is_confirmed(root, prefix):
            fault = await asyncio.to_thread(mount_fault_of, mount.identity, now, paths)
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


def fault_of(root: Root, known_identity: str, some_known_paths: Iterable[str]) -> str | None:
    """Return why a file that is not in a folder may not be gone; None if the folder is well; blocks.

    A folder on another file system than before counts as the same library if a known file is still there.
    """
    known_paths = list(some_known_paths)
    try:
        with os.scandir(root.path) as entries:
            is_empty = next(entries, None) is None
    except FileNotFoundError:
        return "it is not there: is its disk mounted?"
    except OSError as error:
        return f"it cannot be read: {error.strerror}"
    if not known_paths:
        return None
    if is_empty:
        return "it is empty, and the catalogue knows files in it: is its disk mounted?"
    identity = file_system_of(root.path).identity
    if identity != known_identity and not any(os.path.lexists(root.full(path)) for path in known_paths):
        return f"it lies on another file system ({identity}, before {known_identity}) that holds none of its files"
    return None


def mount_fault_of(identity: str, now: FileSystem | None, some_known_files: Iterable[str]) -> str | None:
    """Return why a file that is not found where a file system was mounted may not be gone; blocks.

    `now` is what is mounted there, None for nothing; if known files are there, it is the same library.
    """
    known = list(some_known_files)
    if not known or (now is not None and now.identity == identity) or any(map(os.path.lexists, known)):
        return None
    if now is None:
        return f"the file system that was mounted there ({identity}) is not"
    return f"another file system is mounted there ({now.identity}, before {identity}) that holds none of its files"
