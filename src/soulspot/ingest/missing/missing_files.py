"""Marks files missing, only after a grace period and only if the folder is healthy and not too many are gone.

Moves are detected before a file counts as lost.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Collection
from datetime import UTC, datetime, timedelta
from functools import partial

from soulspot.infrastructure.filesystem import path_to_text
from soulspot.infrastructure.persistence.records import Known
from soulspot.infrastructure.persistence.repositories import FileRepository
from soulspot.ingest.activity import Activity, FilesInProgress
from soulspot.ingest.catalogue.folder_service import FolderService
from soulspot.ingest.catalogue.service import IngestService
from soulspot.ingest.disk.scan_queue import ScanQueue
from soulspot.ingest.disk.walker import Root, check_all, chunks, covers, why_left_alone
from soulspot.ingest.missing.folder_health import FolderHealth
from soulspot.ingest.missing.grace_period import GracePeriod, ages_of, seconds_gone
from soulspot.ingest.missing.loss_guard import LossGuard
from soulspot.ingest.missing.moves import MoveDetector
from soulspot.ingest.outcome import Outcome, StaleError
from soulspot.ingest.pause_gate import PauseGate
from soulspot.ingest.retry import retry_database

logger = logging.getLogger(__name__)

BUSY_WAIT = 0.25
"""Seconds between two checks of whether files still come in."""
HEIR_WITHIN = timedelta(hours=24)
"""A copy of the same name that was made at most this long before its original went is the original, moved: to another
disk, `mv` copies, and removes when all is copied."""
HEIR_OF_ANY_NAME = 60.0
"""Seconds before a file vanished from which on its copy may have any name: a program that rewrites a file, with other
tags and another name, may have it read before anybody sees that the old one is gone."""
HEIR_YOUNGER_BY = timedelta(seconds=60)
"""Two files that were found at one time were two all the time, and neither is the copy of the other."""
BUSY_LIMIT = 600.0
"""Seconds for which files that come in, and may be those that are gone, put the decision off."""


class MissingFiles:
    """Decides about files that are not where the catalogue has them.

    Args:
        report: called with each outcome, after its commit.

    Attributes:
        held: the number of missing files of a folder that wait for a person to confirm them.

    """

    def __init__(  # noqa: PLR0913 - the pipeline fills this in once, by name
        self,
        *,
        service: IngestService,
        folder_service: FolderService,
        files: FileRepository,
        health: FolderHealth,
        moves: MoveDetector,
        grace_period: GracePeriod,
        guard: LossGuard,
        queue: ScanQueue,
        in_progress: FilesInProgress,
        activity: Activity,
        gate: PauseGate,
        report: Callable[[Outcome], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._service = service
        self._folder_service = folder_service
        self._files = files
        self._health = health
        self._moves = moves
        self._grace_period = grace_period
        self._guard = guard
        self._queue = queue
        self._in_progress = in_progress
        self._activity = activity
        self._gate = gate
        self._report = report
        self._clock = clock
        self._noted = asyncio.Event()
        self._is_deciding = False
        self.held: dict[Root, int] = {}

    def add_root(self, root: Root, status: str, reason: str | None) -> None:
        """Register a folder with its stored status."""
        if status == "held":
            number = (reason or "").partition(" ")[0]
            self.held[root] = int(number) if number.isdecimal() else 0

    def __len__(self) -> int:
        return len(self._grace_period)

    def undecided(self, root: Root, part: str) -> list[str]:
        """Return the paths at and below another that are in their grace period."""
        return [path for path in self._grace_period.waiting(root) if covers(part, path)]

    def are_decided(self, root: Root, paths: Collection[str]) -> bool:
        """Whether the catalogue has what became of all these paths."""
        return not self._is_deciding and not self._grace_period.any_of(root, paths)

    async def note(self, root: Root, paths: Collection[str], *, are_all: bool = False) -> None:
        """Note files that were not found; `are_all` if no other file of the folder is gone."""
        if are_all and not paths:
            await self.end_hold(root)
        if paths:
            await self._moves.note_gone(root, paths)
            ages = await asyncio.to_thread(ages_of, root, paths)
            self._grace_period.note(root, paths, ages=ages.__getitem__, are_all=are_all)
            self._noted.set()

    async def note_moved(self, origin: Known) -> None:
        """Note that a file has moved: drop it from the grace period."""
        if (root := self._health.root_of(origin)) is not None:
            self._grace_period.found(root, origin.path)
            if not self._is_deciding and self._grace_period.are_all_found(root):
                await self.end_hold(root)

    async def end_hold(self, root: Root) -> None:
        """Take a folder out of `held`: no file of it is gone any more."""
        if self.held.pop(root, None) is not None:
            path = path_to_text(root.path)
            await retry_database(self._folder_service.set_folder_status, root.id, path, "online", None)

    async def run(self) -> None:
        while True:
            self._noted.clear()
            try:
                async with asyncio.timeout(self._grace_period.next_due()):
                    await self._noted.wait()
            except TimeoutError:
                await self._wait_until_quiet()
                await self._gate.wait_until_open()
                with self._activity.working():
                    self._is_deciding = True
                    for root, paths in self._grace_period.take_due().items():
                        await self._decide(root, paths)
                    self._is_deciding = False

    async def _wait_until_quiet(self) -> None:
        """Wait: a file that is gone may be one that comes in under another name."""
        began = self._clock()
        while not self._activity.is_quiet and self._clock() - began < BUSY_LIMIT:  # noqa: ASYNC110 - many things make it quiet
            await asyncio.sleep(BUSY_WAIT)

    async def _decide(self, root: Root, paths: Collection[str]) -> None:
        """Mark files missing that are gone, unless the folder is not well or too many are gone at once."""
        if not await self._health.check(root):
            return
        gone = await self._really_gone(root, paths)
        waiting = await self._really_gone(root, self._grace_period.waiting(root))
        doubtful = {each for each in gone + waiting if not self._guard.is_confirmed(root, each.path)}
        present = await retry_database(self._files.count_present, root.id)
        is_held = bool(doubtful) and not self._guard.allows(root, len(doubtful), present)
        if is_held:
            await self._hold(root, len(doubtful), present)
            gone = [each for each in gone if each not in doubtful]
        lost = []
        for each in gone:
            try:
                self._report(await self._write_missing(root, each))
                lost.append(each)
            except StaleError:
                self._queue.enqueue(root, [each.path])
        self._guard.lost(root, sum(each in doubtful for each in lost))
        if lost and not is_held:
            await self.end_hold(root)

    async def _write_missing(self, root: Root, known: Known) -> Outcome:
        """Write that a file is missing, or where it went: one that was copied elsewhere and then removed has moved."""
        if known.track_id is not None:
            heirs = await retry_database(self._heirs_of, root, known)
            if len(heirs) == 1:
                return await retry_database(self._service.merge_moved_copy, known, heirs[0])
        try:
            reason = await asyncio.to_thread(why_left_alone, root, known.path)
        except OSError as error:
            raise StaleError(known.path) from error
        return await retry_database(self._service.lose, known, reason)

    async def _heirs_of(self, root: Root, known: Known) -> list[Known]:
        heirs = await self._files.later_copies_of(
            known.id, younger_by=HEIR_YOUNGER_BY, since=datetime.now(UTC) - HEIR_WITHIN
        )
        namesakes = [each for each in heirs if each.path.rpartition("/")[2] == known.path.rpartition("/")[2]]
        if namesakes or not heirs:
            return namesakes
        age = HEIR_OF_ANY_NAME + await asyncio.to_thread(seconds_gone, root, known.path)
        since = datetime.now(UTC) - timedelta(seconds=age)
        return await self._files.later_copies_of(known.id, younger_by=HEIR_YOUNGER_BY, since=since)

    async def _really_gone(self, root: Root, paths: Collection[str]) -> list[Known]:
        """Return the files that are not where the catalogue has them; those that are there again are checked."""
        gone: list[Known] = []
        for some in chunks([path for path in paths if not self._health.is_unavailable(root, path)]):
            found = await asyncio.to_thread(check_all, root, some)
            self._queue.enqueue(root, [path for path, what in found.items() if what is not None])
            known = await retry_database(
                self._files.known_at, root.id, [path for path in some if found.get(path, "") is None]
            )
            gone += [each for each in known.values() if not (each.is_missing or self._in_progress.has(root, each.path))]
        return gone

    async def _hold(self, root: Root, losing: int, present: int) -> None:
        self._grace_period.forget(root, but=partial(self._guard.is_confirmed, root))
        if root not in self.held:
            what = f"{losing} of its {present} files are not there"
            path = path_to_text(root.path)
            logger.error(
                "folder %s: %s: nothing is marked missing; when they are really gone, say so with"
                " `soulspot scan --confirm-missing`",
                path,
                what,
            )
            await retry_database(self._folder_service.set_folder_status, root.id, path, "held", what)
        self.held[root] = losing
