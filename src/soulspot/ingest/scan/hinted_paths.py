"""Checks the paths that hints name, and hands differences from the catalogue to the intake."""

import asyncio
from collections.abc import Collection
from functools import partial

from soulspot.infrastructure.persistence.repositories import FileRepository
from soulspot.ingest.activity import Activity, FilesInProgress
from soulspot.ingest.database_retry import retry_database
from soulspot.ingest.disk import planner
from soulspot.ingest.disk.ignore_rules import IGNORE_FILE
from soulspot.ingest.disk.scan_queue import ScanQueue
from soulspot.ingest.disk.walker import FoundFile, FoundFolder, Root, check_all
from soulspot.ingest.intake.intake import Intake
from soulspot.ingest.missing.folder_health import FolderHealth
from soulspot.ingest.missing.missing_files import MissingFiles
from soulspot.ingest.pause_gate import PauseGate


class HintedPaths:
    """Checks single paths: those that hints name, and one on request."""

    def __init__(  # noqa: PLR0913 - the pipeline fills this in once, by name
        self,
        *,
        files: FileRepository,
        health: FolderHealth,
        missing: MissingFiles,
        intake: Intake,
        queue: ScanQueue,
        in_progress: FilesInProgress,
        activity: Activity,
        gate: PauseGate,
    ) -> None:
        self._files = files
        self._health = health
        self._missing = missing
        self._intake = intake
        self._queue = queue
        self._in_progress = in_progress
        self._activity = activity
        self._gate = gate

    async def run(self) -> None:
        """Check what hints name, the newest first."""
        hints = self._queue.paths
        while True:
            await hints.wait()
            await self._gate.wait_until_open()
            with self._activity.working():
                for root, paths in hints.take().items():
                    if "" in paths or root in self._health.faults:
                        self._queue.enqueue_folder(root, "")
                    if root not in self._health.faults:
                        await self._check(root, [path for path in paths if path])
                    hints.mark_checked(root)

    async def check_path(self, root: Root, path: str) -> bool:
        """Check one path now; return whether the catalogue is up to date with it."""
        await self._gate.wait_until_open()
        with self._activity.working():
            if await self._health.check(root):
                await self._check(root, [path])
        return not (self._in_progress.has(root, path) or self._missing.undecided(root, path))

    async def _check(self, root: Root, paths: Collection[str]) -> None:
        for path in paths:
            folder, slash, name = path.rpartition("/")
            if name == IGNORE_FILE:  # its rules may have changed
                self._queue.enqueue_folder(root, folder + slash)
        to_check = [path for path in paths if not self._intake.recheck_soon(root, path)]
        found = await asyncio.to_thread(check_all, root, to_check)
        for path, what in found.items():
            if isinstance(what, FoundFolder):
                self._queue.enqueue_folder(root, f"{path}/")
        is_unavailable = partial(self._health.is_unavailable, root)
        files = {path: what for path, what in found.items() if isinstance(what, FoundFile) and not is_unavailable(path)}
        nothing = [path for path, what in found.items() if what is None]
        self._intake.recheck_when_done(root, nothing)
        known = await retry_database(self._files.known_at, root.id, [*files, *nothing])
        gone = [path for path in nothing if path in known and not known[path].is_missing]
        for path in nothing:
            if path not in known:  # it may have been a folder
                gone += [each.path for each in await retry_database(self._files.present_below, root.id, path)]
        await self._missing.note(root, [path for path in gone if not is_unavailable(path)])
        await self._intake.offer(planner.compare(files, known).work, is_fresh=True)
