"""Scans folders, compares them with the catalogue, and hands differences to the intake.

Small folders that a hint named go first, as a whole. Large folders and whole roots follow in parts, at the pace at
which the intake takes their files.
"""

import asyncio
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from datetime import UTC, datetime

from soulspot.infrastructure.persistence.repositories import FileRepository
from soulspot.ingest.activity import Activity, FilesInProgress
from soulspot.ingest.database_retry import retry_database
from soulspot.ingest.disk.folder_index import FolderIndex
from soulspot.ingest.disk.planner import Work
from soulspot.ingest.disk.scan_queue import ScanQueue
from soulspot.ingest.disk.walker import FoundFolder, Root, list_folder, walk
from soulspot.ingest.disk.watch_coverage import WatchCoverage
from soulspot.ingest.intake.intake import Intake
from soulspot.ingest.intake.stability import FIRST_WAIT
from soulspot.ingest.missing.folder_health import FolderHealth
from soulspot.ingest.missing.missing_files import MissingFiles
from soulspot.ingest.pause_gate import PauseGate
from soulspot.ingest.scan.comparison import Comparison
from soulspot.ingest.scan.progress import WalkProgress

CONFIRM_AFTER = 0.5
"""Seconds until a new folder is scanned again: if it was renamed at once, the watch has followed it by then."""
UNWATCHED_AFTER = 2.0
"""Seconds after which a folder that the watcher still does not watch counts as unwatched."""
MANY_UNWATCHED = 64
"""With this many unwatched folders, scan the folder above instead of each."""
ARRIVALS = 20_000
"""New files that a scan holds back until it knows what is gone: they may be moved files."""
SMALL = 500
"""A folder that a hint named goes before full scans if it has at most this many files."""


@dataclass(slots=True)
class Walked:
    """The results of a scan: folders, files that are gone, folders unwatched when it began, and unreadable paths."""

    folders: list[FoundFolder] = field(default_factory=list)
    gone: list[str] = field(default_factory=list)
    unwatched: list[FoundFolder] = field(default_factory=list)
    unreadable: dict[str, str] = field(default_factory=dict)


def _ignore(_count: int) -> None:
    """Discard the number of unchanged files."""


class Reconciler:
    """Scans folders and brings the catalogue up to date with them.

    Attributes:
        folders: the folders that scans have found.
        reconciled: when the last full scan of each root ended.
        walks: the progress of full scans.

    """

    def __init__(  # noqa: PLR0913 - the pipeline fills this in once, by name
        self,
        *,
        files: FileRepository,
        health: FolderHealth,
        missing: MissingFiles,
        intake: Intake,
        queue: ScanQueue,
        coverage: WatchCoverage,
        in_progress: FilesInProgress,
        activity: Activity,
        gate: PauseGate,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._files = files
        self._comparison = Comparison(files, health)
        self._health = health
        self._missing = missing
        self._intake = intake
        self._queue = queue
        self._coverage = coverage
        self._in_progress = in_progress
        self._activity = activity
        self._gate = gate
        self._clock = clock
        self.folders = FolderIndex()
        self.reconciled: dict[Root, datetime] = {}
        self.walks: dict[Root, WalkProgress] = {}

    async def scan_small_folders(self) -> None:
        """Scan the small folders that hints name, and pass on the large ones: an album does not wait for a library."""
        while True:
            await self._queue.small_folders.wait()
            await self._gate.wait_until_open()
            with self._activity.working():
                hints = self._queue.small_folders.take()
                watched = await self._coverage.watched()
                well = {root for root in {root for root, _, _ in hints} if await self._health.check(root)}
                for root, prefix, since in hints:
                    walked = await self._scan_small(root, prefix, watched, since) if root in well else Walked()
                    if walked is None:
                        self._queue.large_folders.add(root, prefix, since)
                    else:
                        await self._scan_again(root, prefix, walked.unwatched, since)

    async def scan_large_folders(self) -> None:
        """Scan large folders and whole roots, at the pace at which their files are read and written."""
        while True:
            await self._queue.large_folders.wait()
            await self._gate.wait_until_open()
            with self._activity.working():
                for root, prefix, since in self._queue.large_folders.take():
                    walked = await self.reconcile(root, prefix, since=since if prefix else None)
                    await self._scan_again(root, prefix, walked.unwatched, since)

    async def scan_now(self, root: Root, prefix: str, *, unchanged: Callable[[int], None] = _ignore) -> None:
        """Compare everything at and below `prefix` with the catalogue now, and have unwatched folders there handled."""
        await self._gate.wait_until_open()
        with self._activity.working():
            since = self._clock()
            walked = await self.reconcile(root, prefix, unchanged=unchanged)
            await self._scan_again(root, prefix, walked.unwatched, since)

    async def reconcile(
        self,
        root: Root,
        prefix: str = "",
        *,
        unchanged: Callable[[int], None] = _ignore,
        since: float | None = None,
    ) -> Walked:
        """Compare everything at and below `prefix` ("" or "folder/") with the catalogue; ingest what differs.

        Calls `unchanged` with numbers of unchanged files. `since` is when the new folder at `prefix` was reported.
        """
        progress = WalkProgress(self._in_progress, self._clock)

        def pass_over(count: int) -> None:
            progress.passed_over += count
            unchanged(count)

        if not prefix:
            self.walks[root] = progress
        try:
            with self._activity.working():  # between two parts nothing may be in progress, although the scan continues
                return await self._scan_large(root, prefix, pass_over, since)
        finally:
            if self.walks.get(root) is progress:
                del self.walks[root]

    async def scan_folder(self, root: Root, folder: str) -> int:
        """Compare the files directly in a folder with the catalogue; return the number of unknown files and folders."""
        prefix = _prefix(folder)
        batch, below = await asyncio.to_thread(list_folder, root, prefix)
        plan = await self._comparison.folder(root, batch, prefix)
        await self._missing.note(root, [each.path for each in plan.gone])
        self.folders.update(root, batch.folders, batch.unreadable)
        new = [path for path in below if not self.folders.knows(root, path.rstrip("/"))]
        self._queue.enqueue(root, new)
        return len(new) + await self._intake.offer(plan.work, is_fresh=True)

    async def _scan_large(
        self, root: Root, prefix: str, pass_over: Callable[[int], None], since: float | None
    ) -> Walked:
        walked = Walked()
        if not await self._health.check(root):
            return walked
        watched = await self._coverage.watched()
        # A file cannot have moved while the catalogue knows none.
        may_have_moved = bool(await retry_database(self._files.some_present, root.id, "", 1))
        arrived, after, batches = list[Work](), "", walk(root, prefix)
        while (batch := await asyncio.to_thread(next, batches, None)) is not None:
            await self._gate.wait_until_open()
            plan = await self._comparison.likely_current(root, batch, prefix, after)
            pass_over(plan.unchanged)
            walked.gone += [each.path for each in plan.gone]
            walked.folders += batch.folders
            walked.unreadable = batch.unreadable  # of all batches so far
            after = batch.upto or ""
            if may_have_moved and len(arrived) < ARRIVALS:
                arrived += [each for each in plan.work if each.known is None]
                plan.work = [each for each in plan.work if each.known is not None]
            await self._intake.offer(plan.work, is_fresh=False, since=since)
        await self._end_scan(root, prefix, walked, watched)
        if not prefix:
            self.reconciled[root] = datetime.now(UTC)
        # Only now are all gone files known, and each of these may be one of them.
        await self._intake.offer(arrived, is_fresh=False, since=since)
        return walked

    async def _scan_small(
        self, root: Root, prefix: str, watched: Collection[tuple[int, int]] | None, since: float
    ) -> Walked | None:
        """Do the same for a small folder, ahead of the files of full scans; return None if it is large."""
        batch = await asyncio.to_thread(next, walk(root, prefix, size=SMALL))
        if batch.upto is not None:
            return None
        plan = await self._comparison.part(root, batch, prefix)
        walked = Walked(batch.folders, [each.path for each in plan.gone], unreadable=batch.unreadable)
        await self._end_scan(root, prefix, walked, watched)
        await self._intake.offer(plan.work, is_fresh=True, since=since)
        return walked

    async def _end_scan(
        self, root: Root, prefix: str, walked: Walked, watched: Collection[tuple[int, int]] | None
    ) -> None:
        """Remember the folders, find the unwatched ones, and note what is gone."""
        walked.unwatched = self._coverage.unwatched_of(root, walked.folders, watched)
        self.folders.note(root, prefix, walked.folders, walked.unreadable)
        await self._missing.note(root, walked.gone, are_all=not prefix)

    async def _scan_again(self, root: Root, prefix: str, unwatched: list[FoundFolder], since: float) -> None:
        """Schedule another scan of a folder for when it and the folders in it are watched."""
        if not self._coverage.has_watcher:
            return
        loop, age = asyncio.get_running_loop(), self._clock() - since
        if age < CONFIRM_AFTER and prefix:
            loop.call_later(CONFIRM_AFTER, self._queue.enqueue_folder, root, prefix, since)
        if unwatched and age < UNWATCHED_AFTER:
            again = [_prefix(folder.path) for folder in unwatched] if len(unwatched) < MANY_UNWATCHED else [prefix]
            for each in again:
                loop.call_later(max(age, FIRST_WAIT), self._queue.enqueue_folder, root, each, since)
        elif unwatched:
            watched = await self._coverage.watched() or ()
            for folder in unwatched:
                if (folder.device, folder.inode) in watched:  # since the scan began
                    self._queue.enqueue_folder(root, _prefix(folder.path))
            still = [each.path for each in unwatched if (each.device, each.inode) not in watched]
            self._coverage.unwatched.put_nowait((root, still))


def _prefix(path: str) -> str:
    return f"{path}/" if path else ""
