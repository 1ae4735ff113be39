"""Joins the stages that every file passes, whatever named it.

    hint ──> check one path (scan/hinted_paths.py) ─┐
    folder ──> scan it (scan/reconciler.py) ────────┴─> compare with the catalogue
                         │
                         ├─> intake/: complete? ─> read its tags ─> one transaction (catalogue/)
                         └─> missing/: gone? ─> grace period ─> moved? ─> is the folder healthy? ─> missing

The stages share objects that are built before them: `ScanQueue` (what to check or scan), `FilesInProgress` and
`Activity` (what is in progress, and whether all is quiet), `WatchCoverage` (what is not watched).

Any unexpected error in a stage ends the task group, and with it the process: the next start finds what is left.
"""

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager

from soulspot.infrastructure.persistence.repositories import FileRepository
from soulspot.infrastructure.tags.readers.pool import TagReaders
from soulspot.ingest.activity import Activity, FilesInProgress
from soulspot.ingest.catalogue.folder_service import FolderService
from soulspot.ingest.catalogue.service import IngestService
from soulspot.ingest.database_retry import retry_database
from soulspot.ingest.disk.scan_queue import ScanQueue
from soulspot.ingest.disk.walker import Root
from soulspot.ingest.disk.watch_coverage import WatchCoverage
from soulspot.ingest.intake.intake import Intake
from soulspot.ingest.intake.stability import Stability
from soulspot.ingest.missing.folder_health import FolderHealth
from soulspot.ingest.missing.grace_period import GracePeriod
from soulspot.ingest.missing.loss_guard import LossGuard
from soulspot.ingest.missing.missing_files import MissingFiles
from soulspot.ingest.missing.moves import MoveDetector
from soulspot.ingest.outcome import Outcome, PipelineStats
from soulspot.ingest.pause_gate import PauseGate
from soulspot.ingest.scan.hinted_paths import HintedPaths
from soulspot.ingest.scan.reconciler import Reconciler


class Pipeline:
    """The stages from a hint to a file's transaction.

    Args:
        queue: what to check or scan, shared with all that add to it.
        coverage: which folders the watcher watches.
        report: called with each outcome, after its commit.
        missing_after: seconds of absence after which a file is missing.
        gate: closed while ingest is paused.
        concurrency: files that are read or written at once.

    Attributes:
        faults: why a folder is offline, by folder.
        held: missing files held back for confirmation, by folder.
        folders: the folders that scans have found.
        walks: how far the scans of whole folders are.
        reconciled: when each folder was last compared with the catalogue as a whole.
        unwatched: the folders that cannot be watched, and are polled instead.

    """

    def __init__(  # noqa: PLR0913 - the composition root fills this in once, by name
        self,
        *,
        service: IngestService,
        folder_service: FolderService,
        files: FileRepository,
        readers: TagReaders,
        stability: Stability,
        queue: ScanQueue,
        coverage: WatchCoverage,
        report: Callable[[Outcome], None],
        missing_after: float,
        guard: LossGuard,
        gate: PauseGate,
        concurrency: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.queue = queue
        self.unwatched = coverage.polled
        self._guard = guard
        self._gate = gate
        self._in_progress = FilesInProgress(clock=clock)
        self._activity = Activity(queue, self._in_progress)
        grace_period = GracePeriod(missing_after, clock=clock)
        self._health = FolderHealth(folder_service, files, guard, grace_period, queue)
        self.faults = self._health.faults
        moves = MoveDetector(files, self._health, readers, queue.paths)
        self._missing = MissingFiles(
            service=service,
            folder_service=folder_service,
            files=files,
            health=self._health,
            moves=moves,
            grace_period=grace_period,
            guard=guard,
            queue=queue,
            in_progress=self._in_progress,
            activity=self._activity,
            gate=gate,
            report=report,
            clock=clock,
        )
        self.held = self._missing.held
        self._intake = Intake(
            service=service,
            readers=readers,
            stability=stability,
            files=files,
            health=self._health,
            moves=moves,
            missing=self._missing,
            queue=queue,
            in_progress=self._in_progress,
            activity=self._activity,
            gate=gate,
            report=report,
            concurrency=concurrency,
            clock=clock,
        )
        self.hinted_paths = HintedPaths(
            files=files,
            health=self._health,
            missing=self._missing,
            intake=self._intake,
            queue=queue,
            in_progress=self._in_progress,
            activity=self._activity,
            gate=gate,
        )
        self.reconciler = Reconciler(
            files=files,
            health=self._health,
            missing=self._missing,
            intake=self._intake,
            queue=queue,
            coverage=coverage,
            in_progress=self._in_progress,
            activity=self._activity,
            gate=gate,
            clock=clock,
        )
        self.folders = self.reconciler.folders
        self.walks = self.reconciler.walks
        self.reconciled = self.reconciler.reconciled

    def add_root(self, root: Root, file_system_id: str, status: str, reason: str | None) -> None:
        """Register a watched folder with its stored status."""
        self._health.add_root(root, file_system_id, status, reason)
        self._missing.add_root(root, status, reason)

    async def run(self) -> None:
        """Work until `stop`; raises any unexpected error of a stage."""
        stages = {
            "hinted paths": self.hinted_paths.run(),
            "small folders": self.reconciler.scan_small_folders(),
            "large folders": self.reconciler.scan_large_folders(),
            "missing files": self._missing.run(),
        }
        async with asyncio.TaskGroup() as group:
            loops = [group.create_task(stage, name=name) for name, stage in stages.items()]
            await group.create_task(self._intake.run(), name="intake")
            for loop in loops:
                loop.cancel()

    def stop(self) -> None:
        """Let the files in progress finish, and take no others."""
        self._intake.stop()

    async def wait(self, *, give_up_after: float) -> list[str]:
        """Wait until nothing is left to do; return the paths of files still written after `give_up_after` seconds."""
        while True:
            self._activity.watch_progress()
            late = self._in_progress.finished_or_late(longer_than=give_up_after)
            if late is not None and not (self._activity.is_scanning or len(self._missing)):
                return late
            await self._activity.next_progress()

    async def wait_for(self, parts: Mapping[Root, Sequence[str]], *, give_up_after: float) -> list[str]:
        """Wait in the same way for what is at and below some paths now, but not for what comes later."""
        named = [(root, path) for root, paths in parts.items() for path in paths]
        waited = [each for root, path in named for each in self._in_progress.below(root, path)]
        undecided = [(root, self._missing.undecided(root, path)) for root, path in named]
        while True:
            self._activity.watch_progress()
            late = self._in_progress.finished_or_late(waited, longer_than=give_up_after)
            if late is not None and all(self._missing.are_decided(root, paths) for root, paths in undecided):
                return late
            await self._activity.next_progress()

    def confirming(self, parts: Mapping[Root, Sequence[str]]) -> AbstractContextManager[None]:
        """Treat missing files at and below these paths as confirmed while the block runs."""
        return self._guard.confirming(parts)

    def stats(self) -> PipelineStats:
        files, in_hand = self._in_progress, self._in_progress.in_hand
        return PipelineStats(
            finished=files.finished,
            in_hand=in_hand,
            settling=len(files) - in_hand,
            oldest=files.oldest,
            paused=retry_database.reason,
            held_up=self._gate.paused,
        )

    def in_progress(self, number: int) -> list[tuple[str, float, bool]]:
        """Return up to `number` files in progress: path, age in seconds, and whether it is incomplete."""
        return self._in_progress.some(number)

    @property
    def is_quiet(self) -> bool:
        """Whether nothing is being scanned, checked or ingested, apart from files that are still being written."""
        return self._activity.is_quiet

    @property
    def is_paused(self) -> bool:
        return self._gate.paused is not None

    @property
    def finished(self) -> int:
        """Files finished since the start."""
        return self._in_progress.finished
